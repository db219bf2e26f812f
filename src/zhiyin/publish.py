"""A trained model becomes a release that has proved itself.

Built in a hidden folder beside the others, opened there as the server will, and only when its towers and its index
agree with the trained model is it renamed into place and made live by a second rename. Whatever goes wrong, the release
that was live stays live.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zhiyin import signing, spec
from zhiyin.data.attributes import Attributes
from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import Rows
from zhiyin.errors import ReleaseError, SearchError
from zhiyin.features.bag import Bag
from zhiyin.features.schema import Schema
from zhiyin.indexes.auto import Auto
from zhiyin.indexes.base import HostedSpec, IndexSpec, Vectors
from zhiyin.indexes.overlap import overlap
from zhiyin.indexes.truth import truth
from zhiyin.indexes.tune import Tuned, choose
from zhiyin.manifest import FORMAT, checksums, manifest_digest, signed_part, written
from zhiyin.models.base import Items, Queries, RetrievalModel
from zhiyin.models.catalogue import item_blocks, item_vectors, items_of, write_vectors
from zhiyin.places.base import MANIFEST
from zhiyin.release import ATTRIBUTES, CHANNELS, INDEX, Arrays, Release, Tower
from zhiyin.releases import Building, Releases

PARITY = 1e-4
"""The largest difference allowed between a vector from torch and the same from ONNX."""

GOLDEN = 64
"""Queries that every release carries with the vectors its model gave them."""

POPULAR = 10_000
"""Rows that the fallback keeps."""

INSIDE = 1 << 24
"""Bytes of weights that a tower's own file holds. Those of a larger one lie in a second file beside it: no protobuf may
be over 2 GB, and ONNX Runtime maps that file into memory instead of reading it."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What the index must show before a release goes live: at least `overlap` of the exact top `k`, over `queries`
    held-out users' vectors; a tuned one over all that it was tuned with."""

    overlap: float = 0.95
    k: int = 100
    queries: int = 500


def publish(
    model: RetrievalModel,
    schema: Schema,
    data: Prepared,
    *,
    sample: Queries,
    popular: Rows,
    index: IndexSpec | Auto,
    root: Path | Releases,
    id: str,
    facts: Mapping[str, Any],
    promise: Promise = Promise(),
    tables: Mapping[str, Arrays] = MappingProxyType({}),
    watch: Callable[[str], None] = lambda _: None,
    nameless: Tensor | None = None,
) -> Release:
    """Build, prove and make live one release, and return it open.

    `sample`: held-out queries, for parity, overlap and tuning; `popular`: rows, most popular first; `index`: which one,
    or what is to be reached (then it is tuned); `root`: the folder of the releases, or the releases themselves; `id`:
    sorts after every older release's; `facts`: whatever else the manifest should say (metrics, model, when); `tables`:
    what channels want to find, by the channel's name; `watch`: is told what is being done; `nameless` int64: rows of
    items that are new ones to the item tower. Raises `ReleaseError` when towers or index do not prove themselves, when
    it cannot be written (a full disk), when the id is taken, or when another publish is under way; nothing is left
    behind then. Raises it, too, where the release is live but the alias in a database did not follow.
    """
    releases = root if isinstance(root, Releases) else Releases(root)
    releases.refuse_keys()
    facts = {**facts, "items": len(data.items)}
    try:
        with releases.publishing(id) as building, _cleared(building, index):
            hidden = building.folder
            users, chosen = _build(hidden, model.cpu().eval(), schema, data, sample, popular, index, watch, nameless)
            if chosen.measured:
                facts = {**facts, "tuning": chosen.measured}
            watch("attributes and checksums")
            facts = {**facts, "attributes": _save_attributes(hidden, schema, data)}
            for channel, arrays in tables.items():
                _save_arrays(hidden / CHANNELS / channel, arrays)
            _write_manifest(hidden, id, schema, chosen.spec, facts)
            watch("opening")
            release = Release.open(hidden)
            watch("proving")
            proof = prove(release, hidden, users, promise)
            watch("checksums and going live")
            manifest = _write_manifest(hidden, id, schema, chosen.spec, {**facts, "proof": proof}, releases.sign)
            building.go_live()
    except OSError as error:
        raise ReleaseError(
            f"'{id}' could not be written ({error.strerror or error})",
            where=str(releases.root),
            remedy="Look at the disk and its space (`zhiyin releases RECIPE --prune 3` frees some). Nothing was "
            "published; the live release is untouched.",
        ) from error
    return replace(release, manifest=manifest)


@contextmanager
def _cleared(building: Building, index: IndexSpec | Auto) -> Iterator[None]:
    """What fails in the block leaves nothing in a server that the index lives in, unless the release is live."""
    try:
        yield
    except BaseException:
        receipt = building.folder / INDEX
        if isinstance(index, HostedSpec) and receipt.exists() and not building.is_live:
            with suppress(SearchError):  # often why it was not published
                index.retire(receipt)
        raise


