"""Known answers, one feature kind at a time, and what each refuses."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin import spec
from zhiyin.data.tables import Column, Table
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError, SpecError
from zhiyin.features.bag import Bag
from zhiyin.features.base import Codes, Values
from zhiyin.features.categorical import Categorical, word
from zhiyin.features.hashed import Hashed
from zhiyin.features.numeric import Bucketed, Numeric
from zhiyin.features.schema import encode_records
from zhiyin.features.time import ExampleAge, Hour, Weekday
from zhiyin.features.vector import Vector


def objects(*values: object) -> Column:
    column = np.empty(len(values), object)
    column[:] = list(values)
    return column


def message(feature: Any, *values: object) -> str:
    with pytest.raises(DataError) as caught:
        feature.fit(objects(*values))
    return str(caught.value)


# categorical


def test_categories_are_numbered_by_how_often_they_occur_then_by_name() -> None:
    one = Categorical("c").fit(objects("b", "a", "z", "z", None, float("nan"), "a", "z"))
    assert one.values == ("z", "a", "b")
    assert one.encoding == Codes(3, 8)
    assert one.encode(objects("a", "b", "z", "new", None)).tolist() == [1, 2, 0, UNKNOWN, UNKNOWN]


def test_a_rare_category_is_unknown() -> None:
    one = Categorical("c", at_least=2).fit(objects("a", "a", "b"))
    assert one.encode(objects("a", "b")).tolist() == [0, UNKNOWN]


@pytest.mark.parametrize("values", [["7"], [7], [7.0], np.array([7], np.int16), np.array([7.0], np.float32)])
def test_seven_is_one_category_however_it_is_written(values: Any) -> None:
    one = Categorical("c").fit(np.asarray(values))
    assert one.values == ("7",)
    assert one.encode(objects("7", 7, 7.0, np.float32(7), "7.0")).tolist() == [0, 0, 0, 0, UNKNOWN]


def test_a_fraction_of_a_float32_column_is_the_category_of_the_same_json() -> None:
    table = Table.of({"size": np.array([0.3, 2.7, 5], np.float32)})
    one = Categorical("size").fit(table["size"])
    assert one.values == ("0.3", "2.7", "5")
    records = table.records(0, 3)
    assert encode_records((one,), list(records))["size"].tolist() == [0, 1, 2]
    assert one.encode(objects(0.3, 2.7, 5)).tolist() == [0, 1, 2]


def test_a_large_whole_number_stays_itself_where_others_are_missing() -> None:
    large = 2**53 + 1
    table = Table.of({"shop": [large, None, large - 1]})
    one = Categorical("shop").fit(table["shop"])
    assert one.values == (str(large - 1), str(large))
    assert encode_records((one,), list(table.records(0, 3)))["shop"].tolist() == [1, UNKNOWN, 0]


def test_truth_values_agree_between_a_column_and_json() -> None:
    for column in (Table.of({"x": [True, False]})["x"], Table.of({"x": [True, False, None]})["x"]):
        one = Categorical("x").fit(column)
        assert one.encode(objects(True, False)).tolist() == one.encode(column)[:2].tolist()


def test_the_text_none_is_a_category_and_no_missing_value() -> None:
    one = Categorical("c").fit(objects("None", "nan", "a"))
    assert one.encode(objects("None", "nan", None, float("nan"))).tolist() == [0, 2, UNKNOWN, UNKNOWN]


@given(st.integers(-(2**60), 2**60))
def test_a_whole_number_is_told_apart_by_its_digits(number: int) -> None:
    assert word(number) == word(str(number)) == str(number)
    if float(number) == number:
        assert word(float(number)) == str(number)


@pytest.mark.parametrize("kind", [Categorical, Hashed, Numeric, Bucketed])
def test_a_column_of_lists_is_refused(kind: Any) -> None:
    expected = (
        "feature 'tags': row 1 holds a list; expected one value a row. "
        "Make it a bag:Bag, or a vector:Vector if it holds numbers."
    )
    assert message(kind("tags"), None, ["a"]) == expected
    with pytest.raises(DataError, match="row 0 holds a list"):
        kind("tags").fit(np.ones((3, 2)))


# hashed


def test_a_hash_is_the_same_everywhere_and_for_ever() -> None:
    values = ("phone", "7", "键", "")
    expected = [15, 90, 56, 76]  # int(b2sum -l 64, 16) % 100
    assert Hashed("d", buckets=100).encode(objects(*values)).tolist() == expected
    program = (
        "import numpy as np; from zhiyin.features.hashed import Hashed;"
        f"print(Hashed('d', buckets=100).encode(np.array({values!r}, object)).tolist())"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str(expected)


def test_a_hash_agrees_on_numbers_and_is_unknown_only_when_missing() -> None:
    one = Hashed("d", buckets=1000)
    codes = one.encode(objects(7, 7.0, "7", np.int64(7), None, float("nan")))
    assert codes[:4].tolist() == [codes[0]] * 4
    assert codes[4:].tolist() == [UNKNOWN, UNKNOWN]
    spread = one.encode(objects(*range(5000)))
    assert len(np.unique(spread)) > 980


# bag


def test_a_bag_is_a_list_or_parted_text() -> None:
    one = Bag("g", length=3).fit(objects(["a", "b"], "b|c", None, " b | a ", [], ["d"]))
    assert one.values == ("b", "a", "c", "d")
    assert one.encoding == Codes(4, 8, bag=True)
    encoded = one.encode(objects(["c", "a"], "c|a", ("a", "a"), "x|b", None, ["a", "b", "c", "d"], "a"))
    u = UNKNOWN
    expected = [[2, 1, u], [2, 1, u], [1, u, u], [0, u, u], [u, u, u], [1, 0, 2], [1, u, u]]
    assert encoded.tolist() == expected


def test_a_bag_of_numbers_agrees_with_its_text() -> None:
    one = Bag("g").fit(objects([1, 2], [2]))
    assert one.values == ("2", "1")
    np.testing.assert_array_equal(one.encode(objects([1, 2])), one.encode(objects("1|2")))
    np.testing.assert_array_equal(one.encode(objects(2)), one.encode(objects("2")))


def test_a_bag_has_another_separator_and_leaves_rare_values_out() -> None:
    one = Bag("g", separator=", ", at_least=2).fit(objects("a, b", "a", "b c, a"))
    assert one.values == ("a",)


# numeric


def test_standard_numbers_have_mean_0_and_deviation_1() -> None:
    numbers = np.array([1.0, 2.0, 3.0, 6.0, np.nan])
    one = Numeric("n").fit(numbers)
    encoded = one.encode(numbers)
    assert encoded.shape == (5, 1)
    np.testing.assert_allclose(encoded[:4].mean(), 0, atol=1e-6)
    np.testing.assert_allclose(encoded[:4].std(), 1, rtol=1e-6)
    assert encoded[4] == 0
    assert one.encode(objects(3.0, "3", None)).ravel().tolist() == [0, 0, 0]


def test_log_numbers_are_standardised_after_the_logarithm() -> None:
    numbers = np.array([0.0, np.e - 1, np.e**2 - 1])
    one = Numeric("n", scale="log").fit(numbers)
    np.testing.assert_allclose(one.encode(numbers).ravel(), np.array([-1, 0, 1]) * 1.5**0.5, atol=1e-6)
    np.testing.assert_allclose(one.encode(objects(-5)), one.encode(objects(0)))


def test_numbers_left_as_they_are() -> None:
    assert Numeric("n", scale="none").fit(np.array([5.0, 9.0])).encode(objects(5, 9.5)).ravel().tolist() == [5, 9.5]


def test_a_constant_column_is_not_blown_up() -> None:
    one = Numeric("n").fit(np.full(7, 0.1))
    assert one.deviation == 1
    np.testing.assert_allclose(one.encode(objects(0.1, 1.1)).ravel(), [0, 1], atol=1e-6)


def test_numbers_that_no_float32_holds_are_0() -> None:
    one = Numeric("n").fit(np.array([1.0, 3.0]))
    assert one.encode(objects(1e300, -1e300, 10**400, float("inf"), "1e999")).ravel().tolist() == [0] * 5


def test_bad_numbers_are_refused_with_the_value() -> None:
    way_out = "Clean the column, or make it a categorical:Categorical."
    end = f"; expected finite numbers, or missing ones. {way_out}"
    for one in (Numeric("n"), Bucketed("n")):
        assert message(one, 1, None, "three") == f"feature 'n': 'three' is no number{end}"
        assert message(one, 1, float("-inf")) == f"feature 'n': -inf is infinite{end}"
        assert message(one, 1e200) == f"feature 'n': 1e+200 is too large{end}"
        with pytest.raises(DataError, match=r"feature 'n': 1e\+200 is too large"):
            one.fit(np.array([1, 1e200]))
        assert message(one, {"a": 1}) == f"feature 'n': {{'a': 1}} is no number{end}"
    assert message(Numeric("n", scale="log"), 3, -2) == (
        'feature \'n\': -2 is negative; expected numbers ≥ 0 for scale = "log". Use scale = "standard".'
    )


@settings(max_examples=50)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60), st.integers(2, 9))
def test_a_bucket_is_the_count_of_bounds_at_or_below(numbers: list[int], buckets: int) -> None:
    one = Bucketed("b", buckets=buckets).fit(np.array(numbers, float))
    assert set(one.bounds) <= set(numbers)
    assert list(one.bounds) == sorted(set(one.bounds))
    assert one.encoding == Codes(len(one.bounds) + 1, 8)
    for number in numbers:
        assert one.encode(objects(number))[0] == sum(bound <= number for bound in one.bounds)


@settings(max_examples=50)
@given(st.lists(st.integers(-500, 500), min_size=20, max_size=60, unique=True), st.integers(2, 9))
def test_buckets_of_different_numbers_are_of_one_size(numbers: list[int], buckets: int) -> None:
    one = Bucketed("b", buckets=buckets).fit(np.array(numbers, float))
    counts = np.bincount(one.encode(np.array(numbers, float)), minlength=buckets)
    assert len(counts) == buckets
    assert np.abs(counts - len(numbers) / buckets).max() < 2


def test_buckets_hold_about_equally_many() -> None:
    numbers = np.random.default_rng(0).lognormal(size=1000)
    counts = np.bincount(Bucketed("b", buckets=4).fit(numbers).encode(numbers))
    assert counts.tolist() == [250] * 4


def test_what_is_beyond_the_training_range_is_in_the_outer_buckets() -> None:
    one = Bucketed("b", buckets=3).fit(np.arange(9.0))
    assert one.encode(objects(-100, 100, None, "x", float("inf"))).tolist() == [0, 2, UNKNOWN, UNKNOWN, UNKNOWN]


# vector


def test_a_vector_is_itself_or_of_length_1() -> None:
    assert Vector("v", width=2).encode(objects([3, 4], None, [1], [1, np.inf], "ab")).tolist() == [
        [3, 4], [0, 0], [0, 0], [0, 0], [0, 0],
    ]  # fmt: skip
    unit = Vector("v", width=2, normalize=True)
    np.testing.assert_allclose(unit.encode(objects([3, 4], [0, 0], [1e30, 0])), [[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]])
    matrix = Table.of({"v": np.array([[3, 4], [5, 12]], np.float32)})["v"]
    assert matrix.shape == (2, 2)
    np.testing.assert_allclose(unit.fit(matrix).encode(matrix), [[0.6, 0.8], [5 / 13, 12 / 13]], rtol=1e-6)


def test_a_vector_of_another_width_is_refused_with_the_width_to_set() -> None:
    assert message(Vector("v", width=3), None, [1, 2]) == (
        "feature 'v': row 1 holds 2 numbers; expected 3 finite numbers. Set width = 2."
    )
    assert message(Vector("v", width=2), [1, float("inf")]) == (
        "feature 'v': row 0 holds [1, inf]; expected 2 finite numbers. Correct the row, or leave its value empty."
    )
    assert "row 0 holds 'ab'; expected 2 finite numbers." in message(Vector("v", width=2), "ab")
    assert "row 0 holds [[1], [1, 2]]" in message(Vector("v", width=2), [[1], [1, 2]])
    with pytest.raises(DataError, match=r"row 0 holds 2 numbers; expected 64 finite numbers. Set width = 2\."):
        Vector("v").fit(np.ones((4, 2)))


# time


@given(st.integers(0, 4_000_000_000_000), st.sampled_from([-11.5, -3, 0, 0.5, 5.5, 5.75, 8, 14]))
def test_hour_and_weekday_are_the_calendars(time: int, offset: float) -> None:
    there = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time)
    there = there.astimezone(timezone(timedelta(hours=offset)))
    assert Hour(utc_offset=offset).encode(np.array([time]))[0] == there.hour
    assert Weekday(utc_offset=offset).encode(np.array([time]))[0] == there.weekday()


def test_a_time_that_is_missing_or_no_time_is_unknown() -> None:
    values = objects(None, float("nan"), float("inf"), 1e300, "noon", 0)
    assert Hour().encode(values).tolist() == [UNKNOWN] * 5 + [0]
    assert Weekday().encode(values).tolist() == [UNKNOWN] * 5 + [3]


def test_example_age_is_the_share_of_the_training_span_and_0_at_serving() -> None:
    one = ExampleAge().fit(np.array([0, 250, 1000]))
    assert one.encoding == Values(2)
    assert one.encode(np.array([1000, 250, 0])).tolist() == [[1, 1], [0.25, 0.5], [0, 0]]
    online = encode_records((one,), [{"age": 0}, {}, {"age": None}, {"age": -5}])
    assert online["example_age"].tolist() == [[0, 0]] * 4


def test_example_age_of_examples_that_are_all_of_one_moment() -> None:
    assert ExampleAge().fit(np.array([0, 0])).encode(np.array([0, 0])).tolist() == [[0, 0], [0, 0]]


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("categorical:Categorical", {"name": "x", "dim": 0}, "dim = 0, at_least = 1; expected both at least 1"),
    ("categorical:Categorical", {"name": "x", "at_least": 0}, "dim = 8, at_least = 0; expected both at least 1"),
    ("hashed:Hashed", {"name": "x", "buckets": 1}, "dim = 8, buckets = 1; expected dim ≥ 1 and buckets ≥ 2"),
    (
        "bag:Bag",
        {"name": "x", "length": 0},
        "length = 0, at_least = 1, separator = '|'; expected numbers of at least 1",
    ),
    ("bag:Bag", {"name": "x", "separator": ""}, "separator = ''; expected numbers of at least 1 and a separator"),
    ("numeric:Numeric", {"name": "x", "scale": "logg"}, "'logg' (did you mean 'log'?); expected one of 'standard', "),
    ("numeric:Bucketed", {"name": "x", "buckets": 1}, "buckets = 1, dim = 8; expected buckets ≥ 2 and dim ≥ 1"),
    ("vector:Vector", {"name": "x", "width": 0}, ".width: 0; expected at least 1"),
    ("time:Hour", {"utc_offset": 24.0}, "dim = 4, utc_offset = 24.0; expected dim ≥ 1 and an offset within a day"),
    ("time:Weekday", {"dim": 0}, "dim = 0, utc_offset = 0.0; expected dim ≥ 1 and an offset within a day"),
    ("time:Hour", {"utc_offset": float("nan")}, ".utc_offset: nan is no number; expected a number"),
]


@pytest.mark.parametrize(("use", "table", "words"), BAD, ids=[f"{use} {table}" for use, table, _ in BAD])
def test_a_setting_out_of_range_is_refused(use: str, table: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec.used_build({"use": use, **table}, "zhiyin.features", "features.user[0]")
    assert str(caught.value).startswith("features.user[0]")
    assert words in str(caught.value)
