"""How long does it take to prepare a log, and how much memory? Beside torch-rechub 0.9.0 where that survives.

    python benchmarks/prepare.py [--sizes 100000 1000000 20000000] [--repeats 3] [--peer-up-to 1000000]

Both read the same Parquet file (string ids, 20 events a user on average). Ours: ids to rows, checks, sorted event log,
written to disk. torch-rechub: label encoding, `generate_seq_feature_match` without negatives, `gen_model_input` with
histories of 50; nothing written. Each run is a process of its own, ours and theirs by turns; seconds count from after
the imports, peak memory is the process's. torch-rechub lives in a virtual environment of its own, made once under the
temporary folder. Beside that: appending a twentieth to the largest log, one user of a million events, and writing a
realistic world. Writes benchmarks/results/prepare.json; what it has of other sizes stays.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "prepare.json"
PEER = "torch-rechub==0.9.0"
CACHE = Path(tempfile.gettempdir()) / "zhiyin-benchmarks"
TIMEOUT = 3600

Row = dict[str, Any]


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 20_000_000])
    read.add_argument("--repeats", type=int, default=3)
    read.add_argument("--peer-up-to", type=int, default=1_000_000, help="the largest log torch-rechub is given")
    read.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = read.parse_args()
    if given.child:
        name, *words = given.child
        import_module("zhiyin.data.sources")
        import_module("zhiyin.data.worlds")
        measured(lambda: CHILDREN[name](*map(Path, words)))
    else:
        compare(given.sizes, given.repeats, given.peer_up_to)


def compare(sizes: list[int], repeats: int, peer_up_to: int) -> None:
    peer = peer_python() if peer_up_to >= min(sizes) else "not asked"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for size in sizes:
            write_log(folder / f"{size}.parquet", size)
            rows += sized(folder, size, repeats, peer if size <= peer_up_to else "not asked at this size")
        rows += beside(folder, max(sizes), repeats)
    print_table(rows)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine(), "peer": PEER, "rows": [*kept(rows), *rows]}, indent=2) + "\n")


def kept(rows: list[Row]) -> list[Row]:
    """What was found earlier of sizes that were not asked for now."""
    earlier: list[Row] = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    found = {(row["what"], row["events"]) for row in rows}
    return [row for row in earlier if (row["what"], row["events"]) not in found]


def sized(folder: Path, size: int, repeats: int, peer: Path | str) -> list[Row]:
    """Ours and theirs by turns on one file."""
    path, ours, theirs = folder / f"{size}.parquet", [], []
    failed = peer if isinstance(peer, str) else ""
    for _ in range(repeats):
        ours.append(child([sys.executable, __file__, "--child", "prepare", str(path), str(folder / "prepared")]))
        if not failed and isinstance(peer, Path):
            theirs.append(child([str(peer), "-c", PEER_SCRIPT, str(path)]))
            failed = theirs[-1].get("failed", "")
    row = {"what": "prepare", "events": size} | median(ours)
    if failed:
        return [row | {"peer": failed}]
    other = median(theirs)
    ratios = {"times_faster": other["seconds"] / row["seconds"], "times_less_cpu": other["cpu"] / row["cpu"]}
    return [row | {"peer": other} | {name: round(ratio, 1) for name, ratio in ratios.items()}]


def beside(folder: Path, size: int, repeats: int) -> list[Row]:
    """Appending, a giant user, and writing a world."""
    more, all_in = size // 20, folder / f"{size}.parquet"
    write_log(folder / "more.parquet", more, users=max(1, size // 20), seed=1)
    write_giant(folder / "giant.parquet")
    rows, told = [], {"append": (more, folder / "more.parquet"), "giant": (1_000_000, folder / "giant.parquet")}
    child([sys.executable, __file__, "--child", "prepare", str(all_in), str(folder / "grown")])
    for name, (events, path) in told.items():
        target = folder / ("grown" if name == "append" else "one")
        action = "append" if name == "append" else "prepare"
        runs = [
            child([sys.executable, __file__, "--child", action, str(path), str(target)])
            for _ in range(1 if name == "append" else repeats)
        ]
        what = f"append to {size:,}" if name == "append" else "prepare one giant user"
        rows.append({"what": what, "events": events} | median(runs))
    world = [child([sys.executable, __file__, "--child", "world", str(folder / str(size))])]
    return [*rows, {"what": "write a realistic world", "events": size} | median(world)]


def child(command: list[str]) -> Row:
    """What `measured` told in another process, or why it could not."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"failed": lines[-1]}
    told: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return told


