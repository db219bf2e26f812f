"""How near the limit is exact ranking? Top 100 of 1,000,000 items for 10,000 users, d 64, beside the bare product.

The limit is the matrix product itself: what must be computed at the least; by torch's own library, and by the one that
zhiyin takes where it is faster. All are timed side by side, several times; the ratios are what to read, on a machine
that others use too.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import Tensor

from zhiyin.data.events import EventLog, Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.evaluation.ranking import BLOCK_QUERIES, rank
from zhiyin.products import product as wide_product

USERS, ITEMS, DIM, K, EVENTS = 10_000, 1_000_000, 64, 100, 20
REPEATS = 3


class Vectors:
    """Random vectors of users and items."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._users = torch.randn(USERS, 1, DIM, generator=generator)
        self.items = torch.randn(ITEMS, DIM, generator=generator)

    def users(self, events: Events) -> Tensor:
        return self._users[torch.from_numpy(events // EVENTS)]

    def scores(self, events: Events) -> Tensor:
        return self.users(events)[:, 0] @ self.items.T


def world() -> Prepared:
    """Every user has 20 events of any item."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS, dtype=np.int32), EVENTS)
    items = random.integers(ITEMS, size=len(users)).astype(np.int32)
    return Prepared(
        Vocabulary.of(str(row) for row in range(USERS)),
        Vocabulary.of(str(row) for row in range(ITEMS)),
        EventLog.of(users, items, np.arange(len(users)), user_count=USERS),
        Table.of({}, USERS),
        Table.of({}, ITEMS),
    )


Product = Callable[[Tensor, Tensor, Tensor], object]


def product(vectors: Vectors, events: Events, multiply: Product) -> None:
    """The bare product, block by block into the same memory."""
    held = torch.empty(BLOCK_QUERIES, 4096)
    for start in range(0, len(events), BLOCK_QUERIES):
        users = vectors.users(events[start : start + BLOCK_QUERIES])[:, 0]
        for at in range(0, ITEMS, 4096):
            items = vectors.items[at : at + 4096]
            multiply(users, items.T, held.view(-1)[: len(users) * len(items)].view(len(users), -1))


def main() -> None:
    torch.set_num_threads(2)
    data, vectors = world(), Vectors()
    held = LeaveLastOut().split(data.events, clock=False).test
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ways: dict[str, Callable[[], object]] = {
        "torch": lambda: product(vectors, held.starts, lambda left, right, out: torch.mm(left, right, out=out)),
        "product": lambda: product(vectors, held.starts, wide_product),
        "rank": lambda: rank(vectors, data, held, K),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            since = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - since)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (
        1024 if sys.platform == "linux" else 1 << 20
    )
    results = {
        "machine": machine(),
        "users": USERS,
        "items": ITEMS,
        "dim": DIM,
        "k": K,
        "threads": torch.get_num_threads(),
        **{f"{name}_seconds": float(np.median(took)) for name, took in seconds.items()},
        "ratio": float(np.median(np.array(seconds["rank"]) / np.array(seconds["product"]))),
        "ratio_to_torch": float(np.median(np.array(seconds["rank"]) / np.array(seconds["torch"]))),
        "memory_mib": grown,
    }
    print(f"{'users × items':24}{'torch.mm s':>12}{'product s':>12}{'ranking s':>12}{'ratios':>14}{'memory, MiB':>14}")
    print(
        f"{USERS:,} × {ITEMS:,}".ljust(24)
        + "".join(f"{results[f'{name}_seconds']:12.1f}" for name in ways)
        + f"{results['ratio_to_torch']:7.2f}{results['ratio']:7.2f}{grown:14.0f}"
    )
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
