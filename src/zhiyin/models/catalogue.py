"""The whole catalogue through an item tower, a part at a time: it takes a part's memory, whatever the catalogue."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from zhiyin.data.prepared import Prepared
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.features.base import Encoded
from zhiyin.features.schema import Schema, encode
from zhiyin.indexes.base import Vectors
from zhiyin.models.base import Items, RetrievalModel

READ = 65_536
"""Items that are read and encoded at a time: fewer, and what each time costs shows."""

BLOCK = 1024
"""Items in a tower at a time: what a layer makes of them stays in the cache of the core that works on it."""

SHARE = 8
"""Blocks that a thread takes at a time, so that they need not be handed out one by one."""


def item_blocks(
    schema: Schema, data: Prepared, size: int = READ, nameless: torch.Tensor | None = None
) -> Iterator[Items]:
    """All items in the order of their rows, `size` at a time; only their part of the item table is read and encoded.
    Those of the rows `nameless` int64 are new ones to the tower: their row is `UNKNOWN`."""
    for start in range(0, len(data.items), size):
        part = data.item_table.arrow.slice(start, size)
        yield _items(schema, part, _named(torch.arange(start, start + len(part)), nameless))


def items_of(schema: Schema, data: Prepared, rows: Sequence[int], nameless: torch.Tensor | None = None) -> Items:
    """The items of these rows, likewise."""
    return _items(schema, data.item_table.arrow.take(pa.array(rows)), _named(torch.tensor(rows), nameless))


@torch.inference_mode()
def item_vectors(model: RetrievalModel, items: Items) -> Vectors:
    """[m, d] these items' vectors."""
    vectors: Vectors = model.item_vectors(items).numpy()
    return vectors


def write_vectors(
    tower: Callable[[Items], Vectors], blocks: Iterable[Items], count: int, path: Path, threads: int = 1
) -> Vectors:
    """[count, d] the vectors of all `count` items in `blocks`, in a new file that is memory-mapped when it is whole.
    `threads`: that ask the tower at the same time (1 for a tower with threads of its own); the next block is made, and
    what came back is written, meanwhile.

    Plain writes, not through the map: a full disk is an `OSError` then, and not the end of the process.
    """
    dim = 0
    with path.open("xb") as file:
        for vectors in _in_order(partial(_vectors, tower), _shares(blocks), threads):
            if not dim:
                dim = vectors.shape[1]
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(vectors.data)
    written: Vectors = np.load(path, mmap_mode="r")
    return written


def _shares(blocks: Iterable[Items]) -> Iterator[Items]:
    size = SHARE * BLOCK
    return (_part(items, start, start + size) for items in blocks for start in range(0, len(items.rows), size))


def _vectors(tower: Callable[[Items], Vectors], share: Items) -> list[Vectors]:
    """[·, d] what the tower says of a share, block by block."""
    blocks = (_part(share, start, start + BLOCK) for start in range(0, len(share.rows), BLOCK))
    return [np.ascontiguousarray(tower(block), "<f4") for block in blocks]


def _in_order(work: Callable[[Items], list[Vectors]], shares: Iterable[Items], threads: int) -> Iterator[Vectors]:
    """What `threads` threads make of the shares, in the order of these; twice as many shares as threads are held."""
    waiting: deque[Future[list[Vectors]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for share in shares:
            if len(waiting) == 2 * threads:
                yield from waiting.popleft().result()
            waiting.append(pool.submit(work, share))
        while waiting:
            yield from waiting.popleft().result()


def _items(schema: Schema, table: pa.Table, rows: torch.Tensor) -> Items:
    encoded = encode(schema.item, Table(table), "items")
    return Items(rows, {name: _tensor(column) for name, column in encoded.items()})


def _named(rows: torch.Tensor, nameless: torch.Tensor | None) -> torch.Tensor:
    return rows if nameless is None else rows.masked_fill(torch.isin(rows, nameless), UNKNOWN)


def _part(items: Items, start: int, stop: int) -> Items:
    return Items(items.rows[start:stop], {name: column[start:stop] for name, column in items.columns.items()})


def _tensor(column: Encoded) -> torch.Tensor:
    kind = np.int64 if np.issubdtype(column.dtype, np.integer) else np.float32
    return torch.from_numpy(np.ascontiguousarray(column, kind))
