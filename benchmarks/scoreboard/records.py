"""What has been measured on a set: one JSON file, written anew after each seed, by renaming.

A seed that is recorded with the same settings is never measured again: the test is touched once for each recorded run.
Runs of other settings move to `earlier`, so that the file says how often the test was looked at.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

RESULTS = Path(__file__).parents[1] / "results" / "scoreboard"
PLACES = ("events", "items", "users", "time_unit")


@dataclass
class Record:
    """A set's file. `settings`: the recipe's tables but for places and the seed; `runs`: one for each seed."""

    name: str
    protocol: str
    settings: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)
    baselines: dict[str, Any] = field(default_factory=dict)
    earlier: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def open(cls, path: Path) -> Self:
        told = json.loads(path.read_text())
        return cls(told.pop("set"), **told)

    @classmethod
    def current(cls, path: Path, name: str, protocol: str, settings: Mapping[str, Any]) -> Self:
        """The file's record, ready for runs of these settings; other settings' runs are earlier ones now. What was
        measured by a protocol that has changed since is no part of it."""
        plain = json.loads(json.dumps(settings))
        record = cls.open(path) if path.exists() else cls(name, protocol, plain)
        if record.protocol != protocol:
            raise SystemExit(f"{path} was measured by another protocol; remove it, and measure all of it again")
        if record.settings != plain:
            if record.runs:
                record.earlier.append({"settings": record.settings, "runs": record.runs})
            same = [one for one in record.earlier if one["settings"] == plain]
            record.earlier = [one for one in record.earlier if one["settings"] != plain]
            record.settings, record.runs = plain, same[0]["runs"] if same else []
        return record

    def has(self, seed: int) -> bool:
        return any(run["seed"] == seed for run in self.runs)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"set": self.name, **{name: getattr(self, name) for name in list(self.__dataclass_fields__)[1:]}}
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps(told, indent=2) + "\n")
        part.replace(path)


def settings_of(tables: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two runs the same but for chance: a recipe's tables without places, and without the seed."""
    kept: dict[str, Any] = {name: table for name, table in tables.items() if name not in ("home", "sweep")}
    kept["data"] = {name: value for name, value in kept["data"].items() if name not in PLACES}
    kept["training"] = {name: value for name, value in kept.get("training", {}).items() if name != "seed"}
    return {name: table for name, table in kept.items() if table}


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short name for settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
