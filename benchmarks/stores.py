"""How fast are the stores? Memory, LMDB and Redis, the same calls by turns; each figure the median of the turns.

    python benchmarks/stores.py [--turns 7] [--items 1000000] [--users 20000] [--out benchmarks/results/stores.json]

A redis-server of its own (default settings but no snapshots; and again with every write synced to disk) on a free
loopback port. Cards are of about 240 bytes, 200 drawn at random each time, and read from the store (`hot_cards.py` is
about those that are not); a request reads a user and cards. `load` is what `zhiyin load` does with a prepared log of 20
events a user: wall seconds, CPU seconds of this process, and of the server.
"""

import argparse
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import redis
from machine import machine, printed

from zhiyin import loading
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.recipe import Recipe
from zhiyin.stores.base import Event, Store, StoreSpec
from zhiyin.stores.lmdb import LMDB
from zhiyin.stores.memory import Memory
from zhiyin.stores.redis import Redis

RESULTS = Path(__file__).parent / "results" / "stores.json"
Row = dict[str, Any]


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--turns", type=int, default=7)
    read.add_argument("--items", type=int, default=1_000_000, help="that have cards")
    read.add_argument("--users", type=int, default=20_000, help="of the log that is loaded")
    read.add_argument("--out", type=Path, default=RESULTS)
    given = read.parse_args()
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as running:
        folder = Path(made)
        ports = {
            name: running.enter_context(server(folder / name, *words))
            for name, words in {
                "redis": (),
                "redis, synced": ("--appendonly", "yes", "--appendfsync", "always"),
            }.items()
        }
        specs: dict[str, StoreSpec] = {"memory": Memory(), "lmdb": LMDB(folder / "lmdb", card_cache=0)}
        specs |= {name: Redis(port=port, timeout=30.0, card_cache=0) for name, (port, _) in ports.items()}
        rows = calls(specs, given.turns, given.items)
        rows += loads(specs, ports, folder, given.users, max(1, given.turns // 2))
    printed([{"what": row["what"], "store": row["store"], **row["shown"]} for row in rows if "us" in row["shown"]])
    printed([{"what": row["what"], "store": row["store"], **row["shown"]} for row in rows if "us" not in row["shown"]])
    told = {"machine": machine(), "load": os.getloadavg(), "redis-py": version("redis"), "items": given.items}
    told |= {"rows": flat(rows)}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(told, indent=2) + "\n")


def flat(rows: list[Row]) -> list[Row]:
    return [{"what": row["what"], "store": row["store"], **row["shown"]} for row in rows]


@contextlib.contextmanager
def server(folder: Path, *words: str) -> Iterator[tuple[int, int]]:
    """A redis-server on a free port: its port and its process id."""
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(redis.ConnectionError), redis.Redis(port=port) as client:
                client.ping()
                break
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def calls(specs: dict[str, StoreSpec], turns: int, items: int) -> list[Row]:
    """Single calls, each store in turn: median microseconds of a call."""
    stores = {name: spec.open() for name, spec in specs.items()}
    acts = {name: actions(store, items) for name, store in stores.items()}
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(turns):
        for what in acts["memory"]:
            for name in stores:
                repeats, act = acts[name][what]
                for _ in range(repeats):
                    start = time.perf_counter()
                    act()
                    taken.setdefault((what, name), []).append(time.perf_counter() - start)
    for store in stores.values():
        store.close()
    return [
        {
            "what": what,
            "store": name,
            "shown": {
                "us": round(1e6 * statistics.median(all), 1),
                "p99 us": round(1e6 * float(np.quantile(all, 0.99)), 1),
            },
        }
        for (what, name), all in taken.items()
    ]


def actions(store: Store, items: int) -> dict[str, tuple[int, Callable[[], object]]]:
    """What is called, and how often in a turn, on a store with a user of 50 events, one of 1,000, and cards."""
    for count in (50, 1000):
        store.append([Event(f"u{count}", f"item-{at}", 1_700_000_000_000 + at, {"stars": 4.5}) for at in range(count)])
        store.put_profiles({f"u{count}": {"age": 30, "country": "cn"}})
    card = {"title": "t" * 60, "cover": "c" * 100, "price": 19.5, "tags": ["a", "b", "c"], "pad": "x" * 30}
    for start in range(0, items, 10_000):
        store.put_cards({f"item-{at}": card for at in range(start, min(start + 10_000, items))})
    random = np.random.default_rng(0)
    asked = cycle([[f"item-{at}" for at in random.integers(0, items, 200)] for _ in range(100)])
    clock = iter(range(1_800_000_000_000, 1_900_000_000_000))

    def one(user: str) -> Callable[[], object]:
        return lambda: store.append([Event(user, "item-1", next(clock), {"stars": 4.5})])

    def many() -> object:
        return store.append([Event(f"many-{at % 50}", "item-1", next(clock), {"stars": 4.5}) for at in range(1000)])

    return {
        "read 50 events": (100, lambda: store.read(["u50"], 50)),
        "read 1,000 events": (20, lambda: store.read(["u1000"], 1000)),
        "200 cards": (50, lambda: store.cards(next(asked))),
        "a request: 50 events, 200 cards": (50, lambda: (store.read(["u50"], 50), store.cards(next(asked)))),
        "append one, to a user with room": (50, one("roomy")),
        "append one, to a full user": (50, one("u1000")),
        "append 1,000, of 50 users": (5, many),
    }


def loads(
    specs: dict[str, StoreSpec], ports: dict[str, tuple[int, int]], folder: Path, users: int, turns: int
) -> list[Row]:
    """`zhiyin load` of 20 events a user, into stores that are empty each time."""
    recipe = prepared(folder, users)
    rows = []
    for name in specs:
        runs = []
        for turn in range(turns):
            spec = LMDB(folder / f"lmdb-{turn}") if name == "lmdb" else specs[name]
            if name in ports:
                with redis.Redis(port=ports[name][0]) as client:
                    client.flushall()
            runs.append(loaded(recipe, spec, ports[name][1] if name in ports else None))
        shown = {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        rows.append({"what": f"load {20 * users:,} events", "store": name, "shown": shown})
    return rows


def loaded(recipe: Recipe, spec: StoreSpec, server: int | None) -> dict[str, float]:
    store = spec.open()
    data = Prepared.open(recipe.prepared)
    before, start = cpu(), time.perf_counter()
    theirs = cpu_of(server)
    count = loading.events(data, store, spec.keep)
    seconds, ours, theirs = time.perf_counter() - start, cpu() - before, cpu_of(server) - theirs
    store.close()
    return {
        "events a second": count / seconds,
        "seconds": seconds,
        "CPU seconds": ours,
        "server CPU seconds": theirs,
        "events a CPU second": count / ours,
    }


def prepared(folder: Path, users: int, items: int = 5000) -> Recipe:
    random = np.random.default_rng(0)
    owners = np.repeat(np.arange(users), 20).astype(np.int32)
    log = EventLog.of(
        owners,
        random.integers(0, items, 20 * users).astype(np.int32),
        1_700_000_000_000 + np.tile(np.arange(20), users) * 3_600_000,
        user_count=users,
        columns=Table.of({"stars": random.integers(1, 6, 20 * users)}),
    )
    vocabularies = (Vocabulary.of(f"user-{at}" for at in range(users)), Vocabulary.of(f"i{at}" for at in range(items)))
    recipe = Recipe.of({"home": str(folder / "home"), "data": {"events": "log.csv"}}, folder / "recipe.toml")
    data = Prepared(*vocabularies, log, Table.of({"age": [30] * users}), Table.of({"title": ["t"] * items}))
    data.save(recipe.prepared)
    return recipe


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_of(process: int | None) -> float:
    if process is None:
        return 0.0
    words = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
