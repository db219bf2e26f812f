"""A filter beside the attributes of a catalogue: which rows pass.

A condition that meets a missing value is false, so `price < 20` and `price != 20` both want a price that is there;
`not` turns true and false around, so `not price < 20` lets items without a price pass. `missing(price)` asks for them.
"""

import math
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zhiyin.data.attributes import Attributes, Kept, Kind
from zhiyin.errors import RequestError
from zhiyin.filters.grammar import And, Condition, Expression, Not, Value, parse
from zhiyin.release import Release
from zhiyin.spec import nearest

_COMPARED = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}

_OPERATORS: dict[Kind, tuple[str, ...]] = {
    "text": ("==", "!=", "<", "<=", ">", ">=", "in", "missing"),
    "number": ("==", "!=", "<", "<=", ">", ">=", "in", "missing"),
    "true or false": ("==", "!=", "in", "true", "missing"),
    "list of text": ("any", "all", "missing"),
    "list of numbers": ("any", "all", "missing"),
}

_LITERALS: dict[Kind, tuple[type, ...]] = {
    "text": (str,),
    "number": (int, float),
    "true or false": (bool,),
    "list of text": (str,),
    "list of numbers": (int, float),
}

_NAMED = {
    "text": '"text"',
    "number": "a number",
    "true or false": "true or false",
    "list of text": '"text"',
    "list of numbers": "a number",
}


def allowed(release: Release, text: str) -> Kept:
    """bool [m] which of the release's items pass a filter; not to be written to. What was asked before is remembered.

    Raises `RequestError` for a filter that cannot be read, an attribute that is not there, a value of another kind, and
    for a release that was published without attributes.
    """
    if release.attributes is None:
        raise RequestError(
            f"the live release '{release.id}' was published without attributes, so it cannot be filtered",
            remedy="Publish again with this zhiyin.",
        )
    whole, since = release.attributes, release.since
    if since is None or since.patch is None:
        return bitmap(whole, text)
    patch = since.patch
    return patch.answers.of(text, lambda: patch.laid_over(bitmap(whole, text), bitmap(patch.attributes, text)))


def bitmap(attributes: Attributes, text: str) -> Kept:
    """The same for any attributes."""
    return attributes.answers.of(text, lambda: _checked(attributes, parse(text)))


def _checked(attributes: Attributes, expression: Expression) -> Kept:
    for condition in _conditions(expression):
        _check(attributes, condition)
    return _passing(attributes, expression)


def _conditions(expression: Expression) -> list[Condition]:
    if isinstance(expression, Condition):
        return [expression]
    parts = (expression.part,) if isinstance(expression, Not) else expression.parts
    return [condition for part in parts for condition in _conditions(part)]


def _check(attributes: Attributes, condition: Condition) -> None:
    """Raises `RequestError` where this condition cannot be made."""
    place, known = f"character {condition.at + 1}", attributes.kinds
    if condition.name not in known:
        raise RequestError(
            f"{place}: no attribute {condition.name!r}{nearest(condition.name, known)}",
            expected=f"one of {', '.join(list(known)[:20])}{' …' if len(known) > 20 else ''}" if known else "",
            remedy="" if known else "The item table has no columns that can be filtered by.",
        )
    kind = known[condition.name]
    if condition.operator not in _OPERATORS[kind]:
        said = "by itself" if condition.operator == "true" else f"with '{condition.operator}'"
        operators = [one for one in _OPERATORS[kind] if one not in ("true", "missing")]
        raise RequestError(
            f"{place}: {condition.name} is {_article(kind)}, which cannot stand {said}",
            expected=f"{condition.name} {' or '.join(operators)} …",
        )
    wrong = [value for value in condition.values if isinstance(value, bool) != (kind == "true or false")]
    wrong += [value for value in condition.values if not isinstance(value, _LITERALS[kind])]
    if wrong:
        said = str(wrong[0]).lower() if isinstance(wrong[0], bool) else repr(wrong[0])
        said = said if len(said) <= 24 else said[:20] + "…"
        raise RequestError(
            f"{place}: {condition.name} is {_article(kind)}, and {said} is none of its values", expected=_NAMED[kind]
        )


def _article(kind: Kind) -> str:
    return kind if kind in ("text", "true or false") else f"a {kind}"


