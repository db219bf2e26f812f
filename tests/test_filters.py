"""What a filter refuses and with which words, what columns become attributes, and what is remembered."""

import datetime
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyin.data import attributes as module
from zhiyin.data.attributes import Attributes
from zhiyin.data.tables import Table
from zhiyin.errors import RequestError
from zhiyin.filters.bitmap import bitmap
from zhiyin.filters.grammar import parse

ITEMS = Attributes.of(
    Table(
        pa.table(
            {
                "region": ["CN", "FR", None, "DE"],
                "price": [5.0, 25.0, float("nan"), None],
                "adult": [False, True, False, None],
                "tags": [["a", "b"], ["b", "b"], [], None],
                "片名": ["一", "二", "三", "四"],
                "$where.x": [1, 2, 3, 4],
            }
        )
    )
)


def passing(text: str, attributes: Attributes = ITEMS) -> list[int]:
    return [int(row) for row in np.flatnonzero(bitmap(attributes, text))]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('region == "CN" and not adult and price < 20 and tags any ["a","b"]', [0]),
        ("price < 20", [0]),
        ("not price < 20", [1, 2, 3]),
        ("price != 5", [1]),
        ("not (price == 5)", [1, 2, 3]),
        ("missing(price)", [2, 3]),
        ("not missing(price)", [0, 1]),
        ("not adult", [0, 2, 3]),
        ("adult == false", [0, 2]),
        ("adult in [true, false]", [0, 1, 2]),
        ("tags all []", [0, 1, 2]),
        ("tags any []", []),
        ("region in []", []),
        ("missing(tags)", [3]),
        ('tags all ["b", "b"]', [0, 1]),
        ('tags all ["b", "never"]', []),
        ("region == 'CN' or region == 'FR' and price > 100", [0]),
        ("(region == 'CN' or region == 'FR') and price > 100", []),
        ("region >= 'DE'", [1, 3]),
        ("片名 == '\\u4e8c'", [1]),
        ("`$where.x` >= 3", [2, 3]),
        ("\n price\t<=\r\n2.5e1 ", [0, 1]),
    ],
)
def test_what_passes(text: str, rows: list[int]) -> None:
    assert passing(text) == rows


