"""What a place is: it keeps releases by id, a few small files beside them, and says who is at work there."""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from zhiyin.errors import ReleaseError

MANIFEST = "manifest.json"
"""The file that makes a folder a release: it comes last and goes first."""

CURRENT = "CURRENT"
PINNED = "PINNED"
"""The small files beside the releases: the live one's id, and a line for each that must stay."""


class Checks(Protocol):
    """What a copy must pass. Both raise `ReleaseError`."""

    def names(self, manifest: bytes, where: str) -> list[str]:
        """The other files of a release with this manifest: nothing else is fetched, and nothing of a manifest that is
        damaged or not trusted."""

    def whole(self, folder: Path) -> None:
        """Nothing is missing in this folder, or damaged."""


class Hold:
    """Somebody uses a release for as long as this object lives; when it goes, or its process ends, `end` is called."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = weakref.finalize(self, end)


class Lock(Protocol):
    def check(self) -> None:
        """Raises `ReleaseError` where the lock was lost, to another that took this one for dead."""


class Place(Protocol):
    """Every method but `where` raises `ReleaseError` where the place cannot be reached."""

    @property
    def where(self) -> str:
        """Its path or URL, for a person."""

    def ids(self) -> list[str]:
        """Every whole release's, in order."""

    def read(self, name: str) -> bytes:
        """A small file; empty where there is none."""

    def write(self, name: str, content: bytes) -> None:
        """A small file, replaced at once: a reader sees the old content or the new."""

    def folder(self, id: str, checks: Checks) -> Path:
        """The folder of a release on this machine. A copy that was fetched for it has passed the checks."""

    def match(self, folder: Path, id: str) -> None:
        """Raises `ReleaseError` naming a file that at the place is not as long as in the folder, which is whole."""

    def forget(self, id: str) -> bool:
        """Drop this machine's copy; False where there is none, or where it is no copy but the release."""

    def stage(self, built: Path, id: str, lock: Lock) -> None:
        """The long part of adding what was built in a folder: nobody sees it yet."""

    def reveal(self, built: Path, id: str) -> None:
        """The short part: from now on it is one of the releases."""

    def withdraw(self, built: Path, id: str) -> None:
        """Undo what was done of `stage` and `reveal`, unless the release could be live all the same."""

    def remove(self, id: str) -> bool:
        """Remove a release that nobody holds; False where somebody does. A half-removed one is never seen."""

    def clear(self) -> None:
        """Remove what killed publishers and killed prunes left. Call it with the publishers' lock."""

    def size(self, id: str) -> int:
        """Bytes of all its files."""

    def hold(self, id: str) -> Hold:
        """Say that this process uses the release, for as long as the answer lives."""

    def is_held(self, id: str) -> bool:
        """Whether some process does."""

    def lock(self, what: str, wait: float) -> AbstractContextManager[Lock]:
        """One at a time may `what`; it dies with its process. Raises `ReleaseError` where another still has it after
        `wait` seconds."""


def busy(what: str, where: str, who: str) -> ReleaseError:
    """For the one that came second."""
    return ReleaseError(
        f"another {what} is under way here{f' ({who})' if who else ''}",
        where=where,
        remedy="Nothing was changed. Wait until it has ended, and try again.",
    )
