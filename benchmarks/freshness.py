"""How soon is an event seen, and a new item found? Over HTTP, on two replicas and one Redis, while others ask.

    python benchmarks/freshness.py [--items 1000000] [--seconds 60] [--rate 200] [--folder DIR]

A release of an untrained model over a synthetic catalogue, an IVF-flat index, and a redis-server of its own that
appends to disk once a second. Two services of their own processes serve it. The first is asked by `--rate` requests a
second, evenly spaced, whether or not earlier ones have been answered (but those are left out that would be the 65th to
wait). Meanwhile, again and again:

- an event is posted for a user, and the user's next answer looked at: seconds from sending the event to that answer;
- an item is put, asked for until an answer of the first and one of the second replica holds it, deleted, and asked for
  until neither does: seconds from sending the item. Its vector is long, so a user on its side finds it first of all.

Then, in this process: the same requests answered from the release as it is, and with 10,000 fresh, replaced or deleted
items over it, by turns; CPU milliseconds of the one thread that does it, for neighbours take turns on the cores. Writes
benchmarks/results/freshness.json.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, printed

from stores import server

RESULTS = Path(__file__).parent / "results" / "freshness.json"
USERS, HISTORY, DIM = 20_000, 20, 64
MOST_WAITING = 64
CHEAP = "price < 0.3"
SIDE = {"profile": {"side": "a"}}
"""A user whom the long vector of a new item suits, or whom its opposite does: `prober` finds out which."""


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--items", type=int, default=1_000_000)
    read.add_argument("--seconds", type=float, default=60.0)
    read.add_argument("--rate", type=float, default=200.0, help="requests a second that others make")
    read.add_argument("--folder", type=Path, help="where the release is kept, to be used again")
    read.add_argument("--serve", nargs=3, metavar=("FOLDER", "PORT", "REDIS"), help=argparse.SUPPRESS)
    given = read.parse_args()
    if given.serve:
        serve(Path(given.serve[0]), int(given.serve[1]), int(given.serve[2]))
        return
    with contextlib.ExitStack() as held:
        folder = given.folder or Path(held.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "releases").exists():
            publish(folder, given.items)
        made = Path(held.enter_context(tempfile.TemporaryDirectory()))
        words = ("--appendonly", "yes", "--appendfsync", "everysec")
        port, _ = held.enter_context(server(made / "redis", *words))
        load_users(port, given.items)
        ports = [held.enter_context(replica(folder, port)) for _ in range(2)]
        before = os.getloadavg()
        online = asyncio.run(measured(ports, given.rate, given.seconds, given.items))
        loads = {"before": before, "after": os.getloadavg()}
        search = overlaid(folder, given.items)
    told = {"machine": machine(), "load": loads, "items": given.items, "rate": given.rate, "online": online}
    told["search"] = search
    printed([{"what": name, **row} for name, row in told["online"].items()])
    printed(told["search"])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(told, indent=2) + "\n")


def publish(folder: Path, size: int) -> None:
    import torch

    from zhiyin.data.events import EventLog
    from zhiyin.data.prepared import Prepared
    from zhiyin.data.splits import LeaveLastOut
    from zhiyin.data.tables import Table
    from zhiyin.data.vocabulary import Vocabulary
    from zhiyin.features.categorical import Categorical
    from zhiyin.features.numeric import Numeric
    from zhiyin.features.schema import Schema
    from zhiyin.indexes.ivf import IVFFlat
    from zhiyin.learning.examples import Examples
    from zhiyin.models.youtube_dnn import YouTubeDNN
    from zhiyin.publish import Promise
    from zhiyin.publish import publish as build

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS), HISTORY).astype(np.int32)
    events = EventLog.of(
        users,
        random.integers(0, size, len(users)).astype(np.int32),
        1_700_000_000_000 + np.tile(np.arange(HISTORY), USERS) * 3_600_000,
        user_count=USERS,
    )
    groups = random.integers(0, 500, size)
    data = Prepared(
        Vocabulary.of(f"u{row}" for row in range(USERS)),
        Vocabulary.of(f"i{row}" for row in range(size)),
        events,
        Table.of({"side": ["a", "b"] * (USERS // 2)}),
        Table.of({"group": [f"g{group}" for group in groups], "boost": np.zeros(size), "price": random.random(size)}),
    )
    split = LeaveLastOut().split(data.events, data.clock)
    schema = Schema(
        user=(Categorical("side", dim=8),),
        item=(Categorical("group", dim=32), Numeric("boost", scale="none")),
        history_length=HISTORY,
    ).fit(data, split)
    examples = Examples(data, schema, end=split.end, device=torch.device("cpu"))
    build(
        YouTubeDNN(dim=DIM, hidden=(128,), normalize=False).build(schema, size),
        schema,
        data,
        sample=examples.queries(split.test.starts[:200]),
        popular=np.arange(size, dtype=np.int32),
        index=IVFFlat(nprobe=32),
        root=folder / "releases",
        id="20260101-000000-aaaa",
        facts={"created": "2026-01-01T00:00:00+00:00"},
        promise=Promise(overlap=0.0, queries=50),
    )


def load_users(port: int, size: int) -> None:
    from zhiyin.stores.base import Event
    from zhiyin.stores.redis import Redis

    store, random = Redis(port=port, timeout=30.0).open(), np.random.default_rng(1)
    items = random.integers(0, size, (2000, HISTORY))
    store.append([Event(f"u{user}", f"i{item}", at) for user, row in enumerate(items) for at, item in enumerate(row)])
    store.close()


def serve(folder: Path, port: int, redis: int) -> None:
    from zhiyin.releases import Releases
    from zhiyin.service.app import Service
    from zhiyin.service.app import serve as run
    from zhiyin.service.live import Live
    from zhiyin.stores.redis import Redis

    store = Redis(port=redis).open()
    run(Live(Releases(folder / "releases"), store), store, Service(port=port))


@contextlib.contextmanager
def replica(folder: Path, redis: int) -> Iterator[int]:
    """A service in a process of its own: its port."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, __file__, "--serve", str(folder), str(port), str(redis)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "the service ended"
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


