"""The catalogue through the item tower in blocks: the same as all at once, and never much in memory."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pytest
import torch

from zhiyin import spec
from zhiyin.data.prepared import Prepared
from zhiyin.data.tables import Table
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema, encode
from zhiyin.features.vector import Vector
from zhiyin.indexes.base import Vectors
from zhiyin.learning.examples import Examples
from zhiyin.models import catalogue
from zhiyin.models.base import Items, ModelSpec
from zhiyin.models.catalogue import item_blocks, item_vectors, items_of, write_vectors
from zhiyin.models.dssm import DSSM

WIDE = Schema(
    item=(
        Categorical("kind", dim=3),
        Categorical("number", dim=3),
        Categorical("yes", dim=2),
        Numeric("price"),
        Bag("tags", dim=4, length=3),
        Vector("cover", width=2),
    )
)


@pytest.fixture(scope="module")
def wide(data: Prepared) -> Prepared:
    """60 items whose columns have missing values in some blocks of 7 and none in others."""
    rows = range(len(data.items))
    columns = {
        "kind": ["a" if row % 3 else None for row in rows],
        "number": [row % 5 if row > 20 else None for row in rows],
        "yes": [bool(row % 2) if row != 30 else None for row in rows],
        "price": [row / 3 if row < 40 else None for row in rows],
        "tags": [["x", "y"][: row % 3] if row % 10 else None for row in rows],
        "cover": [[row / 7, 1.0] if row > 15 else None for row in rows],
    }
    return Prepared(data.users, data.items, data.events, data.user_table, Table.of(columns))


def fitted(wide: Prepared) -> Schema:
    return Schema(item=tuple(f.fit(wide.item_table[f.name]) for f in WIDE.item))


def test_what_is_encoded_in_blocks_is_what_is_encoded_at_once(wide: Prepared) -> None:
    schema = fitted(wide)
    whole = encode(schema.item, wide.item_table, "items")
    blocks = list(item_blocks(schema, wide, 7))
    assert [len(block.rows) for block in blocks] == [7] * 8 + [4]
    assert torch.cat([block.rows for block in blocks]).tolist() == list(range(60))
    for name, column in whole.items():
        np.testing.assert_array_equal(np.concatenate([block.columns[name].numpy() for block in blocks]), column)


def test_items_of_some_rows_are_those_of_the_blocks(wide: Prepared) -> None:
    schema, rows = fitted(wide), [0, 3, 30, 59]
    some, whole = items_of(schema, wide, rows), next(item_blocks(schema, wide, 60))
    assert some.rows.tolist() == rows
    for name, column in whole.columns.items():
        assert (some.columns[name] == column[rows]).all()


def test_what_fails_while_a_block_is_made_is_raised(examples: Examples, data: Prepared, tmp_path: Path) -> None:
    def failing() -> Iterator[Items]:
        yield next(item_blocks(examples.schema, data, 7))
        raise OSError("the item table is gone")

    with pytest.raises(OSError, match="the item table is gone"):
        write_vectors(lambda items: np.zeros((len(items.rows), 2), np.float32), failing(), 60, tmp_path / "v.npy")


def test_no_more_than_a_block_of_the_table_is_read_at_once(wide: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(part: pa.Table) -> Table:
        read.append(len(part))
        return Table(part)

    schema = fitted(wide)
    monkeypatch.setattr(catalogue, "Table", counting)
    model = DSSM(dim=8, hidden=(8,)).build(schema, 60).eval()
    blocks = item_blocks(schema, wide, 16)
    assert item_vectors(model, next(blocks)).shape == (16, 8)
    assert read == [16]
    assert sum(len(block.rows) for block in blocks) == 44
    assert max(read) == 16


@pytest.mark.parametrize("model", [DSSM(dim=8, hidden=(8,)), *spec.examples("zhiyin.models")[:3]], ids=repr)
def test_the_file_holds_what_the_tower_says_of_all_items(
    model: ModelSpec, examples: Examples, data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(catalogue, "BLOCK", 3)
    towers = model.build(examples.schema, len(data.items)).eval()
    blocks = item_blocks(examples.schema, data, 7)
    written = write_vectors(partial(item_vectors, towers), blocks, len(data.items), tmp_path / "vectors.npy")
    assert isinstance(written, np.memmap)
    assert written.dtype == np.float32
    with torch.inference_mode():
        np.testing.assert_allclose(written, towers.item_vectors(examples.items()).numpy(), atol=1e-5)
    with pytest.raises(FileExistsError, match=r"vectors\.npy"):
        write_vectors(partial(item_vectors, towers), blocks, len(data.items), tmp_path / "vectors.npy")


def test_what_several_threads_make_is_written_in_the_order_of_the_rows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(catalogue, "BLOCK", 1)
    monkeypatch.setattr(catalogue, "SHARE", 2)
    later = Event()

    def tower(items: Items) -> Vectors:
        row = int(items.rows[0])
        assert row or later.wait(60), "nobody came past the first while it was under way"
        if row:
            later.set()
        return np.array([[row, -row]], np.float32)

    written = write_vectors(tower, [Items(torch.arange(7), {})], 7, tmp_path / "vectors.npy", 2)
    assert written.tolist() == [[row, -row] for row in range(7)]


def test_no_more_blocks_are_made_than_threads_can_be_busy_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalogue, "SHARE", 1)
    done: list[int] = []
    ahead: list[int] = []

    def slow(items: Items) -> Vectors:
        time.sleep(0.01)
        done.append(int(items.rows[0]))
        return np.zeros((1, 2), np.float32)

    def blocks() -> Iterator[Items]:
        for row in range(20):
            ahead.append(row - len(done))
            yield Items(torch.tensor([row]), {})

    write_vectors(slow, blocks(), 20, tmp_path / "vectors.npy", 3)
    assert max(ahead) == 6
