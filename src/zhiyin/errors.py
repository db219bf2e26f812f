"""What can go wrong, as a tree. The command line exits with 2 for a `UserError` and with 1 for a `Failure`.

ZhiyinError
├── UserError            what you gave cannot be used; nothing was changed
│   ├── SpecError        a recipe or a spec: an unknown key, a value out of range, an unknown `use`
│   ├── DataError        a log, a table or a data set: a missing column, a null id, a broken file
│   └── RequestError     a request to the service or the retriever
└── Failure              what you gave was fine; the world was not
    ├── TrainingError    a loss that is no longer finite, a checkpoint that does not fit
    ├── SearchError      an index that cannot be built, loaded or searched
    ├── ChannelError     a request whose every channel is late or fails
    ├── ReleaseError     a release that is missing, broken, too new, or did not prove itself
    └── StoreError       a store that cannot be opened, read or written
"""

from typing import Self


class ZhiyinError(Exception):
    """One sentence for a person: where it happened, what was found, what was expected, and the way out.

    >>> str(DataError("no column 'ts'", where="events.csv", expected="user, item or time", remedy="Set data.time."))
    "events.csv: no column 'ts'; expected user, item or time. Set data.time."
    """

    def __init__(self, what: str, *, where: str = "", expected: str = "", remedy: str = "") -> None:
        self.what, self.where, self.expected, self.remedy = what, where, expected, remedy
        sentence = f"{where}: {what}" if where else what
        if expected:
            sentence += f"; expected {expected}"
        super().__init__(f"{sentence}. {remedy}" if remedy else sentence)

    def at(self, where: str) -> Self:
        """The same error, seen from one level further out: `where` is put before its own place."""
        place = f"{where}{self.where}" if self.where.startswith((".", "[")) else f"{where} {self.where}".strip()
        return type(self)(self.what, where=place, expected=self.expected, remedy=self.remedy)


class UserError(ZhiyinError):
    """What was given cannot be used. Exit code 2."""


class SpecError(UserError):
    """A recipe or a spec is wrong."""


class DataError(UserError):
    """A log, a table or a data set cannot be read as asked."""


class RequestError(UserError):
    """A request cannot be answered; `status` is its HTTP status."""

    status = 400


class Failure(ZhiyinError):  # noqa: N818 – the other half of the tree, not an error of its own
    """What was given was fine, and it went wrong all the same. Exit code 1."""


class TrainingError(Failure):
    """Training cannot go on."""


class SearchError(Failure):
    """An index cannot be built, saved, loaded or searched."""


class ChannelError(Failure):
    """Every channel that a request asks is late or fails."""


class ReleaseError(Failure):
    """A release is missing, broken, of a newer format, or did not prove itself."""


class StoreError(Failure):
    """A store cannot be opened, read or written."""
