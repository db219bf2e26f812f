"""Does the tuned index beat what a user would find by hand, and HNSW? On any vectors, with queries of their own.

    build    every build by hand, each in a process of its own: CPU-seconds, wall seconds, bytes, and the index itself
    tune     `tune`, on 4,000 of the queries
    measure  search effort found by bisection for each build by hand (on the same queries), then all of them timed in
             turns, one query a call, in one and in two threads; overlap on 3,000 other queries; filters
    summary  the results of all, a line each

    python benchmarks/index_tuning.py build VECTORS WORK [NAME …]
    python benchmarks/index_tuning.py tune VECTORS WORK --k 100
    python benchmarks/index_tuning.py measure VECTORS WORK --k 100 --out benchmarks/results/index_tuning_1m_k100.json
    python benchmarks/index_tuning.py summary

VECTORS holds items.npy [m, d] and queries.npy [n, d] (`trained_vectors.py` makes some). A build that is not in WORK has
no line in the table.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import faiss
import numpy as np
from machine import printed

from zhiyin.indexes.auto import Auto
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.hnsw import HNSW
from zhiyin.indexes.ivf import IVFFlat
from zhiyin.indexes.ivf_pq import IVFPQ
from zhiyin.indexes.ivf_sq import IVFSQ8
from zhiyin.indexes.measuring import least_effort, overlaps
from zhiyin.indexes.scann import ScaNN
from zhiyin.indexes.tune import tune
from zhiyin.spec import used_build

ROUNDS, ROUND = 9, 60
SHARES = (1.0, 0.1, 0.01, 0.001, 0.0001)
FILTERED, TIMED = 3000, 200
RESULTS = Path(__file__).parent / "results"


def by_hand(size: int) -> dict[str, Any]:
    """What someone who knows the backends would try."""
    few, many = 2 * round(size**0.5), 4 * round(size**0.5)
    return {
        "exact": Exact(),
        "hnsw": HNSW(),
        "ivf-flat": IVFFlat(nlist=few),
        "ivf-flat-fine": IVFFlat(nlist=many),
        "ivf-sq8": IVFSQ8(nlist=few),
        "ivf-sq8-fine": IVFSQ8(nlist=many),
        "ivf-pq": IVFPQ(nlist=few),
        "ivf-pq-fine": IVFPQ(nlist=many),
        "scann": ScaNN(leaves=few),
        "scann-fine": ScaNN(leaves=many),
    }


def read(folder: Path) -> tuple[Any, Any]:
    return np.load(folder / "items.npy", mmap_mode="r"), np.load(folder / "queries.npy")


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def build_one(vectors: Any, work: Path, name: str) -> None:
    """One build in this process, and its price beside it."""
    spec, path = by_hand(len(vectors))[name], work / f"{name}.bin"
    path.unlink(missing_ok=True)
    vectors = np.array(vectors)
    before, wall = cpu(), time.perf_counter()
    index = spec.build(vectors)
    price = {"cpu_seconds": round(cpu() - before, 1), "wall_seconds": round(time.perf_counter() - wall, 1)}
    index.save(path)
    price["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
    price["file_mb"] = path.stat().st_size // 1_000_000
    (work / f"{name}.json").write_text(json.dumps(price))
    print(name, price, flush=True)


def build(arguments: argparse.Namespace) -> None:
    arguments.work.mkdir(parents=True, exist_ok=True)
    vectors, _ = read(arguments.vectors)
    for name in arguments.names or by_hand(len(vectors)):
        command = [sys.executable, __file__, "build-one", str(arguments.vectors), str(arguments.work), name]
        subprocess.run(command, check=True)


def tune_one(arguments: argparse.Namespace) -> None:
    """Tune with half of the queries, and keep what was chosen."""
    vectors, queries = read(arguments.vectors)
    before, start = cpu(), time.perf_counter()
    goal = Auto(overlap=arguments.overlap, k=arguments.k, seconds=arguments.seconds)
    tuned = tune(vectors, choosing_and_held_out(queries)[0], goal, lambda text: print(text, flush=True))
    price = {"cpu_seconds": round(cpu() - before, 1), "wall_seconds": round(time.perf_counter() - start, 1)}
    path = arguments.work / f"tuned-{arguments.k}.bin"
    path.unlink(missing_ok=True)
    tuned.index.save(path)
    price["file_mb"] = path.stat().st_size // 1_000_000
    before = cpu()
    tuned.spec.build(np.array(vectors))  # what this index alone costs
    price["built_cpu_seconds"] = round(cpu() - before, 1)
    result = {"price": price, "load": os.getloadavg()[0], "measured": tuned.measured}
    (arguments.work / f"tuned-{arguments.k}.json").write_text(json.dumps(result, indent=1) + "\n")


def choosing_and_held_out(queries: Any) -> tuple[Any, Any]:
    order = np.random.default_rng(1).permutation(len(queries))
    return queries[order[:4000]], queries[order[4000:7000]]


def resident_mb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1_000_000


def effort(spec: Any, index: Any, queries: Any, truth: Any, goal: float, clock: Any) -> Any:
    """The fastest way to search this build that reaches the goal on `queries`, or None."""
    best, speed = None, 0.0
    for ladder in spec.ladders(len(index), truth.rows.shape[1]):

        def reaches(one: Any) -> tuple[bool, float]:
            share = float(overlaps(index.searched_with(one).search(queries, truth.rows.shape[1]), truth).mean())
            return share >= goal, share

        rung = least_effort(ladder, reaches)
        if rung is not None:
            taken = [clock(index.searched_with(ladder[rung]), q, truth.rows.shape[1]) for q in queries[:300, None]]
            if 1 / np.median(taken) > speed:
                best, speed = ladder[rung], 1 / np.median(taken)
    return best


def seconds(index: Any, query: Any, k: int, allowed: Any = None) -> float:
    start = time.perf_counter()
    index.search(query, k, allowed)
    return time.perf_counter() - start


def asked(index: Any, queries: Any, k: int) -> tuple[list[float], float]:
    """What each call took, and the processor's time for one on average, which busy neighbours hardly move."""
    start = time.thread_time()
    calls = [seconds(index, query, k) for query in queries[:, None]]
    return calls, (time.thread_time() - start) / max(1, len(calls))


