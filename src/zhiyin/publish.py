"""A trained model becomes a release that has proved itself.

Built in a hidden folder beside the others, opened there as the server will, and only when its towers and its index
agree with the trained model is it renamed into place and made live by a second rename. Whatever goes wrong, the release
that was live stays live.
"""

import errno
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zhiyin import spec
from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import Rows
from zhiyin.errors import ReleaseError
from zhiyin.features.schema import Schema
from zhiyin.indexes.base import IndexSpec, Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.overlap import overlap
from zhiyin.models.base import Items, Queries, RetrievalModel
from zhiyin.release import FORMAT, MANIFEST, Release, Releases, checksums, manifest_digest, sync_folder

PARITY = 1e-4
"""The largest difference allowed between a vector from torch and the same from ONNX."""

GOLDEN = 64
"""Queries that every release carries with the vectors its model gave them."""

POPULAR = 10_000
"""Rows that the fallback keeps."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What the index must show before a release goes live: at least `overlap` of the exact top `k`, over `queries`
    held-out users' vectors."""

    overlap: float = 0.95
    k: int = 100
    queries: int = 500


def publish(
    model: RetrievalModel,
    schema: Schema,
    data: Prepared,
    *,
    items: Items,
    sample: Queries,
    popular: Rows,
    index: IndexSpec,
    root: Path,
    id: str,
    facts: Mapping[str, Any],
    promise: Promise = Promise(),
) -> Release:
    """Build, prove and make live one release, and return it open.

    `items`: the whole catalogue, one row each; `sample`: held-out queries, for parity and overlap; `popular`: rows,
    most popular first; `id`: sorts after every older release's; `facts`: whatever else the manifest should say
    (metrics, model, when). Raises `ReleaseError` when towers or index do not prove themselves, when the disk is full,
    or when the id is taken; nothing is left behind then.
    """
    root.mkdir(parents=True, exist_ok=True)
    if (root / id).exists():
        raise ReleaseError(f"the release '{id}' exists", where=str(root), remedy="Publish under another id.")
    hidden = root / f".building-{id}"
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        users = _build(hidden, model.cpu().eval(), schema, data, items, sample, popular, index)
        _write_manifest(hidden, id, schema, index, {**facts, "items": len(data.items)})
        release = Release.open(hidden)
        proof = prove(release, hidden, users, promise)
        _write_manifest(hidden, id, schema, index, {**facts, "items": len(data.items), "proof": proof})
        _sync(hidden)
        hidden.rename(root / id)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise ReleaseError(
                f"no space left while publishing '{id}' ({error.strerror})",
                where=str(root),
                remedy="Free some space, or remove old releases with `zhiyin releases --prune 3`; the live release is "
                "untouched.",
            ) from None
        raise
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    Releases(root).point(id)
    return Release.open(root / id)


def prove(release: Release, folder: Path, users: Vectors, promise: Promise) -> dict[str, float]:
    """How far the open release is from the trained model: tower parity on the golden queries, overlap@k of the index
    with exact search for users [n, h, d]. Raises `ReleaseError` where either breaks its promise."""
    golden = folder / "golden"
    inputs = {path.stem: np.load(path) for path in golden.glob("inputs/*.npy")}
    parity = float(np.abs(release.user_tower(inputs) - np.load(golden / "user_vectors.npy")).max())
    rows = np.load(golden / "item_inputs" / "rows.npy")
    item_inputs = {path.stem: np.load(path) for path in golden.glob("item_inputs/*.npy")}
    parity = max(parity, float(np.abs(release.item_tower(item_inputs) - release.vectors[rows]).max()))
    if not parity <= PARITY:
        raise ReleaseError(
            f"the exported towers differ from the trained ones by {parity:.2g}",
            expected=f"at most {PARITY:.0e}",
            remedy="Nothing was published. If the vectors are very long, raise the temperature or normalise them.",
        )
    queries = np.ascontiguousarray(users[: promise.queries].reshape(-1, users.shape[-1]))
    k = min(promise.k, len(release.items))
    found = overlap(release.index.search(queries, k), Exact().build(release.vectors).search(queries, k))
    if found < promise.overlap:
        raise ReleaseError(
            f"the index finds {found:.3f} of the exact top {k}",
            expected=f"at least {promise.overlap}",
            remedy="Nothing was published. Raise ef_search (hnsw) or nprobe (ivf), or use exact:Exact.",
        )
    return {"parity": parity, "overlap": found, "k": k, "queries": len(queries)}


