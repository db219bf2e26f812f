"""What a prepared data set was made of: kept beside it, so that a recipe that says something else is noticed.

Paths are kept as seen from the folder that holds the data set: a home that moves with its log has not changed.
"""

import json
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhiyin import spec
from zhiyin.data import readers
from zhiyin.errors import DataError

if TYPE_CHECKING:
    from zhiyin.data.sources import Source

FILE = "source.json"

APPENDED = "appended.json"
"""How many events there were after the last append."""

KNOWN = "items_as_of.json"
"""Seconds since 1970: the item table knows what became of items by then; 0 where there is no table."""


def write(source: "Source", hidden: Path, folder: Path) -> None:
    """Keep `source` in the data set that is in `hidden` and will be in `folder`."""
    (hidden / FILE).write_text(json.dumps(_told(source, folder), indent=2) + "\n")


def keep(folder: Path, hidden: Path) -> None:
    """What was appended to is still what it was made of, and knows of its items what it did."""
    for name in (FILE, KNOWN, APPENDED):
        if (folder / name).exists():
            shutil.copyfile(folder / name, hidden / name)


def write_appended(events: int, hidden: Path) -> None:
    """Keep how many events there are, now that some were appended."""
    (hidden / APPENDED).write_text(f"{events}\n")


def appended(folder: Path) -> int:
    """How many events a data set has that was appended to; 0 for another."""
    path = folder / APPENDED
    return int(path.read_text()) if path.exists() else 0


def moment(source: "Source") -> float:
    """To be asked before the item table is read: when it was last written, or now, if that is earlier."""
    if source.items is None:
        return 0.0
    return min(time.time(), max(file.stat().st_mtime for file in readers.find(source.items)))


def write_moment(seconds: float, hidden: Path) -> None:
    """Keep what `moment` said."""
    (hidden / KNOWN).write_text(f"{seconds}\n")


def items_as_of(folder: Path) -> float | None:
    """What was kept; None in a data set that was prepared before it was."""
    path = folder / KNOWN
    return float(path.read_text()) if path.exists() else None


def refuse_other(source: "Source", folder: Path) -> None:
    """Raises `DataError` with what differs when the data set in `folder` was made of another source."""
    if not (folder / FILE).exists():
        return  # prepared before this was kept
    then, now = json.loads((folder / FILE).read_text()), _told(source, folder)
    differing = sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    if differing:
        words = "; ".join(f"{key} was {_word(then.get(key))}, and is {_word(now.get(key))}" for key in differing)
        raise DataError(
            f"[data] was changed since the log was prepared: {words}",
            where=str(folder),
            expected="the recipe that the log was prepared with",
            remedy="Run `zhiyin prepare RECIPE` again, and then fit with --fresh; or put [data] back.",
        )


def _told(source: "Source", folder: Path) -> dict[str, Any]:
    seen_from = folder.absolute().parent
    paths = {name: os.path.relpath(path.absolute(), seen_from) for name, path in spec.paths(source).items()}
    return {**spec.table(source), **paths}


def _word(value: object) -> str:
    return "left out" if value is None else repr(value)
