"""Does it cost quality that examples of one user are learned from together? Runs of several lengths, to convergence.

    python benchmarks/shuffling.py [--data MOVIELENS_1M] [--lengths 1 8 32] [--seeds 3] [--threads 1]

MOVIELENS_1M: a folder or archive that `zhiyin data movielens-1m --data` takes. YouTubeDNN (width 64, history 50, 512
negatives by popularity with logQ, batches of 1,024) learns from the training events of one leave-last-out split for
eight epochs of falling rates, looking at validation after each; the best recall@50 is what counts. Runs of 1 are
batches that are shuffled in full. Lengths take turns, seed by seed. Writes benchmarks/results/shuffling.json.
"""

import argparse
import json
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # both as the command line does

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import machine, printed
from time_to_quality import movielens

from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Plan, Progress, Training, fit
from zhiyin.learning.losses import SampledSoftmax
from zhiyin.learning.negatives import Popularity
from zhiyin.models.youtube_dnn import YouTubeDNN

RESULTS = Path(__file__).parent / "results" / "shuffling.json"
LENGTH, K = 50, 50


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--data", type=Path, help="MovieLens-1M; fetched from its publisher when left out")
    read.add_argument("--lengths", type=int, nargs="+", default=[1, 8, 32])
    read.add_argument("--seeds", type=int, default=3)
    read.add_argument("--threads", type=int, default=1)
    given = read.parse_args()
    torch.set_num_threads(given.threads)
    runs: dict[int, list[dict[str, Any]]] = {length: [] for length in given.lengths}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        data, split = movielens(given.data, folder)
        for seed in range(given.seeds):
            for length in given.lengths:
                runs[length].append(converged(data, split, folder / f"{length}-{seed}", length, seed))
                print(f"runs of {length}, seed {seed}: {runs[length][-1]}", flush=True)
    report(runs, given.threads)


def converged(data: Prepared, split: Split, folder: Path, length: int, seed: int) -> dict[str, Any]:
    """The best validation recall@50, its epoch, and the seconds of an epoch without its look."""
    looks: list[tuple[float, float]] = []
    speeds: list[float] = []

    def watch(progress: Progress) -> None:
        speeds.append(progress.examples_per_second)
        if progress.validated and progress.recall is not None:
            looks.append((progress.recall, progress.epoch))

    plan = Plan(
        YouTubeDNN(hidden=(256, 128)),
        Popularity(512, power=1.0),
        SampledSoftmax(),
        training=Training(batch_size=1024, epochs=8, patience=0, run_length=length, seed=seed, measure=K),
    )
    started = time.perf_counter()
    fit(plan, data, split, Schema(history_length=LENGTH).fit(data, split), folder, watch)
    recall, epoch = max(looks)
    return {
        f"recall@{K}": round(recall, 4),
        "epoch": epoch,
        "examples/s": round(statistics.median(speeds)),
        "seconds": round(time.perf_counter() - started, 1),
        "looks": [round(one, 4) for one, _ in looks],
    }


def report(runs: dict[int, list[dict[str, Any]]], threads: int) -> None:
    rows: list[dict[str, Any]] = []
    for length, found in runs.items():
        recalls = [one[f"recall@{K}"] for one in found]
        row: dict[str, Any] = {"run_length": length, f"recall@{K}": round(statistics.mean(recalls), 4)}
        row["sd"] = round(statistics.pstdev(recalls), 4)
        first = rows[0][f"recall@{K}"] if rows else row[f"recall@{K}"]
        row["of the first"] = round(row[f"recall@{K}"] / first, 4)
        for name in ("epoch", "examples/s", "seconds"):
            row[name] = statistics.median(one[name] for one in found)
        rows.append(row)
    printed(rows)
    told = {
        "machine": machine(),
        "threads": threads,
        "rows": rows,
        "runs": {str(one): all for one, all in runs.items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
