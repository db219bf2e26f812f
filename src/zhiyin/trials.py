"""What a sweep's trials leave behind: looks at validation while they train, then a line of a journal."""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from zhiyin.errors import TrainingError
from zhiyin.ranges import Value

State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """`values` by dotted path; `recall` is the best validation, of a pruned trial until then; `looks` [validations] the
    best until each; `seconds` of training; `words`: why it failed."""

    number: int
    values: Mapping[str, Value]
    state: State
    recall: float | None
    looks: tuple[float, ...] = ()
    seconds: float = 0.0
    words: str = ""


@dataclass
class TrialRun:
    """A trial's training so far, over all the calls that went on with it; kept in its folder."""

    folder: Path
    looks: list[float] = field(default_factory=list)
    before: float = 0.0
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, folder: Path) -> Self:
        path = folder / "looks.json"
        told: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"looks": [], "seconds": 0.0}
        return cls(folder, told["looks"], told["seconds"])

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.since

    def look(self, best: float, validations: int) -> None:
        """Keep the best of so many validations; one that a kill came before is kept with it."""
        self.looks += [best] * (validations - len(self.looks))
        part = self.folder / ".looks.json"
        part.write_text(json.dumps({"looks": self.looks, "seconds": self.seconds}))
        part.replace(self.folder / "looks.json")


class TrialJournal:
    """A line of JSON for each finished trial, after one that says which sweep it is."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path, self._identity = path, json.loads(json.dumps(identity, default=str))

    def read(self) -> list[Trial]:
        """The trials; a line that a kill cut short is cut off. Raises `TrainingError` where it is another sweep's."""
        if not self._path.exists():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._append(self._identity)
            return []
        text = self._path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(self._path, len(whole))
        first, *lines = [json.loads(line) for line in whole.splitlines()] or [None]
        if first is None:
            self._append(self._identity)
        elif first != self._identity:
            changed = [name for name in self._identity if first.get(name) != self._identity[name]]
            raise TrainingError(
                f"another sweep was begun here, with other {', '.join(changed)}",
                where=str(self._path.parent),
                remedy="Use --fresh to start over, or another `home`.",
            )
        return [Trial(**{**line, "looks": tuple(line["looks"])}) for line in lines]

    def write(self, trial: Trial) -> None:
        """Keep a trial; it is on the disk when this returns."""
        self._append(asdict(trial))

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