def in_turns(indexes: dict[str, Any], queries: Any, k: int, threads: int) -> dict[str, dict[str, float]]:
    """Rounds of every index in turn, `threads` at once: the median round's queries a second, p50 and p99, and queries
    for a second of the processor's time."""
    rates: dict[str, list[float]] = {name: [] for name in indexes}
    calls: dict[str, list[float]] = {name: [] for name in indexes}
    cpus: dict[str, list[float]] = {name: [] for name in indexes}
    with ThreadPoolExecutor(threads) as pool:
        for turn in range(ROUNDS):
            places = (np.arange(ROUND * threads) + turn * ROUND * threads) % len(queries)
            for name, index in indexes.items():
                some = places[: 4 * threads] if name == "exact" else places
                start = time.perf_counter()
                parts = list(
                    pool.map(lambda part, index=index: asked(index, queries[part], k), np.array_split(some, threads))
                )
                rates[name].append(len(some) / (time.perf_counter() - start))
                calls[name] += [one for part, _ in parts for one in part]
                cpus[name] += [cpu for _, cpu in parts]
    return {
        name: {
            "queries_per_second": round(float(np.median(rates[name])), 1),
            "p50_us": round(1e6 * float(np.median(calls[name])), 1),
            "p99_us": round(1e6 * float(np.quantile(calls[name], 0.99)), 1),
            "by_p50": round(threads / float(np.median(calls[name])), 1),
            "by_cpu": round(threads / float(np.median(cpus[name])), 1),
        }
        for name in indexes
    }


