"""What every feature keeps, whatever it is: found by walking the package, run on every example."""

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin import spec
from zhiyin.data.tables import Column, Table
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.features.base import Codes, Encoded, Feature, Values
from zhiyin.features.schema import Schema, encode, encode_records, source

FEATURES: list[Feature] = spec.examples("zhiyin.features")
NAMES = [f"{type(f).__name__} {f.name}" for f in FEATURES]

COLUMNS: dict[str, list[Any]] = {
    "country": ["cn", "fr", "cn", "brésil", "fr", "cn"],
    "device": ["phone", "tv", "phone", "タブ", "tv", "phone"],
    "genres": [["a", "b"], ["b"], [], ["c", "d"], ["a", "b"], ["b", "c"]],
    "age": [20, 30, 40, 50, 60, 70],
    "price": [0.1, 2.5, 10.0, 4.0, 7.75, 1e6],
    "income": [1.0, 2.0, 3.0, 4.0, 5.0, 6.5],
    "time": [1_700_000_000_000 + 40_000_000 * i for i in range(6)],
    "cover": [[1.0, 2.0, 3.0], [0.5, 0.25, 4.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-1.0, 2.0, 0.0], [3.0, 4.0, 0.0]],
    "text": [[1.0, 2.0, 3.0], [0.5, 0.25, 4.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-1.0, 2.0, 0.0], [3.0, 4.0, 0.0]],
}
"""Values for every column that an example reads; a new example adds its own."""

every_feature = pytest.mark.parametrize("feature", FEATURES, ids=NAMES)


def objects(*values: object) -> Column:
    column = np.empty(len(values), object)
    column[:] = list(values)
    return column


def offline(values: list[Any], name: str) -> Column:
    """The column as it comes out of a saved table."""
    return Table.of({name: values})[name]


def fitted(feature: Feature) -> Feature:
    return feature.fit(offline(COLUMNS[source(feature)], source(feature)))


def nothing(feature: Feature, rows: int) -> Encoded:
    """What `rows` missing values are encoded as."""
    encoding = feature.encoding
    if isinstance(encoding, Values):
        return np.zeros((rows, encoding.width), np.float32)
    shape = (rows, fitted(feature).encode(objects(None)).shape[1]) if encoding.bag else (rows,)
    return np.full(shape, UNKNOWN, np.int32)


def check(feature: Feature, encoded: Encoded, rows: int) -> None:
    encoding = feature.encoding
    if isinstance(encoding, Values):
        assert encoded.dtype == np.float32
        assert encoded.shape == (rows, encoding.width)
        assert np.isfinite(encoded).all()
        return
    assert encoded.dtype == np.int32
    assert encoded.ndim == 1 + encoding.bag
    assert len(encoded) == rows
    assert (encoded >= UNKNOWN).all()
    assert (encoded < encoding.cardinality).all()


@every_feature
def test_encode_gives_what_encoding_says_and_known_values_are_known(feature: Feature) -> None:
    one = fitted(feature)
    values = COLUMNS[source(one)]
    encoded = one.encode(offline(values, source(one)))
    check(one, encoded, len(values))
    assert len(np.unique(encoded, axis=0)) > 1
    if isinstance(one.encoding, Codes):
        rows = encoded.reshape(len(values), -1)
        assert all((row != UNKNOWN).any() for row, value in zip(rows, values, strict=True) if value != [])


@every_feature
def test_no_rows_are_no_rows(feature: Feature) -> None:
    one = fitted(feature)
    check(one, one.encode(objects()), 0)
    check(one, one.encode(offline(COLUMNS[source(one)], "x")[:0]), 0)


@every_feature
def test_a_column_of_nothing_can_be_fitted_and_encoded(feature: Feature) -> None:
    column = objects(None, None)
    encoded = feature.fit(column).encode(column)
    np.testing.assert_array_equal(encoded, nothing(feature, 2))


ODD: list[object] = [
    None, math.nan, math.inf, -math.inf, 1e300, -1e300, 10**400, -(10**400), 2**63, True, False, "", " ", "nan",
    "inf", "never seen", "\ud800", "None", [], [None], [[1], [1, 2]], ["x", 3, None], {}, {"a": 1}, "|", "1e999",
]  # fmt: skip


@every_feature
@pytest.mark.parametrize("value", ODD, ids=lambda value: ascii(value)[:20])
def test_an_odd_value_never_raises(feature: Feature, value: object) -> None:
    one = fitted(feature)
    check(one, one.encode(objects(value)), 1)


