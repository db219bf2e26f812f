"""What a prepared data set was made of: kept beside it, so that a recipe that says something else is noticed.

Paths are kept as seen from the folder that holds the data set: a home that moves with its log has not changed.
"""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhiyin import spec
from zhiyin.errors import DataError

if TYPE_CHECKING:
    from zhiyin.data.sources import Source

FILE = "source.json"


def write(source: "Source", hidden: Path, folder: Path) -> None:
    """Keep `source` in the data set that is in `hidden` and will be in `folder`."""
    (hidden / FILE).write_text(json.dumps(_told(source, folder), indent=2) + "\n")


def keep(folder: Path, hidden: Path) -> None:
    """What was appended to is still what it was made of."""
    if (folder / FILE).exists():
        shutil.copyfile(folder / FILE, hidden / FILE)


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