def measured(act: Callable[[], object]) -> None:
    idle, wall, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
    act()
    told = {
        "seconds": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "imports_mb": idle / 1024,
    }
    print(json.dumps(told))


def median(runs: list[Row]) -> Row:
    failed = [run["failed"] for run in runs if "failed" in run]
    if failed:
        raise SystemExit(f"a run failed: {failed[0]}")
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]} | {"runs": len(runs)}


def prepare_child(path: Path, folder: Path) -> None:
    from zhiyin.data.sources import Source, prepare

    prepare(Source(path, time_unit="ms"), folder)


def append_child(path: Path, folder: Path) -> None:
    from zhiyin.data.sources import Source, append

    append(Source(path, time_unit="ms"), folder)


def world_child(folder: Path) -> None:
    from zhiyin.data.worlds import realistic

    events = int(folder.name)
    realistic(max(1, events // 20), item_count(events), events, 0).write(folder)


CHILDREN: dict[str, Callable[..., None]] = {"prepare": prepare_child, "append": append_child, "world": world_child}


def write_log(path: Path, events: int, users: int = 0, seed: int = 0) -> None:
    from zhiyin.data import worlds

    worlds.write_log(path, users or max(1, events // 20), events, item_count(events), seed)


def item_count(events: int) -> int:
    return min(200_000, max(1000, events // 5))


def write_giant(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    random = np.random.default_rng(0)
    items = pa.array(random.integers(200_000, size=1_000_000)).cast(pa.string())
    times = random.integers(1_700_000_000_000, 1_707_000_000_000, 1_000_000)
    pa.parquet.write_table(pa.table({"user": ["giant"] * 1_000_000, "item": items, "time": times}), path)


def peer_python() -> Path | str:
    """The interpreter of torch-rechub's own environment, made when it is not there; or why there is none."""
    home = CACHE / PEER.replace("==", "-")
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"installing {PEER} into an environment of its own, once")
        venv.create(home, with_pip=True, clear=True)
        for wanted in (["torch==2.13.0"], [PEER, "pyarrow"]):
            done = subprocess.run(
                [str(python), "-m", "pip", "install", "--quiet", *wanted], capture_output=True, text=True, check=False
            )
            if done.returncode:
                return f"{wanted[0]} could not be installed"
        (home / "ready").touch()
    return python


PEER_SCRIPT = """
import contextlib, io, json, resource, sys, time
import numpy as np
import pandas as pd
from sklearn.preprocessing import LabelEncoder
from torch_rechub.utils.match import gen_model_input, generate_seq_feature_match

idle, wall, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), time.process_time()
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    data = pd.read_parquet(sys.argv[1])
    for column in ("user", "item"):
        data[column] = LabelEncoder().fit_transform(data[column]) + 1
    users, items = data[["user"]].drop_duplicates(), data[["item"]].drop_duplicates()
    train, test = generate_seq_feature_match(data, "user", "item", "time", mode=0, neg_ratio=0)
    inputs = [gen_model_input(part, users, "user", items, "item", seq_max_len=50) for part in (train, test)]
print(json.dumps({
    "seconds": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "imports_mb": idle / 1024,
}))
"""


def machine() -> Row:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory, 1),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "duckdb": version("duckdb"),
        "zhiyin": version("zhiyin"),
    }


def print_table(rows: list[Row]) -> None:
    told = machine()
    print(f"{told['cores']} cores, {told['memory_gib']} GiB, load {told['load']}; medians; s = wall, CPU s, peak MB\n")
    print(f"{'':28}{'events':>13}{'s':>9}{'CPU s':>9}{'MB':>8}   {PEER}: s, CPU s, MB")
    for row in rows:
        peer = row.get("peer", "")
        if isinstance(peer, dict):
            peer = (
                f"{peer['seconds']:.2f} {peer['cpu']:.2f} {peer['peak_mb']:.0f}   "
                f"ours is {row['times_faster']:.0f}x faster ({row['times_less_cpu']:.0f}x less CPU)"
            )
        numbers = f"{row['seconds']:9.2f}{row['cpu']:9.2f}{row['peak_mb']:8.0f}"
        print(f"{row['what']:28}{row['events']:13,}{numbers}   {peer}")


if __name__ == "__main__":
    main()