def prove(release: Release, folder: Path, users: Vectors, promise: Promise) -> dict[str, float]:
    """How far the open release is from the trained model: tower parity on the golden queries, overlap@k of the index
    with exact search for users [n, h, d]. Raises `ReleaseError` where either breaks its promise."""
    golden = folder / "golden"
    inputs = {path.stem: np.load(path) for path in golden.glob("inputs/*.npy")}
    parity = float(np.abs(release.user_tower(inputs) - np.load(golden / "user_vectors.npy")).max())
    item_inputs = {path.stem: np.load(path) for path in golden.glob("item_inputs/*.npy")}
    wanted = np.load(golden / "item_vectors.npy")
    for found_vectors in (release.item_tower(item_inputs), release.vectors[np.load(golden / "item_rows.npy")]):
        parity = max(parity, float(np.abs(found_vectors - wanted).max()))
    if not parity <= PARITY:
        raise ReleaseError(
            f"the exported towers differ from the trained ones by {parity:.2g}",
            expected=f"at most {PARITY:.0e}",
            remedy="Nothing was published. If the vectors are very long, raise the temperature or normalise them.",
        )
    asked = len(users) if "tuning" in release.manifest else promise.queries  # a part alone may miss a target by chance
    queries = np.ascontiguousarray(users[:asked].reshape(-1, users.shape[-1]))
    k = min(promise.k, len(release.items))
    found = overlap(release.index.search(queries, k), truth(release.vectors, queries, k))
    if found < promise.overlap:
        raise ReleaseError(
            f"the index finds {found:.3f} of the exact top {k}",
            expected=f"at least {promise.overlap}",
            remedy="Nothing was published. Raise ef_search (hnsw), nprobe (ivf) or overlap (auto), or use exact:Exact.",
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
    sample: Queries,
    popular: Rows,
    index: IndexSpec | Auto,
    watch: Callable[[str], None],
    nameless: Tensor | None,
) -> tuple[Vectors, Tuned]:
    """Write every file but the manifest; the sample's user vectors [n, h, d], and the index."""
    watch("item tower")
    some = np.unique(np.linspace(0, len(data.items) - 1, GOLDEN, dtype=np.int64))
    golden = items_of(schema, data, some.tolist(), nameless)
    export_item_tower(model, golden, hidden / "item_tower.onnx")
    _save_arrays(hidden / "golden" / "item_inputs", _first({"rows": golden.rows, **golden.columns}, GOLDEN))
    np.save(hidden / "golden" / "item_rows.npy", some)
    np.save(hidden / "golden" / "item_vectors.npy", item_vectors(model, golden))
    watch("item vectors")
    data.items.save(hidden / "items")
    tower = exported_tower(hidden / "item_tower.onnx")
    blocks = item_blocks(schema, data, nameless=nameless)
    vectors = write_vectors(tower, blocks, len(data.items), hidden / "vectors.npy", os.cpu_count() or 1)
    watch("user vectors")
    with torch.inference_mode():
        users = np.ascontiguousarray(model.user_vectors(sample).numpy())
    watch("index")
    chosen = choose(index, vectors, users.reshape(-1, users.shape[-1]), lambda words: watch(f"index: {words}"))
    chosen.index.save(hidden / INDEX)
    watch("user tower")
    np.save(hidden / "popular.npy", popular[:POPULAR])
    export_user_tower(model, sample, hidden / "user_tower.onnx")
    _save_arrays(hidden / "golden" / "inputs", _first({"history": sample.history, **sample.columns}, GOLDEN))
    np.save(hidden / "golden" / "user_vectors.npy", users[:GOLDEN])
    return users, chosen


def exported_tower(path: Path) -> Callable[[Items], Vectors]:
    """The item tower as ONNX Runtime runs it: about twice as fast as torch. Safe from many threads at once."""
    tower = Tower(path)
    return lambda items: tower({"rows": items.rows.numpy(), **{name: c.numpy() for name, c in items.columns.items()}})


def _save_attributes(hidden: Path, schema: Schema, data: Prepared) -> dict[str, str]:
    """Write what filters read; the name and the kind of each attribute. Text that a bag feature parts is a list."""
    bags = {one.column or one.name: one.separator for one in schema.item if isinstance(one, Bag)}
    attributes = Attributes.of(data.item_table, bags)
    attributes.save(hidden / ATTRIBUTES)
    return dict(attributes.kinds)


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
    rows = {0: torch.export.Dim.DYNAMIC}
    shapes = (rows, (rows,) * len(columns)) if columns else (rows,)
    with _quiet(), torch.inference_mode():
        program = torch.onnx.export(
            tower,
            (first, *columns),
            input_names=list(inputs),
            output_names=["vectors"],
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ReleaseError("the exporter made nothing", where=path.name)
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces and paths of this machine: of no use to a server
    weights = sum(
        one.const_value.nbytes for one in program.model.graph.initializers.values() if one.const_value is not None
    )
    program.save(path, external_data=weights > INSIDE)


@contextmanager
def _quiet() -> Iterator[None]:
    """What the exporter logs and warns of (that torchvision, which no tower needs, is not installed) is of no use."""
    exporter = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(level)


def _first(inputs: Mapping[str, Tensor], count: int) -> Arrays:
    return {name: tensor[:count].numpy() for name, tensor in inputs.items()}


def _save_arrays(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def _write_manifest(
    folder: Path, id: str, schema: Schema, index: IndexSpec, facts: Mapping[str, Any], key: Path | None = None
) -> dict[str, Any]:
    manifest = {
        "format": FORMAT,
        "id": id,
        "schema": spec.table(schema, whole=True),
        "index": spec.used_table(index, "zhiyin.indexes", whole=True),
        **facts,
        "files": checksums(folder),
    }
    if key:
        manifest["signature"] = signing.sign(signed_part(manifest), key)
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_bytes(written(manifest))
    return manifest