def _passing(attributes: Attributes, expression: Expression) -> Kept:
    if isinstance(expression, Condition):
        return _met(attributes, expression)
    if isinstance(expression, Not):
        return ~_passing(attributes, expression.part)
    join = np.logical_and if isinstance(expression, And) else np.logical_or
    return reduce(join, (_passing(attributes, part) for part in expression.parts))


def _met(attributes: Attributes, condition: Condition) -> Kept:
    column, kind = attributes.column(condition.name), attributes.kinds[condition.name]
    if condition.operator == "missing":
        return _plain(pc.is_null(column))
    if condition.operator == "true":
        return _plain(column)
    if kind in ("list of text", "list of numbers"):
        return _listed(column, condition)
    if kind == "text":
        return _plain(pc.take(_scalar(column.dictionary, condition), column.indices))
    return _plain(_scalar(column, condition))


def _scalar(column: Any, condition: Condition) -> Any:
    """Arrow's truth values of a comparison or of `in`: null or false where the column is null."""
    kind = column.type
    if condition.operator == "in":
        return _among(column, condition.values)
    (value,) = condition.values
    if pa.types.is_integer(kind):
        return _whole(column, condition.operator, value)
    return _COMPARED[condition.operator](column, _literal(value, kind))


def _among(column: Any, values: tuple[Any, ...]) -> Any:
    """Whether each is one of `values`; those that the column's type cannot hold it does not hold."""
    if pa.types.is_integer(column.type):
        bounds = _bounds(column.type)
        values = tuple(int(v) for v in values if v == math.floor(v) and bounds[0] <= v <= bounds[1])
    wanted = pa.array([_literal(value, column.type).as_py() for value in values], column.type)
    return pc.is_in(column, value_set=wanted)


def _literal(value: Value, kind: Any) -> Any:
    """The value as the column holds such: a fraction is rounded to the column's own precision."""
    return pa.scalar(float(value) + 0.0 if pa.types.is_floating(kind) else value, kind)  # and -0.0 is 0.0


def _whole(column: Any, operator: str, value: Any) -> Any:
    """A comparison of whole numbers with any number, exact however large: x < 2.5 is x ≤ 2."""
    low, high = _bounds(column.type)
    if operator in ("==", "!="):
        there = value == math.floor(value) and low <= value <= high
        same = pc.equal(column, pa.scalar(int(value), column.type)) if there else _all(column, False)
        return same if operator == "==" else pc.invert(same)
    if operator in ("<", "<="):
        most = math.ceil(value) - 1 if operator == "<" else math.floor(value)
        return _all(column, False) if most < low else pc.less_equal(column, pa.scalar(min(most, high), column.type))
    least = math.floor(value) + 1 if operator == ">" else math.ceil(value)
    return _all(column, False) if least > high else pc.greater_equal(column, pa.scalar(max(least, low), column.type))


def _all(column: Any, value: bool) -> Any:
    return pc.if_else(column.is_valid(), value, None)


def _bounds(kind: Any) -> tuple[int, int]:
    limits = np.iinfo(kind.to_pandas_dtype())
    return int(limits.min), int(limits.max)


def _listed(column: Any, condition: Condition) -> Kept:
    """`any`: some value of the list is among those named; `all`: each one named is in the list."""
    values, offsets = column.values, column.offsets.to_numpy()
    named = _plain(_among(values.dictionary, condition.values))
    hits = _plain(pc.take(pa.array(named), values.indices))
    counts = np.diff(np.concatenate([[0], np.cumsum(hits)])[offsets])
    if condition.operator == "any":
        some: Kept = counts > 0
        return some
    distinct = len(set(condition.values))
    every: Kept = _plain(column.is_valid()) & (counts >= distinct)
    hits &= np.repeat(every, np.diff(offsets))
    rows = np.searchsorted(offsets, np.flatnonzero(hits), side="right") - 1
    size = len(values.dictionary)
    pairs = np.unique(rows * size + pc.fill_null(values.indices, 0).to_numpy()[hits])  # a value may be there twice
    every &= np.bincount(pairs // max(1, size), minlength=len(column)) == distinct
    return every


def _plain(truth: Any) -> Kept:
    """Arrow's truth values as numpy's, false where there are none: a copy of our own."""
    return np.array(pc.fill_null(truth, False).to_numpy(zero_copy_only=False), bool)
