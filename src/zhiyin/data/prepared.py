"""A prepared data set: two vocabularies, the event log between them, and what is known of users and items."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from zhiyin.data.events import EventLog
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.errors import DataError

FORMAT = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """`user_table` and `item_table` have one row for each row of `users` and `items`; the items are the catalogue.

    `clock` says whether times are milliseconds since 1970, or only positions in each user's own order. `lineage`: a
    digest of the items it began with; what is appended keeps it, so two of one lineage have the same rows as far as the
    shorter one goes. Empty where nothing is known of it.
    """

    users: Vocabulary
    items: Vocabulary
    events: EventLog
    user_table: Table
    item_table: Table
    clock: bool = True
    lineage: str = ""

    def save(self, folder: Path) -> None:
        """Write `folder`, which must not exist; `manifest.json` is written last, so a half-written folder is known."""
        folder.mkdir(parents=True)
        self.users.save(folder / "users")
        self.items.save(folder / "items")
        self.events.save(folder / "events")
        self.user_table.save(folder / "users.arrow")
        self.item_table.save(folder / "items.arrow")
        manifest = {
            "format": FORMAT,
            "users": len(self.users),
            "items": len(self.items),
            "events": len(self.events),
            "clock": self.clock,
            "lineage": self.lineage,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The data set saved in `folder`, memory-mapped. Raises `DataError` where there is none, or a damaged one."""
        if not (folder / "manifest.json").exists():
            raise DataError(
                "no prepared data here", where=str(folder), remedy="Run `zhiyin prepare recipe.toml` first."
            )
        try:
            return cls._opened(folder)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(
                f"damaged: {what}", where=str(folder), remedy="Run `zhiyin prepare recipe.toml` again."
            ) from None

    @classmethod
    def _opened(cls, folder: Path) -> Self:
        manifest = json.loads((folder / "manifest.json").read_text())
        if manifest["format"] > FORMAT:
            raise DataError(
                f"prepared by a newer zhiyin (format {manifest['format']})",
                where=str(folder),
                expected=f"format {FORMAT} or older",
                remedy="Upgrade zhiyin, or prepare the data again.",
            )
        return cls(
            Vocabulary.open(folder / "users"),
            Vocabulary.open(folder / "items"),
            EventLog.open(folder / "events"),
            Table.open(folder / "users.arrow"),
            Table.open(folder / "items.arrow"),
            manifest["clock"],
            manifest.get("lineage", ""),
        )
