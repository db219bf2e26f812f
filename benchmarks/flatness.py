"""Does a step cost the same with ten thousand items and with ten million?

    python benchmarks/flatness.py [--sizes 10000 100000 1000000 10000000] [--repeats 3] [--steps 60]

The same log (20,000 users, a million events) over catalogues of different sizes; YouTubeDNN, batch 4,096, 512 shared
negatives with logQ, row-wise Adagrad. The log is prepared beforehand, and memory-mapped as for any training. Each size
is a process of its own, the sizes take turns. Step time is the median; peak memory is the process's while it trains,
beside the table and its optimiser's state. Writes benchmarks/results/flatness.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import machine, printed

RESULTS = Path(__file__).parent / "results" / "flatness.json"
USERS, EVENTS, DIM, LENGTH = 20_000, 1_000_000, 64, 50


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    read.add_argument("--repeats", type=int, default=3)
    read.add_argument("--steps", type=int, default=60)
    read.add_argument("--make", type=int, help=argparse.SUPPRESS)
    read.add_argument("--child", type=int, help=argparse.SUPPRESS)
    read.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = read.parse_args()
    if given.make:
        make(given.make, given.folder)
        return
    if given.child:
        print(json.dumps(child(given.child, given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for size in given.sizes:
            asked("--make", size, given.steps, Path(folder))
        runs: dict[int, list[dict[str, Any]]] = {size: [] for size in given.sizes}
        for _ in range(given.repeats):
            for size in given.sizes:
                runs[size].append(json.loads(asked("--child", size, given.steps, Path(folder))))
    report(runs)


def asked(what: str, size: int, steps: int, folder: Path) -> str:
    """The last line of what a process of its own says."""
    command = [sys.executable, __file__, what, str(size), "--steps", str(steps), "--folder", str(folder / str(size))]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5000"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout.rstrip().rpartition("\n")[2]


def make(size: int, folder: Path) -> None:
    """Prepare the log with so many items, in a process that ends."""
    import numpy as np

    from zhiyin.data import worlds
    from zhiyin.data.events import EventLog
    from zhiyin.data.prepared import Prepared
    from zhiyin.data.tables import Table
    from zhiyin.data.vocabulary import Vocabulary

    log = worlds.log(USERS, EVENTS, size, seed=0)
    events = EventLog.of(log.users.astype(np.int32), log.items.astype(np.int32), log.times, user_count=USERS)
    users, items = Vocabulary.of(map(str, range(USERS))), Vocabulary.of(map(str, range(size)))
    Prepared(users, items, events, Table.of({}, USERS), Table.of({}, size)).save(folder / "prepared")


def child(size: int, given: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a step and bytes of memory, with so many items."""
    from training import steps as timed

    from zhiyin.data.prepared import Prepared
    from zhiyin.data.splits import LeaveLastOut
    from zhiyin.features.schema import Schema
    from zhiyin.learning.distributed import ALONE
    from zhiyin.learning.fit import Plan, Training, TrainingRun
    from zhiyin.learning.negatives import Popularity
    from zhiyin.learning.optimizers import Optimizer
    from zhiyin.models.youtube_dnn import YouTubeDNN

    data = Prepared.open(given.folder / "prepared")
    split = LeaveLastOut().split(data.events, clock=True)
    schema = Schema(history_length=LENGTH).fit(data, split)
    plan = Plan(
        YouTubeDNN(dim=DIM, hidden=(256, 128)),
        Popularity(512, power=1.0),
        optimizer=Optimizer(tables="rowwise-adagrad", table_lr=0.05, decay="none"),
        training=Training(batch_size=4096, device="cpu"),
    )
    Path("/proc/self/clear_refs").write_text("5")  # peak memory counts from here
    run = TrainingRun(plan, data, split, schema, given.folder, ALONE, profile=False)
    seconds = timed(run, given.steps)
    return {"ms": 1e3 * statistics.median(seconds), "peak": peak(), "table": 4 * (size + 1) * (DIM + 1)}


def peak() -> int:
    """Bytes: the most this process has held since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) << 10


def report(runs: dict[int, list[dict[str, Any]]]) -> None:
    first = statistics.median(run["ms"] for run in next(iter(runs.values())))
    rows = []
    for size, found in runs.items():
        ms = statistics.median(run["ms"] for run in found)
        held, table = statistics.median(run["peak"] for run in found), found[0]["table"]
        rows.append(
            {
                "items": size,
                "ms a step": round(ms, 1),
                "of the first": round(ms / first, 2),
                "peak MB": round(held / 1e6),
                "table and state MB": round(table / 1e6),
                "peak of that": round(held / table, 2),
            }
        )
    printed(rows)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