@every_feature
def test_a_missing_value_is_unknown_or_zero(feature: Feature) -> None:
    one = fitted(feature)
    for value in (None, math.nan):
        np.testing.assert_array_equal(one.encode(objects(value)), nothing(one, 1))
    # "None" and "nan" are texts like any other, and no missing values
    values = [*COLUMNS[source(one)]] if isinstance(COLUMNS[source(one)][0], str) else []
    if values:
        named = feature.fit(objects(*values, "None", "nan"))
        np.testing.assert_array_equal(named.encode(objects(None, math.nan)), nothing(one, 2))


def through_json(values: list[Any], name: str) -> list[dict[str, Any]]:
    """The same values as the records of a profile that went over the wire."""
    records: list[dict[str, Any]] = json.loads(json.dumps(Table.of({name: values}).records(0, len(values))))
    return records


@every_feature
def test_offline_and_online_give_the_same(feature: Feature) -> None:
    one = fitted(feature)
    values = [*COLUMNS[source(one)], None]
    table = Table.of({source(one): values})
    expected = encode((one,), table, "users")[one.name]
    records = through_json(values, source(one))
    np.testing.assert_array_equal(encode_records((one,), list(records))[one.name], expected)


@every_feature
def test_a_row_is_encoded_alone_as_in_a_crowd(feature: Feature) -> None:
    one = fitted(feature)
    records = through_json([*COLUMNS[source(one)], None], source(one))
    crowd = encode_records((one,), list(records))[one.name]
    alone = [encode_records((one,), [record])[one.name] for record in records]
    np.testing.assert_array_equal(np.concatenate(alone), crowd)


@every_feature
@given(
    texts=st.lists(st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["cn", "fr", "a|b", "b"])), max_size=20),
    cut=st.integers(0, 20),
    large=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_a_tables_texts_have_the_codes_that_each_has_alone(
    feature: Feature, texts: list[str | None], cut: int, large: bool
) -> None:
    """Whether they come in one part or two, missing ones among them or not."""
    known, name = fitted(feature), source(feature)
    kind = pa.large_string() if large else pa.string()
    parts = pa.chunked_array([pa.array(texts[:cut], kind), pa.array(texts[cut:], kind)])
    found = encode((known,), Table(pa.table({name: parts})), "items")[known.name]
    assert found.dtype == known.encode(objects(None)).dtype
    assert len(found) == len(texts)
    for code, text in zip(found, texts, strict=True):
        np.testing.assert_array_equal(code, known.encode(objects(text))[0])


@every_feature
def test_a_record_without_the_field_is_missing(feature: Feature) -> None:
    one = fitted(feature)
    np.testing.assert_array_equal(encode_records((one,), [{}, {"other": 1}])[one.name], nothing(one, 2))


@every_feature
def test_a_fitted_feature_is_saved_and_built_again(feature: Feature) -> None:
    one = fitted(feature)
    table = json.loads(json.dumps(spec.table(Schema(context=(one,)))))
    again = spec.build(Schema, table).context[0]
    assert again == one
    assert again.encoding == one.encoding
    column = offline(COLUMNS[source(one)], source(one))
    np.testing.assert_array_equal(again.encode(column), one.encode(column))


@every_feature
def test_fit_learns_from_what_it_is_given_alone(feature: Feature) -> None:
    column = offline(COLUMNS[source(feature)], source(feature))
    assert feature.fit(column[:3]) == feature.fit(column[:3].copy())
    assert feature.fit(column[:3]).fit(column) == feature.fit(column), "fitting again forgets the first time"


@every_feature
def test_the_order_of_the_rows_does_not_matter(feature: Feature) -> None:
    column = offline(COLUMNS[source(feature)], source(feature))
    forth, back = feature.fit(column), feature.fit(column[::-1])
    np.testing.assert_allclose(forth.encode(column), back.encode(column), rtol=1e-6)


SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters(), max_size=8)
ANYTHING = SCALARS | st.lists(SCALARS, max_size=4) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=2)


@every_feature
@settings(max_examples=60)
@given(st.lists(ANYTHING, min_size=1, max_size=5))
def test_nothing_makes_encode_raise(feature: Feature, values: list[object]) -> None:
    one = fitted(feature)
    records = [{source(one): value} for value in values]
    encoded = encode_records((one,), list(records))[one.name]
    check(one, encoded, len(values))
    alone = [encode_records((one,), [record])[one.name] for record in records]
    np.testing.assert_array_equal(np.concatenate(alone), encoded)