def filtered(indexes: dict[str, Any], queries: Any, k: int, size: int) -> list[dict[str, Any]]:
    """Recall of the true filtered top k, p50 and p99 at every selectivity."""
    lines, exact = [], indexes["exact"]
    for share in SHARES:
        allowed = np.zeros(size, bool)
        allowed[np.random.default_rng(7).permutation(size)[: max(1, round(share * size))]] = True
        truth = exact.search(queries, k, allowed)
        for name, index in indexes.items():
            some = queries[:8] if name == "exact" else queries
            found = overlaps(index.search(some, k, allowed), type(truth)(truth.rows[: len(some)], truth.scores))
            calls = 1e6 * np.array([seconds(index, q[None], k, allowed) for q in some[:TIMED]])
            lines.append(
                {
                    "share": share,
                    "index": name,
                    "recall": round(float(found.mean()), 4),
                    "p50_us": round(float(np.median(calls)), 1),
                    "p99_us": round(float(np.quantile(calls, 0.99)), 1),
                }
            )
            print(lines[-1], flush=True)
    return lines


def measure(arguments: argparse.Namespace) -> None:
    vectors, queries = read(arguments.vectors)
    choosing, held_out = choosing_and_held_out(queries)
    k, goal = arguments.k, arguments.overlap
    exact = Exact().build(vectors)
    half = choosing[:1000]
    truth, held_truth = exact.search(half, k), exact.search(held_out, k)
    indexes: dict[str, Any] = {"exact": exact}
    lines: dict[str, dict[str, Any]] = {"exact": {"spec": "Exact()", "overlap": 1.0, "held_out": 1.0, "build": {}}}
    for name, spec in by_hand(len(vectors)).items():
        if name == "exact" or not (arguments.work / f"{name}.bin").exists():
            continue
        before, start = resident_mb(), time.perf_counter()
        index = spec.load(arguments.work / f"{name}.bin", vectors)
        opened = time.perf_counter() - start
        chosen = effort(spec, index, half, truth, goal, seconds)
        if chosen is None:
            print(name, "does not reach", goal, flush=True)
            continue
        indexes[name] = index.searched_with(chosen)
        lines[name] = line(chosen, indexes[name], half, truth, held_out, held_truth)
        lines[name]["open_seconds"] = round(opened, 3)
        lines[name]["resident_mb"] = resident_mb() - before
        lines[name]["build"] = json.loads((arguments.work / f"{name}.json").read_text())
        print(name, lines[name], flush=True)
    found = json.loads((arguments.work / f"tuned-{k}.json").read_text())
    spec = used_build(found["measured"]["chosen"]["index"], "zhiyin.indexes")
    before, start = resident_mb(), time.perf_counter()
    indexes["tuned"] = spec.load(arguments.work / f"tuned-{k}.bin", vectors)
    opened = time.perf_counter() - start
    lines["tuned"] = line(spec, indexes["tuned"], half, truth, held_out, held_truth)
    lines["tuned"] |= {"promised": found["measured"]["chosen"]["overlap"], "build": found["price"]}
    lines["tuned"] |= {"open_seconds": round(opened, 3), "resident_mb": resident_mb() - before}
    for threads in (1, 2):
        for name, speed in in_turns(indexes, held_out, k, threads).items():
            lines[name][f"threads_{threads}"] = speed
    kept: dict[str, Any] = {name: indexes[name] for name in ("exact", "tuned", "hnsw") if name in indexes}
    result = {
        "vectors": list(vectors.shape),
        "k": k,
        "target": goal,
        "machine": {"cpus": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()},
        "faiss": faiss.__version__,
        "ratios": ratios(lines),
        "indexes": lines,
        "filtered": filtered(kept, held_out[:FILTERED], k, len(vectors)),
        "tuning": found["measured"],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    table(lines)


def ratios(lines: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the median calls (and the processor's time, where it was measured) and the builds of these indexes say of
    the tuned one."""
    tuned, hnsw = lines["tuned"], lines.get("hnsw")
    hands = {name: one for name, one in lines.items() if name != "tuned"}
    found: dict[str, Any] = {"promise_less_held_out": round(tuned["promised"] - tuned["held_out"], 4)}
    for threads, by in (("threads_1", "by_p50"), ("threads_2", "by_p50"), ("threads_1", "by_cpu")):
        if by in tuned[threads]:
            best = max(hands, key=lambda name: float(hands[name][threads][by]))
            found[threads if by == "by_p50" else by] = {
                "best_by_hand": best,
                "tuned_to_best": round(tuned[threads][by] / hands[best][threads][by], 3),
                "tuned_to_hnsw": round(tuned[threads][by] / hnsw[threads][by], 2) if hnsw else None,
            }
    if hnsw and "built_cpu_seconds" in tuned["build"]:
        found["build_to_hnsw"] = round(tuned["build"]["built_cpu_seconds"] / hnsw["build"]["cpu_seconds"], 3)
        found["tuning_to_hnsw_build"] = round(tuned["build"]["cpu_seconds"] / hnsw["build"]["cpu_seconds"], 3)
    return found


def summary() -> None:
    """A line for each result."""
    rows = []
    for path in sorted(RESULTS.glob("index_tuning_*.json")):
        found = json.loads(path.read_text())
        tuned = found["indexes"]["tuned"]
        compared = found.get("ratios") or ratios(found["indexes"])
        rows.append({"vectors": path.stem.removeprefix("index_tuning_"), "tuned": tuned["spec"].split(", seed")[0]})
        rows[-1] |= {"promised": tuned["promised"], "held out": tuned["held_out"]}
        for threads in (1, 2):
            rows[-1] |= {f"to best, {threads}": compared[f"threads_{threads}"]["tuned_to_best"]}
            rows[-1] |= {f"to HNSW, {threads}": compared[f"threads_{threads}"]["tuned_to_hnsw"]}
        rows[-1] |= {"best by hand": compared["threads_1"]["best_by_hand"]}
        rows[-1] |= {"build to HNSW's": compared.get("build_to_hnsw")}
        rows[-1] |= {"least filtered": min(one["recall"] for one in found["filtered"] if one["index"] == "tuned")}
    printed(rows)


def line(spec: Any, index: Any, half: Any, truth: Any, held_out: Any, held_truth: Any) -> dict[str, Any]:
    k = truth.rows.shape[1]
    return {
        "spec": str(spec),
        "overlap": round(float(overlaps(index.search(half, k), truth).mean()), 4),
        "held_out": round(float(overlaps(index.search(held_out, k), held_truth).mean()), 4),
    }


def table(lines: dict[str, dict[str, Any]]) -> None:
    print("| index | overlap | held out | q/s 1 thread | q/s 2 threads | p50 / p99 µs | build CPU-s | MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, one in sorted(lines.items(), key=lambda pair: -pair[1]["threads_1"]["queries_per_second"]):
        first, second = one["threads_1"], one["threads_2"]
        print(
            f"| {name} | {one['overlap']} | {one['held_out']} | {first['queries_per_second']:.0f} | "
            f"{second['queries_per_second']:.0f} | {first['p50_us']:.0f} / {first['p99_us']:.0f} | "
            f"{one['build'].get('cpu_seconds', 0)} | {one['build'].get('file_mb', '')} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("summary")
    for name in ("build", "build-one", "tune", "measure"):
        one = commands.add_parser(name)
        one.add_argument("vectors", type=Path)
        one.add_argument("work", type=Path)
        if name in ("build", "build-one"):
            one.add_argument("names", nargs="*")
            continue
        one.add_argument("--k", type=int, default=100)
        one.add_argument("--overlap", type=float, default=0.95)
        if name == "tune":
            one.add_argument("--seconds", type=float, default=180.0)
        else:
            one.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "summary":
        summary()
    elif arguments.command == "build-one":
        build_one(read(arguments.vectors)[0], arguments.work, arguments.names[0])
    else:
        {"build": build, "tune": tune_one, "measure": measure}[arguments.command](arguments)


if __name__ == "__main__":
    main()
