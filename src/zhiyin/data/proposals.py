"""Which feature a column could be, by looking at its values; and why, in words for a recipe's comments."""
# ruff: noqa: S608 – every name in a query went through `quoted`, every text through `literal`

import re
from collections.abc import Iterable
from dataclasses import dataclass

from zhiyin.data.columns import CLOCKS, FRACTIONS, LISTS, VECTORS, WHOLE, vector_width
from zhiyin.data.readers import Loaded, quoted

FEW = 20
"""Up to this many whole numbers are told apart; more are measured."""

TEXTS = ("title", "name", "description", "text", "body", "summary", "plot", "review", "comment", "keywords")
CODES = ("id", "code", "zip", "postcode", "postal", "type", "class", "group", "category", "brand")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A column's feature: `use` with its `dim` (or width, or length) as `settings`; no `use` for one left out."""

    column: str
    use: str
    settings: tuple[tuple[str, int | str], ...]
    why: str


@dataclass(frozen=True, slots=True)
class _Facts:
    rows: int
    present: int
    distinct: int


def propose(loaded: Loaded, names: Iterable[str]) -> tuple[Proposal, ...]:
    """One proposal for each of these columns."""
    kinds = loaded.kinds(names)
    return tuple(_propose(loaded, name, kind) for name, kind in kinds.items())


def key(name: str) -> str:
    """A column's name without case and punctuation: "User_ID" → "userid"."""
    return "".join(c for c in name.lower() if c.isalnum())


def _propose(loaded: Loaded, name: str, kind: str) -> Proposal:
    column = quoted(name)
    facts = _Facts(*loaded.one(f"select count(*), count({column}), count(distinct {column}) from {loaded.table}"))
    if not facts.present:
        return _skip(name, "empty")
    if re.fullmatch(VECTORS, kind):
        width = vector_width(loaded, name)
        if not width:
            return _skip(name, "lists of numbers whose lengths differ: a vector needs one length")
        return Proposal(
            name, "vector:Vector", (("width", width),), f"{width} numbers in every row: a ready-made vector"
        )
    if kind in LISTS:
        return _bag(loaded, name, f"unnest({column})", f"max(len({column}))", "lists")
    if facts.distinct == 1 and facts.present == facts.rows:
        return _skip(name, "the same value in every row, so it tells nothing apart")
    if kind == "BOOLEAN":
        return Proposal(name, "categorical:Categorical", (("dim", 4),), "true or false")
    if kind in WHOLE:
        return _whole(loaded, name, facts)
    if kind in FRACTIONS or kind.startswith("DECIMAL"):
        return _numeric(loaded, name, "numbers")
    if kind in CLOCKS:
        return _skip(name, "dates; to use them, write them as numbers, such as days since a first day")
    if kind == "VARCHAR" or kind.startswith("ENUM"):
        return _text(loaded, name, facts)
    return _skip(name, f"of the type {kind.lower()}, which no feature reads; give its parts as columns of their own")


def _whole(loaded: Loaded, name: str, facts: _Facts) -> Proposal:
    if facts.distinct == facts.present and facts.present > FEW:
        return _skip(name, "a different number in every row: an id, which says nothing of other rows")
    if facts.distinct <= FEW:
        return _categorical(name, facts, "whole numbers: so few that they are told apart rather than measured")
    if any(key(name).endswith(code) for code in CODES):
        return _categorical(name, facts, "numbers that are names of something, as the column's own name says")
    return _numeric(loaded, name, "whole numbers")


def _numeric(loaded: Loaded, name: str, words: str) -> Proposal:
    number = f"try_cast({quoted(name)} as double)"
    low, middle, high = loaded.one(f"select min({number}), median({number}), max({number}) from {loaded.table}")
    span = f"{words} from {low:g} to {high:g}"
    if low >= 0 and middle > 0 and high > 100 * middle:
        return Proposal(name, "numeric:Numeric", (("scale", "log"),), f"{span}, a few very large: by their logarithm")
    return Proposal(name, "numeric:Numeric", (), span)


def _text(loaded: Loaded, name: str, facts: _Facts) -> Proposal:
    column = f"{quoted(name)}::varchar"
    words, bars, dates, links = loaded.one(
        f"select avg(len(string_split(trim({column}), ' '))), avg(contains({column}, '|')::int), "
        f"avg((try_cast({column} as timestamptz) is not null)::int), avg(starts_with({column}, 'http')::int) "
        f"from {loaded.table} where {column} is not null"
    )
    if links > 0.9:
        return _skip(name, "web addresses; kept for the item cards")
    if dates > 0.9:
        return _skip(name, "dates; to use them, write them as numbers, such as days since a first day")
    if key(name) in TEXTS or words > 4:
        return _skip(name, "free text; it is kept for the cards, but no feature reads it")
    if bars > 0.02:
        parts = f"string_split({column}, '|')"
        bag = _bag(loaded, name, f"unnest({parts})", f"max(len({parts}))", "values joined by '|'")
        if bag.use:
            return bag
    if facts.distinct > facts.present / 2 and facts.present > FEW:
        return _skip(name, f"{facts.distinct:,} different values in {facts.present:,} rows: an id or free text")
    return _categorical(name, facts, "different values")


def _categorical(name: str, facts: _Facts, words: str) -> Proposal:
    dim = _dim(facts.distinct)
    return Proposal(name, "categorical:Categorical", (("dim", dim),), f"{facts.distinct:,} {words}")


def _bag(loaded: Loaded, name: str, parts: str, longest: str, words: str) -> Proposal:
    distinct, count = loaded.one(f"select count(distinct p), count(p) from (select {parts} as p from {loaded.table})")
    length = loaded.one(f"select {longest} from {loaded.table}")[0] or 0
    if not count:
        return _skip(name, "empty lists")
    if distinct > count / 2 and count > FEW:
        return _skip(name, f"{words}, but nearly every value occurs once ({distinct:,} values)")
    settings = (("dim", _dim(distinct)), ("length", min(int(length), 32)))
    return Proposal(name, "bag:Bag", settings, f"{words}: {distinct:,} different values, up to {length} in a row")


def _skip(name: str, why: str) -> Proposal:
    return Proposal(name, "", (), why)


def _dim(values: int) -> int:
    """Numbers for each value's embedding: more where there is more to tell apart."""
    return next((dim for most, dim in ((10, 4), (100, 8), (10_000, 16)) if values <= most), 32)
