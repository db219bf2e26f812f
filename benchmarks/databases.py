"""What does an index in a vector database cost beside one in this process? Both databases' embedded engines, which are
not their servers: Milvus Lite behind its own gRPC, in this process, and the engine that Qdrant's client brings.

    python benchmarks/databases.py [VECTORS] [--rows 100000] [--queries 200] [--k 100] [--out …/databases.json]

VECTORS holds items.npy [m, d] and queries.npy [n, d]; without it, unit vectors round 2,000 centres are drawn. Each
index is built, then asked by turns: queries a second, one a call (the median call); queries a CPU-second of this
process, 32 a call, which a busy neighbour does not move; overlap@k with exact search; and the same under a filter that
lets a tenth pass. What a call costs whatever it asks is told by `calls`: a search for one row of a catalogue of 64.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, printed

from zhiyin.indexes.base import Allowed, Index, IndexSpec, Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.hnsw import HNSW
from zhiyin.indexes.measuring import overlaps
from zhiyin.indexes.milvus import Milvus
from zhiyin.indexes.qdrant import Qdrant

RESULTS = Path(__file__).parent / "results" / "databases.json"
TOGETHER, SHARE, TINY = 32, 0.1, 64


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("vectors", type=Path, nargs="?")
    read.add_argument("--rows", type=int, default=100_000)
    read.add_argument("--queries", type=int, default=200)
    read.add_argument("--k", type=int, default=100)
    read.add_argument("--out", type=Path, default=RESULTS)
    given = read.parse_args()
    warnings.filterwarnings("ignore", message="Local mode is not recommended")  # it is what is measured
    vectors, queries = read_vectors(given.vectors) if given.vectors else drawn(given.rows, given.queries)
    vectors, queries = np.array(vectors[: given.rows]), queries[: given.queries]
    with tempfile.TemporaryDirectory() as folder:
        specs: dict[str, IndexSpec] = {
            "exact": Exact(),
            "hnsw": HNSW(),
            "milvus lite, hnsw": Milvus(path=Path(folder) / "lite.db", timeout=60.0),
            "milvus lite, flat": Milvus(path=Path(folder) / "flat.db", name="flat", kind="FLAT", timeout=60.0),
            "qdrant in process, exact": Qdrant(uri=":memory:", timeout=60.0),
        }
        built = {name: timed_build(spec, vectors) for name, spec in specs.items()}
        small = {name: spec.build(vectors[:TINY]) for name, spec in specs.items()}
        rows = measure({name: index for name, (index, _) in built.items()}, small, vectors, queries, given.k)
        for row in rows:
            row["build s"] = round(built[row["index"]][1], 1)
    printed(rows)
    told = {"rows": len(vectors), "dim": vectors.shape[1], "k": given.k, "queries": len(queries), "indexes": rows}
    packages = {name: version(name) for name in ("pymilvus", "milvus-lite", "qdrant-client", "faiss-cpu")}
    given.out.write_text(json.dumps({"machine": {**machine(), **packages}, **told}, indent=1) + "\n")


def read_vectors(folder: Path) -> tuple[Vectors, Vectors]:
    return np.load(folder / "items.npy", mmap_mode="r"), np.load(folder / "queries.npy")


def drawn(rows: int, queries: int, dim: int = 64) -> tuple[Vectors, Vectors]:
    random = np.random.default_rng(0)
    centres = random.standard_normal((2000, dim))
    spread = 0.7 * random.standard_normal((rows + queries, dim))
    vectors = centres[random.integers(0, len(centres), rows + queries)] + spread
    unit: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit[:rows], unit[rows:]


def timed_build(spec: IndexSpec, vectors: Vectors) -> tuple[Index, float]:
    before = time.perf_counter()
    return spec.build(vectors), time.perf_counter() - before


def measure(
    indexes: dict[str, Index], small: dict[str, Index], vectors: Vectors, queries: Vectors, k: int
) -> list[dict[str, Any]]:
    exact = Exact().build(vectors)
    allowed = np.random.default_rng(0).random(len(vectors)) < SHARE
    truths = {None: exact.search(queries, k), SHARE: exact.search(queries, k, allowed)}
    alone: dict[str, list[float]] = {name: [] for name in indexes}
    filtered: dict[str, list[float]] = {name: [] for name in indexes}
    together: dict[str, list[float]] = {name: [] for name in indexes}
    calls: dict[str, list[float]] = {name: [] for name in indexes}
    for at in range(len(queries)):
        for name, index in indexes.items():
            one = queries[at : at + 1]
            alone[name].append(seconds(index, one, k))
            filtered[name].append(seconds(index, one, k, allowed))
            calls[name].append(seconds(small[name], one, 1))
            if at % 8 == 0:
                part = np.roll(queries, -at, axis=0)[:TOGETHER]
                together[name].append(seconds(index, part, k, clock=time.process_time) / len(part))
    return [
        {
            "index": name,
            "q/s, 1 a call": round(1 / statistics.median(alone[name]), 1),
            f"q/CPU-s, {TOGETHER} a call": round(1 / statistics.median(together[name]), 1),
            "overlap": round(float(overlaps(index.search(queries, k), truths[None]).mean()), 4),
            f"q/s, {SHARE:.0%} pass": round(1 / statistics.median(filtered[name]), 1),
            f"overlap, {SHARE:.0%} pass": round(
                float(overlaps(index.search(queries, k, allowed), truths[SHARE]).mean()), 4
            ),
            "calls ms": round(1e3 * statistics.median(calls[name]), 2),
        }
        for name, index in indexes.items()
    ]


def seconds(
    index: Index,
    queries: Vectors,
    k: int,
    allowed: Allowed | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    before = clock()
    index.search(queries, k, allowed)
    return clock() - before


if __name__ == "__main__":
    main()