REFUSED = [
    ("", "character 1: the filter ends; expected an attribute, 'not', 'missing' or '\\('"),
    ("   ", "character 4: the filter ends"),
    ("price <", 'character 8: the filter ends; expected a value: "text", a number, true or false'),
    ("price < < 3", "character 9: found '<'; expected a value"),
    ("price = 3", "character 7: '=' begins nothing that a filter knows. To compare, write =="),
    ("price == 3 && adult", "character 12: '&' begins nothing that a filter knows. Write 'and'."),
    ("adult || adult", "Write 'or'."),
    ("!adult", "character 1: '!' begins nothing that a filter knows. Write 'not'"),
    ("adult AND adult", "character 7: found 'AND'; expected an operator: == != < <= > >= in any all. Write 'and'."),
    ("price == 3 AND adult", "character 12: found 'AND'; expected 'and', 'or' or the end. Write 'and'."),
    ("price == null", "character 10: found 'null'; expected a value: .* write missing\\(name\\)"),
    ("adult == True", "Write 'true'."),
    ("region not in ['CN']", "character 8: found 'not'; expected an operator: .* 'not' stands before the whole test"),
    ("20 > price", "character 1: found '20'; expected an attribute"),
    ("'CN' == region", "character 1: found \"'CN'\"; expected an attribute"),
    ("1 < price < 3", "character 1: found '1'; expected an attribute"),
    ("price < 3 < 4", "character 11: found '<'; expected 'and', 'or' or the end"),
    ("price == price", "character 10: found 'price'; expected a value"),
    ("price == 007", "character 11: found '0'; expected 'and', 'or' or the end"),
    ("price == .5", "character 10: '.' begins nothing"),
    ("price == 1e999", "character 10: '1e999' is too large; expected a number below 1e308"),
    ("price == " + "9" * 5000, "character 10: '99999999999999999999…' is too large"),
    ("price == nan", "character 10: found 'nan'; expected a value"),
    ("region == 'CN", 'character 11: "\'" begins nothing .* The text does not end: it needs another quotation mark'),
    ("`price < 3", "character 1: '`' begins nothing .* it needs another backquote"),
    ("region == '\\x41'", r"character 12: '\\\\x' is no escape; expected .* and four digits"),
    ("region == '\\ud83d'", r"character 11: half of a surrogate pair; expected both halves"),
    ("region == '\ud83d'", r"character 12: half of a surrogate pair; expected Unicode text"),
    ("region in 'CN'", "character 11: found \"'CN'\"; expected '\\[' and values"),
    ("region in ['CN' 'FR']", "character 17: found \"'FR'\"; expected ',' or '\\]'"),
    ("region in ['CN',]", "character 17: found '\\]'; expected a value"),
    ("(adult", "character 7: the filter ends; expected 'and', 'or' or '\\)'"),
    ("adult)", "character 6: found '\\)'; expected 'and', 'or' or the end"),
    ("()", "character 2: found '\\)'; expected an attribute"),
    ("missing price", "character 9: found 'price'; expected '\\(' and an attribute"),
    ("missing('price')", "character 9: found \"'price'\"; expected an attribute"),
    ("adult and", "character 10: the filter ends"),
    ("and", "character 1: found 'and'; expected an attribute"),
    ("pric < 3", r"character 1: no attribute 'pric' \(did you mean 'price'\?\); expected one of region, price"),
    ("adult and __class__ == 3", "character 11: no attribute '__class__'; expected one of region"),
    ("price == 'CN'", "character 1: price is a number, and 'CN' is none of its values; expected a number"),
    ("price == true", "price is a number, and true is none of its values"),
    ("region < 3", 'region is text, and 3 is none of its values; expected "text"'),
    ("region in ['CN', 3]", "region is text, and 3 is none of its values"),
    ("adult == 1", "adult is true or false, and 1 is none of its values; expected true or false"),
    ("adult < true", "adult is true or false, which cannot stand with '<'; expected adult == or != or in"),
    ("price", "character 1: price is a number, which cannot stand by itself; expected price == or"),
    ("not region", "character 5: region is text, which cannot stand by itself"),
    ("tags == 'a'", "tags is a list of text, which cannot stand with '=='; expected tags any or all …"),
    ("tags any [1]", 'tags is a list of text, and 1 is none of its values; expected "text"'),
    ("region any ['CN']", "region is text, which cannot stand with 'any'; expected region == or"),
    ("__import__('os')", "character 11: found '\\('; expected 'and', 'or' or the end"),
    ('region == "CN"; DROP TABLE items; --', "character 15: ';' begins nothing"),
    ("price < 3 # and adult", "character 11: '#' begins nothing"),
    ("{}", "character 1: '{' begins nothing"),
    ("*", "character 1: '\\*' begins nothing"),
    ("price < 3\x00", r"character 10: '\\x00' begins nothing"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=lambda one: ascii(one)[:40])
def test_what_is_refused_and_where(text: str, said: str) -> None:
    with pytest.raises(RequestError, match="^" + said if said.startswith("character") else said):
        bitmap(ITEMS, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(" * 1000 + "adult" + ")" * 1000, "character 33: nested 33 deep; expected at most 32"),
        ("not " * 1000 + "adult", "character 129: nested 33 deep; expected at most 32"),
        ("(not " * 500 + "adult" + ")" * 500, "nested 33 deep"),
        ("(" * 65_000, "nested 33 deep"),
        ("region == '" + "x" * 100_000 + "'", "100,012 characters; expected at most 65,536"),
        (" or ".join(["adult"] * 65), "character 577: condition number 65; expected at most 64. .* x in \\[…\\]"),
    ],
    ids=["parentheses", "nots", "both", "open", "long", "conditions"],
)
def test_a_bomb_is_refused_with_the_limit(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        bitmap(ITEMS, text)


def test_what_is_just_within_the_limits_is_answered() -> None:
    assert passing("(" * 32 + "adult" + ")" * 32) == [1]
    assert passing("not " * 32 + "adult") == [1]
    assert passing(" or ".join(["adult"] * 64)) == [1]
    assert passing(" or ".join(["(not adult)"] * 64)) == [0, 2, 3]
    assert passing(f"region in {[f'r{at}' for at in range(7000)] + ['FR']}") == [1]


@pytest.mark.parametrize(
    "odd", ["\r\n", "*", "{}", "%s", "'; DROP TABLE items; --", "${x}", "../..", "\x00", "<script>", "\\", '"', "`"]
)
def test_text_is_only_text(odd: str) -> None:
    """Whatever it holds, it is compared, and never read as part of the filter."""
    attributes = Attributes.of(Table.of({"title": [odd, "other", odd + "x"]}))
    quoted = "'" + odd.replace("\\", "\\\\").replace("'", "\\'") + "'"
    assert passing(f"title == {quoted}", attributes) == [0]
    assert passing(f"title in [{quoted}]", attributes) == [0]


@given(
    st.text("ab01.\"'\\()[],<>=!&|`- \n\ud83d知")
    | st.lists(
        st.sampled_from(
            [
                "a",
                "and",
                "or",
                "not",
                "in",
                "any",
                "all",
                "missing",
                "(",
                ")",
                "[",
                "]",
                ",",
                "==",
                "<",
                "1",
                "'x'",
                '"',
                "true",
                "`b c`",
                "-",
                "\\",
            ]
        )
    ).map(" ".join)
)
def test_every_text_is_either_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except RequestError as error:
        refused = error.what
    else:
        return
    assert refused.startswith("character ")


def test_columns_of_every_kind_and_those_that_are_left_out(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
    columns: dict[str, pa.Array] = {
        "text": pa.array(["a", None]),
        "large": pa.array(["a", None], pa.large_string()),
        "coded": pa.array(["a", None]).dictionary_encode(),
        "small": pa.array([1, None], pa.int8()),
        "unsigned": pa.array([2**64 - 1, None], pa.uint64()),
        "half": pa.array([np.float16(0.5), None], pa.float16()),
        "money": pa.array([Decimal("9.90"), None]),
        "truth": pa.array([True, None]),
        "day": pa.array([day.date(), None]),
        "day64": pa.array([day.date(), None], pa.date64()),
        "moment": pa.array([day, None], pa.timestamp("ns", "UTC")),
        "second": pa.array([day, None], pa.timestamp("s")),
        "words": pa.array([["a"], None]),
        "coded words": pa.array([["a"], None], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "whole": pa.array([[1], None], pa.list_(pa.uint8())),
        "vector": pa.array([[0.1, 0.2], None], pa.list_(pa.float32(), 2)),
        "fractions": pa.array([[0.1], None]),
        "record": pa.array([{"a": 1}, None]),
        "nothing": pa.array([None, None]),
        "bytes": pa.array([b"a", None]),
    }
    attributes = Attributes.of(Table(pa.table(columns)))
    assert attributes.kinds == {
        **dict.fromkeys(["text", "large", "coded"], "text"),
        **dict.fromkeys(["small", "unsigned", "half", "money"], "number"),
        "truth": "true or false",
        **dict.fromkeys(["day", "day64", "moment", "second"], "number"),
        **dict.fromkeys(["words", "coded words"], "list of text"),
        "whole": "list of numbers",
    }
    attributes.save(tmp_path / "attributes.arrow")
    opened = Attributes.open(tmp_path / "attributes.arrow")
    assert (opened.kinds, len(opened)) == (attributes.kinds, 2)
    seconds = int(day.timestamp())
    for one in (attributes, opened):
        for name in ("text", "large", "coded"):
            assert passing(f"{name} == 'a'", one) == [0]
        assert passing("small == 1 and unsigned == 18446744073709551615 and half == 0.5 and money == 9.9", one) == [0]
        assert passing(
            f"day == {seconds} and day64 == {seconds} and moment == {seconds} and second == {seconds}", one
        ) == [0]
        assert passing("truth and words any ['a'] and `coded words` all ['a'] and whole any [1]", one) == [0]
        assert all(passing(f"missing(`{name}`)", one) == [1] for name in one.kinds)


def test_a_table_in_many_pieces_is_one(tmp_path: Path) -> None:
    part = pa.table({"region": ["b", "a", None], "tags": [["x"], None, ["y", "x"]], "n": [1, 2, 3]})
    other = pa.table({"region": ["a", "c", "b"], "tags": [["z"], ["x"], []], "n": [4, 5, 6]})
    attributes = Attributes.of(Table(pa.concat_tables([part, other])))
    attributes.save(tmp_path / "attributes.arrow")
    for one in (attributes, Attributes.open(tmp_path / "attributes.arrow")):
        assert passing("region == 'b'", one) == [0, 5]
        assert passing("tags any ['x']", one) == [0, 2, 4]
        assert passing("n >= 3", one) == [2, 3, 4, 5]


def test_text_that_a_separator_parts_is_a_list() -> None:
    table = Table.of({"tags": ["a| b |", "", None, "b||a|a"], "free": ["a|b", "", None, "c"]})
    attributes = Attributes.of(table, {"tags": "|"})
    assert attributes.kinds == {"tags": "list of text", "free": "text"}
    assert passing("tags any ['a']", attributes) == [0, 3]
    assert passing("tags all ['a', 'b']", attributes) == [0, 3]
    assert passing("tags any ['', 'b ']", attributes) == []
    assert passing("tags all []", attributes) == [0, 1, 3]
    assert passing("missing(tags)", attributes) == [2]
    assert passing("free == 'a|b'", attributes) == [0]


def test_a_catalogue_without_columns_has_no_attributes(tmp_path: Path) -> None:
    Attributes.of(Table.of({}, length=3)).save(tmp_path / "attributes.arrow")
    attributes = Attributes.open(tmp_path / "attributes.arrow")
    assert (dict(attributes.kinds), len(attributes)) == ({}, 3)
    with pytest.raises(RequestError, match="no attribute 'x'. The item table has no columns that can be filtered by"):
        bitmap(attributes, "x == 1")


@pytest.fixture
def numbers() -> Attributes:
    return Attributes.of(Table.of({"n": np.arange(1000)}))


def test_an_answer_is_made_once_and_cannot_be_written_to(numbers: Attributes) -> None:
    first = bitmap(numbers, "n < 10")
    assert bitmap(numbers, "n < 10") is first
    with pytest.raises(ValueError, match="read-only"):
        first[0] = False
    assert bitmap(Attributes.of(Table.of({"n": np.arange(1000)})), "n < 10") is not first


def test_answers_are_kept_within_bounds_the_newest_used(numbers: Attributes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    first, second = bitmap(numbers, "n < 1"), bitmap(numbers, "n < 2")
    bitmap(numbers, "n < 3")
    assert bitmap(numbers, "n < 1") is first
    bitmap(numbers, "n < 4")
    assert bitmap(numbers, "n < 1") is first
    assert bitmap(numbers, "n < 2") is not second
    monkeypatch.setattr(module, "MOST_BYTES", 2500)
    kept = bitmap(numbers, "n < 5"), bitmap(numbers, "n < 6")
    assert bitmap(numbers, "n < 5") is kept[0]
    bitmap(numbers, "n < 7")
    assert bitmap(numbers, "n < 5") is kept[0]
    assert bitmap(numbers, "n < 6") is not kept[1]


def test_what_was_refused_is_refused_again(numbers: Attributes) -> None:
    for _ in range(2):
        with pytest.raises(RequestError, match="no attribute"):
            bitmap(numbers, "m < 1")


def test_many_threads_get_the_same_answers(numbers: Attributes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 4)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda at: int(bitmap(numbers, f"n < {at % 13}").sum()), range(2000)))
    assert counts == [at % 13 for at in range(2000)]
