"""The whole catalogue through the item tower, a block at a time: it takes a block's memory, however many items."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from zhiyin.data.prepared import Prepared
from zhiyin.data.tables import Table
from zhiyin.features.base import Encoded
from zhiyin.features.schema import Schema, encode
from zhiyin.indexes.base import Vectors
from zhiyin.models.base import Items, RetrievalModel

BLOCK = 2048
"""Items at a time: what their way through a tower needs stays in the processor's cache."""


def item_blocks(schema: Schema, data: Prepared, size: int = BLOCK) -> Iterator[Items]:
    """All items in the order of their rows, `size` at a time; only their part of the item table is read and encoded."""
    for start in range(0, len(data.items), size):
        rows = torch.arange(start, min(start + size, len(data.items)))
        part = Table(data.item_table.arrow.slice(start, len(rows)))
        encoded = encode(schema.item, part, "items")
        yield Items(rows, {name: _tensor(column) for name, column in encoded.items()})


@torch.inference_mode()
def item_vectors(model: RetrievalModel, items: Items) -> Vectors:
    """[m, d] these items' vectors."""
    vectors: Vectors = model.item_vectors(items).numpy()
    return vectors


def write_vectors(model: RetrievalModel, blocks: Iterable[Items], count: int, path: Path) -> Vectors:
    """[count, d] the vectors of all `count` items in `blocks`, in a new file that is memory-mapped when it is whole.

    Plain writes, not through the map: a full disk is an `OSError` then, and not the end of the process.
    """
    with path.open("xb") as file:
        for place, items in enumerate(blocks):
            vectors = np.ascontiguousarray(item_vectors(model, items), "<f4")
            if not place:
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, vectors.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(vectors.data)
    written: Vectors = np.load(path, mmap_mode="r")
    return written


def _tensor(column: Encoded) -> torch.Tensor:
    kind = np.int64 if np.issubdtype(column.dtype, np.integer) else np.float32
    return torch.from_numpy(np.ascontiguousarray(column, kind))
