"""Ids ↔ rows: whatever the ids are, and whatever their hashes."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.data.vocabulary import UNKNOWN, Vocabulary
from zhiyin.errors import DataError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
id_lists = st.lists(texts, unique=True, max_size=40)


@given(id_lists, st.lists(texts, max_size=10))
def test_ids_go_to_rows_and_back(ids: list[str], others: list[str]) -> None:
    words = Vocabulary.of(ids)
    assert len(words) == len(ids)
    assert words.rows(ids).tolist() == list(range(len(ids)))
    assert words.rows(ids).dtype == np.int32
    assert words.ids() == ids
    assert words.ids(range(len(ids))[::-1]) == ids[::-1]
    places = {one: row for row, one in enumerate(ids)}
    assert words.rows(others).tolist() == [places.get(one, UNKNOWN) for one in others]
    assert [one in words for one in others] == [one in places for one in others]


@settings(max_examples=20)
@given(id_lists)
def test_a_saved_vocabulary_is_mapped_and_the_same(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("words") / "users"
    Vocabulary.of(ids).save(folder)
    again = Vocabulary.open(folder)
    assert again.ids() == ids
    assert again.rows([*ids, "zz never there"]).tolist() == [*range(len(ids)), UNKNOWN]
    assert all(isinstance(np.load(file, mmap_mode="r"), np.memmap) for file in folder.iterdir())


ODD = [
    "",
    " ",
    "a",
    "A",
    "a ",
    "a\x00",
    "\x00",
    "\n",
    "é",
    "e\u0301",
    "知音",
    "🎵",
    "0",
    "00",
    "-1",
    "None",
    "x" * 10_000,
]


def test_odd_ids_are_all_different() -> None:
    words = Vocabulary.of(ODD)
    assert words.ids() == ODD
    assert words.rows(ODD).tolist() == list(range(len(ODD)))
    assert words.rows(["É", "a\x00\x00", "  ", "1"]).tolist() == [UNKNOWN] * 4


def test_what_is_no_id_is_not_in_it() -> None:
    words = Vocabulary.of(["7"])
    assert 7 not in words
    assert None not in words
    assert words.rows(["\ud800"]).tolist() == [UNKNOWN]
    assert words.rows([]).tolist() == []
    assert Vocabulary.of([]).rows(["a"]).tolist() == [UNKNOWN]


@pytest.mark.parametrize("row", [-1, UNKNOWN, 2, 10**9])
def test_a_row_that_is_none_is_refused(row: int) -> None:
    with pytest.raises(IndexError, match=rf"^row {row} is not in a vocabulary of 2 ids$"):
        Vocabulary.of(["a", "b"]).ids([0, row])


def test_a_duplicate_is_refused_by_name() -> None:
    with pytest.raises(DataError) as caught:
        Vocabulary.of(["a", "b", "c", "b"])
    assert str(caught.value) == "the id 'b' occurs twice; expected ids that are unique"


def test_a_vocabulary_is_not_written_over_another(tmp_path: Path) -> None:
    Vocabulary.of(["a"]).save(tmp_path / "users")
    with pytest.raises(FileExistsError):
        Vocabulary.of(["b"]).save(tmp_path / "users")
    assert Vocabulary.open(tmp_path / "users").ids() == ["a"]
