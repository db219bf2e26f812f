"""What a sweep searches: the recipe's `[sweep]`, keys by dotted path, each with values to choose from or a range.

[sweep]
model.dim = [32, 64, 128]
optimizer.lr = { low = 1e-4, high = 1e-2, log = true }
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from zhiyin.errors import SpecError
from zhiyin.spec import nearest

SEARCHED = ("features", "model", "negatives", "loss", "optimizer", "training")
"""Tables whose keys may be searched. The others say what is measured, or what comes after."""

FIXED = {
    "training.seed": "every trial has the same one, so that luck is not what is chosen",
    "training.measure": "it is what trials are judged by",
    "training.validate_every": "trials are compared by their validations, one with one",
    "training.device": "it finds the same on all",
}
"""Keys of those tables that may not, and why."""

_KEYS = ("low", "high", "log", "step")

Value = Any
"""What TOML can hold: a number, a truth value, a string, a list, a table."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `values`, which stand in no order."""

    values: tuple[Value, ...]

    @property
    def tried(self) -> tuple[Value, ...]:
        """Values that must be possible for any of them to make sense."""
        return self.values


@dataclass(frozen=True, slots=True)
class Range:
    """A number from `low` to `high`, both within; whole where both are. `log`: drawn by its logarithm; `step`: only
    low, low + step, …; 0 leaves every number."""

    low: float
    high: float
    log: bool = False
    step: float = 0.0

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def tried(self) -> tuple[Value, ...]:
        return self.low, self.high


Ranges = Mapping[str, Choice | Range]


def parse(table: object) -> dict[str, Choice | Range]:
    """The ranges of a `[sweep]` table, by dotted path. Raises `SpecError` for a key that cannot be searched, and for a
    range that holds nothing or cannot be."""
    if not isinstance(table, Mapping):
        raise SpecError(f"sweep = {table!r}", expected="a table: [sweep]")
    return {path: _range(path, value) for path, value in _leaves(table, "")}


def put(tables: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """The recipe's tables with other values at dotted paths; nothing that was given is changed."""
    changed = dict(tables)
    for path, value in values.items():
        table, _, rest = path.partition(".")
        inner = changed.get(table, {})
        changed[table] = put(inner, {rest: value}) if rest else value
    return changed


def _leaves(table: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        path = f"{before}.{key}" if before else key
        if isinstance(value, Mapping) and not set(value) & {"low", "high"}:
            yield from _leaves(value, path)
        else:
            yield path, value


def _range(path: str, value: Any) -> Choice | Range:
    where = f"sweep '{path}'"
    table, _, rest = path.partition(".")
    if table not in SEARCHED or not rest:
        found = nearest(table, SEARCHED)
        raise SpecError(f"'{table}' is not searched{found}", where=where, expected=f"a key of {', '.join(SEARCHED)}")
    if path in FIXED:
        raise SpecError(f"it cannot be searched: {FIXED[path]}", where=where)
    if isinstance(value, list):
        if not value:
            raise SpecError("an empty list", where=where, expected="at least one value")
        return Choice(tuple(value))
    if isinstance(value, Mapping):
        return _numbers(where, value)
    raise SpecError(f"{value!r}", where=where, expected="a list of values, or { low = …, high = … }")


def _numbers(where: str, table: Mapping[str, Any]) -> Range:
    for key in table:
        if key not in _KEYS:
            raise SpecError(
                f"unknown key '{key}'{nearest(key, _KEYS)}", where=where, expected=f"one of {', '.join(_KEYS)}"
            )
    for key in ("low", "high"):
        if key not in table:
            raise SpecError(f"'{key}' is missing", where=where, expected="low and high")
    for key in ("low", "high", "step"):
        number = table.get(key, 0)
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise SpecError(f"{key} = {number!r}", where=where, expected="a number")
    if not isinstance(table.get("log", False), bool):
        raise SpecError(f"log = {table['log']!r}", where=where, expected="true or false")
    return _possible(where, Range(**table))


def _possible(where: str, one: Range) -> Range:
    if one.low >= one.high:
        raise SpecError(
            f"low = {one.low} and high = {one.high}", where=where, expected="low below high", remedy="Exchange them."
        )
    if one.log and one.low <= 0:
        raise SpecError(f"log = true with low = {one.low}", where=where, expected="low above 0")
    if one.log and one.step:
        raise SpecError("both log and step", where=where, expected="one of them, or a list of values")
    if one.step < 0 or one.step > one.high - one.low or (one.whole and one.step != int(one.step)):
        raise SpecError(
            f"step = {one.step}",
            where=where,
            expected=f"{'a whole number' if one.whole else 'a number'} above 0 and at most high - low",
        )
    return one


def said(value: Value) -> str:
    """A value for a person: short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