class Connections:
    """HTTP over kept connections, as many as are wanted at once: no client library's cost in what is measured."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []

    async def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        reader, writer = self._idle() or await asyncio.open_connection("127.0.0.1", self.port)
        packed = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(packed)}"
        writer.write(head.encode() + b"\r\n\r\n" + packed)
        status = (await reader.readline()).split()[1]
        length = 0
        while (line := await reader.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            length = int(value) if name.lower() == "content-length" else length
        answer: dict[str, Any] = json.loads(await reader.readexactly(length))
        assert status == b"200", answer
        self.idle.append((reader, writer, time.perf_counter()))
        return answer

    def _idle(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The connection used last, if that was not so long ago that the service may be closing it."""
        while self.idle:
            reader, writer, used = self.idle.pop()
            if time.perf_counter() - used < 2:
                return reader, writer
            writer.close()
        return None

    async def finds(self, item: str, body: dict[str, Any]) -> bool:
        answer = await self.ask("POST", "/v1/retrieve", body)
        return any(one["item_id"] == item for one in answer["candidates"])


async def measured(ports: list[int], rate: float, seconds: float, size: int) -> dict[str, dict[str, Any]]:
    one, two = (Connections(port) for port in ports)
    taken: dict[str, list[float]] = {}
    async with others(one, rate, taken):
        await asyncio.sleep(2)
        taken.clear()
        end = time.perf_counter() + seconds
        await asyncio.gather(events(one, end, taken, size), items(one, two, end, taken))
    return {name: summary(all, seconds) for name, all in taken.items()}


@contextlib.asynccontextmanager
async def others(connections: Connections, rate: float, taken: dict[str, list[float]]) -> AsyncIterator[None]:
    """Requests of many users while the block runs, sent at their times whatever became of those before."""

    async def ask(user: int) -> None:
        start = time.perf_counter()
        await connections.ask("POST", "/v1/retrieve", {"user_id": f"u{user}", "k": 100})
        taken.setdefault("a request of others", []).append(time.perf_counter() - start)

    async def send() -> None:
        asked: set[asyncio.Task[None]] = set()
        start, at = time.perf_counter(), 0
        while True:
            await asyncio.sleep(max(0.0, start + at / rate - time.perf_counter()))
            asked = {one for one in asked if not one.done() or one.result()}
            if len(asked) < MOST_WAITING:
                asked.add(asyncio.create_task(ask(at * 7919 % 2000)))
            at += 1

    sending = asyncio.create_task(send())
    try:
        yield
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending


