"""Vectors of a model that was really trained, for index benchmarks: items.npy [m, d]; queries.npy of held-out users.

    python benchmarks/trained_vectors.py OUT [--items 100000] [--users 200000] [--events 4000000] [--epochs 2] [--dim N]

A world like a real one (`zhiyin.data.realistic`), YouTubeDNN by the ordinary path, and the vectors of users just before
their held-out last event: 12,000 of them.
"""

import argparse
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

from pathlib import Path

import numpy as np
import torch

from zhiyin.data.prepared import Prepared
from zhiyin.data.realistic import realistic
from zhiyin.data.sources import prepare
from zhiyin.data.splits import LeaveLastOut
from zhiyin.features.categorical import Categorical
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Plan, Training, fit
from zhiyin.learning.negatives import Popularity
from zhiyin.models.youtube_dnn import YouTubeDNN

QUERIES = 12_000


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("out", type=Path)
    read.add_argument("--items", type=int, default=100_000)
    read.add_argument("--users", type=int, default=200_000)
    read.add_argument("--events", type=int, default=4_000_000)
    read.add_argument("--epochs", type=int, default=2)
    read.add_argument("--dim", type=int, default=64)
    given = read.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    prepared = given.out / "prepared"
    if not prepared.exists():
        source = realistic(given.users, given.items, given.events, seed=0, shown=0, groups=500).write(given.out / "log")
        prepare(source, prepared)
    data = Prepared.open(prepared)
    split = LeaveLastOut().split(data.events, data.clock)
    schema = Schema(user=(Categorical("country"),), history_length=30).fit(data, split)
    plan = Plan(
        YouTubeDNN(dim=given.dim, hidden=(256, 128)),
        Popularity(512, power=1.0),
        training=Training(epochs=given.epochs, batch_size=2048, examples_per_user=20, validate_every=given.epochs),
    )
    fitted = fit(plan, data, split, schema, given.out / "run", lambda p: print(p.step, p.steps, p.loss, flush=True))
    scorer = fitted.scorer(data)
    places = np.random.default_rng(0).permutation(len(split.test))[:QUERIES]
    with torch.inference_mode():
        users = torch.cat([scorer.users(part)[:, 0] for part in np.array_split(split.test.starts[places], 20)])
    np.save(given.out / "items.npy", np.ascontiguousarray(scorer.items.numpy()))
    np.save(given.out / "queries.npy", np.ascontiguousarray(users.numpy()))
    print(f"recall@50 {fitted.recall:.4f}; {len(scorer.items):,} items, {len(users):,} queries, in {given.out}")


if __name__ == "__main__":
    main()
