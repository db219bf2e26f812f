"""Ids ↔ rows, against a dict; hashes, against the published verification value."""

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zhiyin.data import murmur, vocabulary
from zhiyin.data.vocabulary import UNKNOWN, Grown, Vocabulary
from zhiyin.errors import DataError

texts = st.lists(st.text(max_size=40), unique=True, max_size=30)


def arrow(ids: list[str]) -> pa.ChunkedArray:
    """In two chunks, the second of them a slice."""
    half = len(ids) // 2
    return pa.chunked_array([pa.array(ids[:half], pa.string()), pa.array(["no", *ids], pa.string())[1 + half :]])


def packed(strings: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return np.frombuffer(b"".join(strings), np.uint8), np.cumsum([0, *map(len, strings)])


def test_the_hash_is_murmurhash64a() -> None:
    """SMHasher's verification: keys 0, 0 1, 0 1 2 … under seeds 256, 255 …, their hashes hashed, is 0x1F0D3804."""
    told = b"".join(murmur.hashes(*packed([bytes(range(size))]), seed=256 - size).tobytes() for size in range(256))
    assert int(murmur.hashes(*packed([told]))[0]) & 0xFFFFFFFF == 0x1F0D3804


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_a_string_is_hashed_the_same_alone_and_in_a_crowd(strings: list[bytes]) -> None:
    alone = [int(murmur.hashes(*packed([one]))[0]) for one in strings]
    assert murmur.hashes(*packed(strings)).tolist() == alone


@given(texts, texts)
def test_rows_and_ids_are_a_dict_and_a_list(ids: list[str], asked: list[str]) -> None:
    known = {one: row for row, one in enumerate(ids)}
    asked = [*asked, *ids[::-1], *ids[:3]]
    for words in (Vocabulary.of(ids), Vocabulary.of_arrow(arrow(ids))):
        assert words.rows(asked).tolist() == [known.get(one, UNKNOWN) for one in asked]
        assert words.ids() == ids
        assert words.ids(range(len(ids))) == ids
        assert len(words) == len(ids)
        assert all(one in words for one in ids)
    assert 3 not in Vocabulary.of(ids)


@given(texts, st.integers(0, 30))
def test_an_extended_vocabulary_keeps_its_rows_and_equals_one_made_at_once(ids: list[str], cut: int) -> None:
    words = Vocabulary.of(ids[:cut]).extended(arrow(ids[cut:]))
    assert words.ids() == ids
    assert words.rows(ids).tolist() == list(range(len(ids)))


def test_a_half_surrogate_is_an_id_that_is_not_there() -> None:
    assert Vocabulary.of(["a", "é"]).rows(["\ud800", "é"]).tolist() == [UNKNOWN, 1]


def test_a_row_that_is_none_is_refused() -> None:
    words = Vocabulary.of(["a"])
    for row in (1, -1):
        with pytest.raises(IndexError, match=f"row {row} is not in a vocabulary of 1 ids"):
            words.ids([row])


def test_an_id_that_occurs_twice_is_named() -> None:
    with pytest.raises(DataError, match=r"the id 'b' occurs twice; expected ids that are unique"):
        Vocabulary.of(["a", "b", "c", "b"])
    with pytest.raises(DataError, match=r"the id 'a' occurs twice"):
        Vocabulary.of(["a"]).extended(arrow(["a"]))


def test_ids_whose_hashes_collide_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_length(utf8: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int = 0) -> NDArray[np.uint64]:
        return np.diff(offsets).astype(np.uint64)

    monkeypatch.setattr(murmur, "hashes", by_length)
    monkeypatch.setitem(vocabulary.HASHES, "murmur", by_length)
    ids = ["aa", "b", "cc", "d", "dd", "e", "", "eee"]
    words = Vocabulary.of(ids)
    assert words.rows([*ids, "x", "xx", "xxxx"]).tolist() == [*range(8), UNKNOWN, UNKNOWN, UNKNOWN]
    with pytest.raises(DataError, match="'aa' occurs twice"):
        Vocabulary.of(["aa", "bb", "aa"])


@settings(max_examples=10, deadline=None)
@given(texts)
def test_what_is_saved_opens_again(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("words") / "words"
    Vocabulary.of(ids).save(folder)
    opened = Vocabulary.open(folder)
    assert opened.ids() == ids
    assert opened.rows([*ids, "not there at all, not there at all, not there"]).tolist() == [*range(len(ids)), UNKNOWN]


def test_a_folder_of_the_first_format_is_read_for_ever_and_saved_as_it_is(tmp_path: Path) -> None:
    """Hashes were the first eight bytes of BLAKE2b, in a file named after nothing."""
    ids = ["u1", "ü", "", "long enough for several words"]
    strings = [one.encode() for one in ids]
    digests = [int.from_bytes(blake2b(one, digest_size=8).digest(), "little") for one in strings]
    order = sorted(range(4), key=digests.__getitem__)
    old = tmp_path / "old"
    old.mkdir()
    np.save(old / "utf8.npy", packed(strings)[0])
    np.save(old / "offsets.npy", packed(strings)[1])
    np.save(old / "hashes.npy", np.array([digests[row] for row in order], np.uint64))
    np.save(old / "order.npy", np.array(order, np.int32))
    words = Vocabulary.open(old)
    assert words.rows([*ids, "u2"]).tolist() == [0, 1, 2, 3, UNKNOWN]
    words.save(tmp_path / "again")
    assert Vocabulary.open(tmp_path / "again").rows(ids).tolist() == [0, 1, 2, 3]
    assert (tmp_path / "again" / "hashes.npy").read_bytes() == (old / "hashes.npy").read_bytes()
    assert words.extended(arrow(["u2"])).rows(["u2", "ü"]).tolist() == [4, 1]


def test_hashes_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    Vocabulary.of(["a"]).save(tmp_path / "words")
    (tmp_path / "words" / "murmur.npy").rename(tmp_path / "words" / "other.npy")
    with pytest.raises(DataError, match=r"hashed in no way known here; expected murmur.npy or hashes.npy.*Upgrade"):
        Vocabulary.open(tmp_path / "words")


def test_a_grown_one_goes_on_after_its_own_and_never_changes() -> None:
    later, names = {"c": 2, "知": 3}, ["c", "知"]
    grown = Grown(Vocabulary.of(["a", "b"]), later, names)
    later["d"] = 4
    names.append("d")
    assert grown.rows(["知", "a", "d", "", "c", "b"]).tolist() == [3, 0, UNKNOWN, UNKNOWN, 2, 1]
    assert grown.ids(np.array([3, 0, 2, 1])) == ["知", "a", "c", "b"]
    assert grown.ids() == ["a", "b", "c", "知"]
    assert ("c" in grown, "d" in grown, 2 in grown, len(grown)) == (True, False, False, 4)
    with pytest.raises(IndexError, match="row 4 is not in a vocabulary of 4 ids"):
        grown.ids([1, 4])
    assert Grown(Vocabulary.of(["a", "b"]), later, names).rows(["d"]).tolist() == [4]