async def events(one: Connections, end: float, taken: dict[str, list[float]], size: int) -> None:
    at = 0
    while time.perf_counter() < end:
        user = f"prober-{at % 50}"
        start = time.perf_counter()
        event = {"user_id": user, "item_id": f"i{at * 7919 % size}", "event_id": f"e{at}"}
        await one.ask("POST", "/v1/events", {"events": [event]})
        taken.setdefault("event: accepted", []).append(time.perf_counter() - start)
        answer = await one.ask("POST", "/v1/retrieve", {"user_id": user, "k": 100})
        taken.setdefault("event: in the next answer", []).append(time.perf_counter() - start)
        assert answer["history"] == min(at // 50 + 1, HISTORY), answer["history"]
        at += 1
        await asyncio.sleep(0.05)


async def items(one: Connections, two: Connections, end: float, taken: dict[str, list[float]]) -> None:
    boost = await side(one)
    at = 0

    async def until(connections: Connections, name: str, there: bool, start: float, what: str) -> None:
        while await connections.finds(name, {"k": 10, **SIDE}) is not there:
            await asyncio.sleep(0.005)
        taken.setdefault(what, []).append(time.perf_counter() - start)

    async def first(name: str, start: float) -> None:
        values = {"group": "g1", "boost": boost, "price": 1.0}
        await one.ask("PUT", "/v1/items", {"items": [{"item_id": name, "values": values}]})
        taken.setdefault("item: accepted", []).append(time.perf_counter() - start)
        await until(one, name, True, start, "item: found")

    while time.perf_counter() < end:
        name, start = f"new-{at}", time.perf_counter()
        await asyncio.gather(first(name, start), until(two, name, True, start, "item: found on the other replica"))
        start = time.perf_counter()
        await one.ask("DELETE", f"/v1/items/{name}")
        await until(one, name, False, start, "deletion: gone")
        await until(two, name, False, start, "deletion: gone on the other replica")
        at += 1
        await asyncio.sleep(0.05 + 0.013 * (at % 16))  # not in step with the replicas' looks


async def side(one: Connections) -> float:
    """Which sign makes a long item vector point to the probing user."""
    for boost in (1e4, -1e4):
        item = {"item_id": "side", "values": {"group": "g1", "boost": boost}}
        await one.ask("PUT", "/v1/items", {"items": [item]})
        there = await one.finds("side", {"k": 10, **SIDE})
        await one.ask("DELETE", "/v1/items/side")
        if there:
            return boost
    raise AssertionError("no side")


def summary(taken: list[float], seconds: float) -> dict[str, Any]:
    p50, p99 = np.quantile(taken, [0.5, 0.99])
    return {
        "times": len(taken),
        "a second": round(len(taken) / seconds, 1),
        "p50 ms": round(1e3 * float(p50), 2),
        "p99 ms": round(1e3 * float(p99), 2),
        "most ms": round(1e3 * max(taken), 2),
    }


def overlaid(folder: Path, size: int, fresh: int = 10_000, turns: int = 200) -> list[dict[str, Any]]:
    """CPU milliseconds of one request from the release as it is, and under changes; of showing one more change; and of
    a filter that was asked before, for the first time after that."""
    import faiss

    from zhiyin.filters.bitmap import allowed
    from zhiyin.releases import Releases
    from zhiyin.retriever import Request, Retriever
    from zhiyin.service.overlay import Overlay
    from zhiyin.stores.base import Change, Event
    from zhiyin.stores.memory import Memory

    faiss.omp_set_num_threads(1)
    release, random = Releases(folder / "releases").open(), np.random.default_rng(2)
    store = Memory().open()
    asked = [f"u{user}" for user in range(200)]
    store.append(
        [Event(user, f"i{item}", at) for user in asked for at, item in enumerate(random.integers(0, size, 20))]
    )
    retriever = Retriever(store)

    def changes(names: list[str], deleted: bool = False) -> list[Change]:
        values = [
            None if deleted else {"group": f"g{at % 500}", "boost": 0.0, "price": 0.5} for at in range(len(names))
        ]
        return [Change(name, 2**60, one, at + 1) for at, (name, one) in enumerate(zip(names, values, strict=True))]

    rows = random.choice(size, fresh, replace=False)
    allowed(release, CHEAP)
    views, made = {"as published": release}, {"as published": (0.0, 0.0)}
    for what, told in {
        f"{fresh:,} fresh": changes([f"n{at}" for at in range(fresh)]),
        f"{fresh:,} replaced": changes([f"i{row}" for row in rows]),
        f"{fresh:,} deleted": changes([f"i{row}" for row in rows], deleted=True),
    }.items():
        overlay = Overlay(release)
        overlay.apply(told)
        start = time.thread_time()
        overlay.apply(changes(["one more"]))
        views[what] = overlay.view()
        shown = time.thread_time()
        allowed(views[what], CHEAP)
        made[what] = (round(1e3 * (shown - start), 2), round(1e3 * (time.thread_time() - shown), 2))
    taken: dict[tuple[str, str], list[float]] = {}
    for turn in range(turns):
        for filter in ("", CHEAP):
            for what, view in views.items():
                start = time.thread_time()
                retriever.retrieve(view, [Request(user=asked[turn % 200], k=100, time=2**40, filter=filter)])
                taken.setdefault((what, filter), []).append(time.thread_time() - start)
    told_rows = []
    for (what, filter), all in taken.items():
        plain = statistics.median(taken["as published", filter])
        told_rows.append(
            {
                "release": what,
                "filter": filter,
                "CPU ms a request": round(1e3 * statistics.median(all), 3),
                "of the plain": round(statistics.median(all) / plain, 3),
                "ms to show one more": made[what][0],
                "ms to filter then": made[what][1],
            }
        )
    return told_rows


if __name__ == "__main__":
    main()
