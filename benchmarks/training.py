"""How many examples a second does a model train with, and how near is that to what the machine's products allow?

    python benchmarks/training.py [--steps 40] [--repeats 3]

Each model takes steps on one synthetic log (6,000 users, a million events, 4,000 items of Zipf popularity); the models
and a plain f32 product take turns, several times over. Seconds are medians; model FLOPs are those of the formulas below
(three times a forward pass), without what an implementation adds. Writes benchmarks/results/training.json.
"""

import argparse
import itertools
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # both as the command line does

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, printed

from zhiyin.data import worlds
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.features.schema import Schema
from zhiyin.learning.distributed import ALONE
from zhiyin.learning.fit import Plan, Training, TrainingRun
from zhiyin.learning.losses import SampledSoftmax
from zhiyin.learning.negatives import InBatch, Popularity
from zhiyin.models.dssm import DSSM
from zhiyin.models.mind import MIND
from zhiyin.models.sasrec import SASRec
from zhiyin.models.youtube_dnn import YouTubeDNN

RESULTS = Path(__file__).parent / "results" / "training.json"
USERS, EVENTS, ITEMS = 6_000, 1_000_000, 4_000
DIM, LENGTH, NEGATIVES = 64, 50, 512
POPULAR = Popularity(NEGATIVES, power=1.0)


def mlp(*sizes: int) -> float:
    """Multiplications of an MLP for one example."""
    return float(sum(one * two for one, two in itertools.pairwise(sizes)))


def transformer(blocks: int) -> float:
    """Of a causal transformer, for one position: four projections, two products of attention (half of them are causal),
    an MLP of four times the width."""
    return blocks * (4 * DIM * DIM + LENGTH * DIM + 8 * DIM * DIM)


CASES: dict[str, tuple[Plan, float, float]] = {
    "YouTubeDNN, 512 shared negatives with logQ": (
        Plan(YouTubeDNN(dim=DIM, hidden=(256, 128)), POPULAR, SampledSoftmax(), training=Training(batch_size=4096)),
        mlp(DIM, 256, 128, DIM) + LENGTH * DIM + NEGATIVES * DIM,
        100_000,
    ),
    "DSSM, in-batch 4,096 with logQ": (
        Plan(DSSM(dim=DIM, hidden=(256, 128)), InBatch(), SampledSoftmax(), training=Training(batch_size=4096)),
        2 * mlp(DIM, 256, 128, DIM) + LENGTH * DIM + 4096 * DIM,
        25_000,
    ),
    "MIND, 4 interests, 512 shared negatives": (
        Plan(MIND(dim=DIM, interests=4), POPULAR, SampledSoftmax(), training=Training(batch_size=1024)),
        DIM * DIM + 3 * 2 * LENGTH * 4 * DIM + 4 * mlp(DIM, 256, DIM) + NEGATIVES * DIM,
        30_000,
    ),
    "SASRec, 2 blocks, 512 shared negatives (positions)": (
        Plan(SASRec(dim=DIM, blocks=2), POPULAR, SampledSoftmax(), training=Training(batch_size=4096)),
        transformer(2) + NEGATIVES * DIM,
        50_000,
    ),
}
"""A plan, the multiplications of one example's forward pass, and the bar in examples a second on two cores."""


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--steps", type=int, default=40)
    read.add_argument("--repeats", type=int, default=3)
    given = read.parse_args()
    data = world()
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: prepared_run(data, plan, Path(folder) / str(at))
            for at, (name, (plan, *_)) in enumerate(CASES.items())
        }
        takes: dict[str, list[float]] = {name: [] for name in (*runs, "product")}
        for _ in range(given.repeats):
            takes["product"] += product()
            for name, run in runs.items():
                takes[name] += steps(run, given.steps)
    report(takes)


def world() -> Prepared:
    log = worlds.log(USERS, EVENTS, ITEMS, seed=0)
    events = EventLog.of(log.users.astype(np.int32), log.items.astype(np.int32), log.times, user_count=USERS)
    users, items = (Vocabulary.of(map(str, range(count))) for count in (USERS, ITEMS))
    return Prepared(users, items, events, Table.of({}, USERS), Table.of({}, ITEMS))


def prepared_run(data: Prepared, plan: Plan, folder: Path) -> TrainingRun:
    split = LeaveLastOut().split(data.events, clock=True)
    schema = Schema(history_length=LENGTH).fit(data, split)
    return TrainingRun(plan, data, split, schema, folder, ALONE, profile=False)


def steps(run: TrainingRun, count: int) -> list[float]:
    """Seconds of each of `count` steps as training takes them, batches made ahead and all; some before that are not
    counted."""
    found, drafts, since = [], run.drafts(), 0.0
    for at, draft in enumerate(itertools.islice(drafts, count + 5)):
        run.take(draft)
        now = time.perf_counter()
        if at >= 5:
            found.append(now - since)
        since = now
    drafts.close()
    return found


def product(size: int = 2048, count: int = 10) -> list[float]:
    """Seconds of each f32 product of two squares."""
    one, two, found = torch.randn(size, size), torch.randn(size, size), []
    for _ in range(count + 2):
        started = time.perf_counter()
        torch.mm(one, two)
        found.append(time.perf_counter() - started)
    return found[2:]


def report(takes: dict[str, list[float]]) -> None:
    peak = 2 * 2048**3 / statistics.median(takes.pop("product"))
    rows: list[dict[str, Any]] = []
    for name, seconds in takes.items():
        plan, multiplications, bar = CASES[name]
        speed = plan.training.batch_size / statistics.median(seconds)
        flops = 6 * multiplications * speed
        half = 0.5 * peak / (6 * multiplications)
        rows.append(
            {
                "model": name,
                "examples/s": round(speed),
                "bar": bar,
                "half the peak": round(half),
                "GFLOP/s": round(flops / 1e9, 1),
                "of the peak": round(flops / peak, 3),
            }
        )
    told = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "peak GFLOP/s": round(peak / 1e9, 1),
        "rows": rows,
    }
    print(f"f32 product: {peak / 1e9:.0f} GFLOP/s on {torch.get_num_threads()} threads")
    printed(rows)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
