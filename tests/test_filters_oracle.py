"""Random filters on random items, against a plain evaluator of one item at a time that knows neither Arrow nor text."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.data.attributes import Attributes
from zhiyin.data.tables import Table
from zhiyin.filters.bitmap import bitmap

WORDS = ["", "a", "b", "ab", "q\"'\\", "知", "😀", "\n", "z"]
WHOLE = [-(2**63), -3, 0, 1, 2, 3, 2**53, 2**53 + 1, 2**63 - 1]
SMALL = [0.1, 0.5, 1.0, -2.5, 0.0, -0.0, 1e30, float("inf"), float("nan")]
NUMBERS = [*WHOLE, 0.1, 0.5, -0.0, 1.0, 2.5, -2.5, 1e30, -1e300, 2**64, 2**64 - 1, 10**30]

COLUMNS = {
    "region": (pa.string(), st.sampled_from(WORDS)),
    "views": (pa.int64(), st.sampled_from(WHOLE)),
    "release year": (pa.uint64(), st.sampled_from([0, 1, 2, 2**64 - 1])),
    "price": (pa.float64(), st.sampled_from(SMALL)),
    "cheap": (pa.float32(), st.sampled_from([float(np.float32(x)) for x in SMALL])),
    "adult": (pa.bool_(), st.booleans()),
    "tags": (pa.list_(pa.string()), st.lists(st.none() | st.sampled_from(WORDS[:4]), max_size=4)),
    "sizes": (pa.large_list(pa.int32()), st.lists(st.sampled_from([1, 2, 3]), max_size=4)),
}
items = st.lists(
    st.fixed_dictionaries({name: st.none() | values for name, (_, values) in COLUMNS.items()}), min_size=1, max_size=12
)


def leaves_of(names: list[str], operators: list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.sampled_from(operators), st.sampled_from(names), values)


numbers, words = st.sampled_from(NUMBERS), st.sampled_from(WORDS)
ORDER = ["==", "!=", "<", "<=", ">", ">="]
leaves = st.one_of(
    leaves_of(["region"], ORDER, words),
    leaves_of(["views", "release year", "price", "cheap"], ORDER, numbers),
    leaves_of(["adult"], ["==", "!="], st.booleans()),
    leaves_of(["region"], ["in"], st.lists(words, max_size=4)),
    leaves_of(["views", "release year", "price", "cheap"], ["in"], st.lists(numbers, max_size=4)),
    leaves_of(["adult"], ["in"], st.lists(st.booleans(), max_size=2)),
    leaves_of(["tags"], ["any", "all"], st.lists(st.sampled_from(WORDS[:4]), max_size=3)),
    leaves_of(["sizes"], ["any", "all"], st.lists(st.sampled_from([1, 2, 2.0, 2.5, 3, 2**70]), max_size=3)),
    leaves_of(["adult"], ["true"], st.none()),
    leaves_of(list(COLUMNS), ["missing"], st.none()),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=8,
)


def passes(expression: Any, item: dict[str, Any]) -> bool:
    """What a filter means, one item at a time."""
    if expression[0] == "not":
        return not passes(expression[1], item)
    if expression[0] in ("and", "or"):
        return (all if expression[0] == "and" else any)(passes(part, item) for part in expression[1])
    operator, name, said = expression
    value = item[name]
    absent: bool = value is None or value != value
    if operator == "missing" or absent:
        return absent and operator == "missing"
    if operator == "true":
        return bool(value)
    if operator in ("any", "all"):
        return bool((any if operator == "any" else all)(one in value for one in said))
    rounded: Any = {"price": float, "cheap": single}.get(name, lambda x: x)
    if operator == "in":
        return value in [rounded(one) for one in said]
    one = rounded(said)
    return bool(
        {
            "==": lambda: value == one,
            "!=": lambda: value != one,
            "<": lambda: value < one,
            "<=": lambda: value <= one,
            ">": lambda: value > one,
            ">=": lambda: value >= one,
        }[operator]()
    )


def single(value: float) -> float:
    """The nearest float32."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def written(expression: Any, data: st.DataObject, inside: str = "") -> str:
    """The same as text: parentheses where they must be, and at times where they need not."""
    kind = expression[0]
    if kind in ("and", "or"):
        text = data.draw(st.sampled_from([f" {kind} ", f"\n{kind}\t"])).join(
            written(part, data, kind) for part in expression[1]
        )
        bare = inside in ("", "or") if kind == "and" else not inside
    elif kind == "not":
        text, bare = f"not {written(expression[1], data, 'not')}", True
    else:
        text, bare = leaf(expression, data), True
    return text if bare and data.draw(st.booleans()) else f"({text})"


def leaf(expression: Any, data: st.DataObject) -> str:
    operator, name, said = expression
    name = f"`{name}`" if " " in name or data.draw(st.booleans()) else name
    if operator == "true":
        return name
    if operator == "missing":
        return f"missing({name})"
    if isinstance(said, list):
        return f"{name} {operator} [{', '.join(literal(one, data) for one in said)}]"
    return f"{name}{data.draw(st.sampled_from([' ', '']))}{operator}{literal(said, data)}"


def literal(value: Any, data: st.DataObject) -> str:
    if isinstance(value, str):
        if data.draw(st.booleans()):
            return json.dumps(value, ensure_ascii=data.draw(st.booleans()))
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return json.dumps(value)


@settings(max_examples=400)
@given(items=items, expression=expressions, data=st.data())
def test_a_filter_lets_pass_what_the_plain_evaluator_says(
    items: list[dict[str, Any]], expression: Any, data: st.DataObject
) -> None:
    columns = {name: pa.array([item[name] for item in items], kind) for name, (kind, _) in COLUMNS.items()}
    attributes = Attributes.of(Table(pa.table(columns)))
    text = written(expression, data)
    found = bitmap(attributes, text)
    assert found.dtype == np.bool_
    assert found.tolist() == [passes(expression, item) for item in items], text


@pytest.mark.parametrize(
    ("name", "values"),
    [("views", WHOLE), ("release year", [0, 1, 2, 2**64 - 1]), ("price", SMALL), ("cheap", [single(x) for x in SMALL])],
)
def test_every_number_beside_every_literal(name: str, values: list[float]) -> None:
    """Each value of each numeric type, each literal, each operator: none left to chance."""
    held = [*values, None]
    attributes = Attributes.of(Table(pa.table({name: pa.array(held, COLUMNS[name][0])})))
    for said in NUMBERS:
        for operator in (*ORDER, "in"):
            value = [said, 3] if operator == "in" else said
            text = f"`{name}` {operator} {json.dumps(value)}"
            assert bitmap(attributes, text).tolist() == [
                passes((operator, name, value), {name: one}) for one in held
            ], text