def export_user_tower(model: RetrievalModel, sample: Queries, path: Path) -> None:
    """Write the user tower as ONNX; inputs are named as the sample's columns, any number of queries may be asked."""
    inputs = {"history": sample.history, **sample.columns}
    _export(_UserTower(model, list(sample.columns)), inputs, path)


def export_item_tower(model: RetrievalModel, sample: Items, path: Path) -> None:
    """Write the item tower likewise."""
    inputs = {"rows": sample.rows, **sample.columns}
    _export(_ItemTower(model, list(sample.columns)), inputs, path)


def _build(
    hidden: Path,
    model: RetrievalModel,
    schema: Schema,
    data: Prepared,
    items: Items,
    sample: Queries,
    popular: Rows,
    index: IndexSpec,
) -> Vectors:
    """Write every file but the manifest; the sample's user vectors [n, h, d]."""
    hidden.mkdir()
    data.items.save(hidden / "items")
    vectors = _item_vectors(model, items)
    np.save(hidden / "vectors.npy", vectors)
    index.build(vectors).save(hidden / "index.bin")
    np.save(hidden / "popular.npy", popular[:POPULAR])
    with torch.inference_mode():
        users = model.user_vectors(sample).numpy()
    user_inputs = {"history": sample.history, **sample.columns}
    item_inputs = {"rows": items.rows, **items.columns}
    export_user_tower(model, sample, hidden / "user_tower.onnx")
    export_item_tower(model, items, hidden / "item_tower.onnx")
    _save_arrays(hidden / "golden" / "inputs", _first(user_inputs, GOLDEN))
    _save_arrays(hidden / "golden" / "item_inputs", _first(item_inputs, GOLDEN))
    np.save(hidden / "golden" / "user_vectors.npy", users[:GOLDEN])
    return np.ascontiguousarray(users)


def _item_vectors(model: RetrievalModel, items: Items, block: int = 8192) -> Vectors:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(items.rows), block):
            part = slice(start, start + block)
            columns = {name: column[part] for name, column in items.columns.items()}
            parts.append(model.item_vectors(Items(items.rows[part], columns)))
    return np.ascontiguousarray(torch.cat(parts).numpy())


class _UserTower(nn.Module):
    """The user tower as a function of tensors, for the exporter."""

    def __init__(self, model: RetrievalModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, history: Tensor, *columns: Tensor) -> Tensor:
        return self.model.user_vectors(Queries(history, dict(zip(self.names, columns, strict=True))))


class _ItemTower(nn.Module):
    """The item tower likewise."""

    def __init__(self, model: RetrievalModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, rows: Tensor, *columns: Tensor) -> Tensor:
        return self.model.item_vectors(Items(rows, dict(zip(self.names, columns, strict=True))))


def _export(tower: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Write one tower as ONNX, traced on two rows (the exporter takes one row for a constant)."""
    first, *columns = (torch.cat([tensor[:2]] * 2)[:2] for tensor in inputs.values())
    shapes: tuple[Any, ...] = ({0: torch.export.Dim.DYNAMIC},)
    if columns:  # where a signature ends in *columns the exporter wants no shapes for none
        shapes += (tuple({0: torch.export.Dim.DYNAMIC} for _ in columns),)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the exporter's own, of no use to whoever publishes
        torch.onnx.export(
            tower,
            (first, *columns),
            path,
            input_names=list(inputs),
            output_names=["vectors"],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _first(inputs: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {name: tensor[:count] for name, tensor in inputs.items()}


def _save_arrays(folder: Path, inputs: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True)
    for name, tensor in inputs.items():
        np.save(folder / f"{name}.npy", tensor.numpy())


def _write_manifest(folder: Path, id: str, schema: Schema, index: IndexSpec, facts: Mapping[str, Any]) -> None:
    manifest = {
        "format": FORMAT,
        "id": id,
        "schema": spec.table(schema),
        "index": spec.used_table(index, "zhiyin.indexes"),
        **facts,
        "files": checksums(folder),
    }
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder, folder.parent):
        sync_folder(path)
