"""How many events a second does one consumer take from a Redis stream into the store?

    python benchmarks/stream.py [--events 100000] [--users 5000] [--turns 3] [--out benchmarks/results/stream.json]

A redis-server of its own, with default settings but no snapshots, and again with every write synced to disk. Beside the
consumer, in the same turn, what the store alone does with the same events in the same batches. Median of the turns.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from machine import machine, printed

from stores import cpu, server
from zhiyin.service.stream import Consumer, Stream
from zhiyin.stores.base import Event
from zhiyin.stores.redis import Redis, connected

RESULTS = Path(__file__).parent / "results" / "stream.json"
START = 1_700_000_000


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--events", type=int, default=100_000)
    read.add_argument("--users", type=int, default=5000)
    read.add_argument("--turns", type=int, default=3)
    read.add_argument("--out", type=Path, default=RESULTS)
    given = read.parse_args()
    rows = []
    servers = {"redis": (), "redis, synced": ("--appendonly", "yes", "--appendfsync", "always")}
    for name, words in servers.items():
        with tempfile.TemporaryDirectory() as made, server(Path(made) / "redis", *words) as (port, _):
            for batch in (100, 500):
                turns = [once(Redis(port=port, prefix=f"{batch}.{at}:"), batch, given) for at in range(given.turns)]
                shown = {key: round(statistics.median(turn[key] for turn in turns)) for key in turns[0]}
                rows.append({"server": name, "batch": batch, **shown})
    printed(rows)
    told = {"machine": machine(), "load": os.getloadavg(), "redis-py": version("redis"), "events": given.events}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({**told, "users": given.users, "rows": rows}, indent=2) + "\n")


def once(redis: Redis, batch: int, given: argparse.Namespace) -> dict[str, float]:
    """Events a second, and a second of this process's CPU, of the consumer; and of the store alone."""
    store, client, spec = redis.open(), connected(redis), Stream(batch=batch)
    consumer = Consumer(spec, redis, store)
    events = [
        {"user_id": f"u{at % given.users}", "item_id": f"i{at}", "time": START + at} for at in range(given.events)
    ]
    for start in range(0, len(events), 5000):
        pipeline = client.pipeline(transaction=False)
        for event in events[start : start + 5000]:
            pipeline.xadd(consumer.key, {"event": msgspec.json.encode(event)})
        pipeline.execute()
    begun, before = time.perf_counter(), cpu()
    consumer.run(threading.Event(), once=True)
    seconds, used = time.perf_counter() - begun, cpu() - before
    assert consumer.counted.kept == given.events
    consumer.close()
    alone = [
        Event(f"other{at % given.users}", f"i{at}", 1000 * (START + at), {}, f"e{at}") for at in range(given.events)
    ]
    begun = time.perf_counter()
    for start in range(0, len(alone), batch):
        store.append(alone[start : start + batch])
    other = time.perf_counter() - begun
    found: dict[str, Any] = {
        "events a second": given.events / seconds,
        "events a CPU second": given.events / used,
        "store alone": given.events / other,
    }
    store.close()
    client.close()
    return found


if __name__ == "__main__":
    main()
