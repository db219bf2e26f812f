"""What does a request's part of the store cost, and what do hot cards save of it? 1 M items, 200 requests a second.

    python benchmarks/hot_cards.py [--items 1000000] [--seconds 8] [--out benchmarks/results/hot_cards.json]

A request reads a user (of 2,000, with 50 events each) and 200 cards: two round trips. "request": both; the rest is of
the cards alone. Which items it shows is drawn by a power law: the r-th most popular item r^-0.8 as often as the first,
or r^-1; cards are of about 240 bytes. Each request, paced as they come, is asked of the store with its cache and
without, by turns; `hot %` of the cards were there; two fields of each are asked for. Then the same cards again and
again, all hot. The last table tells what 200 cards cost to become what is asked, in JSON: from their bytes (what hot
cards are) by several ways, and from cards that lie decoded.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from machine import machine, printed

from stores import server
from zhiyin.stores.base import Event, Store, StoreSpec
from zhiyin.stores.lmdb import LMDB
from zhiyin.stores.memory import Memory
from zhiyin.stores.records import decode_cards, only
from zhiyin.stores.redis import Redis

Taken = tuple[float, float]
"""Seconds of the cards, and of the whole request."""

RESULTS = Path(__file__).parent / "results" / "hot_cards.json"
ASKED, RATE, USERS = 200, 200, 2_000


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--items", type=int, default=1_000_000)
    read.add_argument("--seconds", type=float, default=8.0)
    read.add_argument("--out", type=Path, default=RESULTS)
    given = read.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made, server(Path(made) / "redis") as (port, _):
        redis, lmdb = Redis(port=port, timeout=30.0), LMDB(Path(made) / "lmdb")
        for spec, *variants in (
            (redis, replace(redis, card_cache=0)),
            (lmdb, replace(lmdb, card_cache=0)),
            (Memory(),),
        ):
            rows += measured(spec, *variants, items=given.items, seconds=given.seconds)
    decoding = decoded()
    printed(rows)
    printed(decoding)
    facts = {"machine": machine(), "load": os.getloadavg(), "redis-py": version("redis"), "items": given.items}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({**facts, "rows": rows, "decoding": decoding}, indent=2) + "\n")


def card(at: int) -> dict[str, Any]:
    return {"title": f"{at:>60}", "cover": "c" * 100, "price": 19.5, "tags": ["a", "b", "c"], "pad": "x" * 30}


def measured(*specs: StoreSpec, items: int, seconds: float) -> list[dict[str, Any]]:
    stores = [spec.open() for spec in specs]
    for start in range(0, items, 10_000):
        stores[0].put_cards({f"item-{at}": card(at) for at in range(start, min(start + 10_000, items))})
    for user in range(0, USERS, 100):
        stores[0].append(
            [Event(f"u{at}", f"item-{at}", n, {"n": n}) for at in range(user, user + 100) for n in range(50)]
        )
    fetched = counting(stores[0])
    rows = []
    for power in (0.8, 1.0):
        rows += [{"asked": f"by r^-{power:g}", **row} for row in paced(stores, items, seconds, power, fetched)]
    same = [f"item-{at}" for at in range(ASKED)]
    taken = [[timed(store, same, at) for store in stores] for at in range(500)]
    rows += [{"asked": "all the same", "hot %": 100.0, **told(list(one))} for one in zip(*taken, strict=True)]
    for store in stores:
        store.close()
    names = ["cache", "no cache"] if len(specs) > 1 else ["as it is"]
    return [{"store": type(specs[0]).__name__, "cards": names[at % len(names)], **row} for at, row in enumerate(rows)]


def counting(store: Any) -> list[int]:
    """Where the number of cards that were not hot is counted from now on."""
    fetched = [0]
    if hasattr(store, "_hot"):
        before = store._hot.cards

        def cards(items: Any, fetch: Callable[[Any], Any], version: object = None) -> Any:
            def count(missing: list[str]) -> Any:
                fetched[0] += len(missing)
                return fetch(missing)

            return before(items, count, version)

        store._hot.cards = cards
    return fetched


def paced(
    stores: list[Store], items: int, seconds: float, power: float, fetched: list[int]
) -> Iterator[dict[str, float]]:
    random = np.random.default_rng(1)
    weights = np.cumsum(np.arange(1, items + 1, dtype=float) ** -power)
    shuffled = random.permutation(items)
    requests = []
    for _ in range(int(RATE * (seconds + 2))):
        drawn = np.unique(np.searchsorted(weights, random.random(2 * ASKED) * weights[-1]))
        requests.append([f"item-{shuffled[at]}" for at in random.permutation(drawn)[:ASKED]])
    taken: list[list[Taken]] = [[] for _ in stores]
    begun, shown = time.perf_counter(), 0
    for number, asked in enumerate(requests):
        time.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
        if number == 2 * RATE:
            fetched[0], shown = 0, 0
        shown += len(asked)
        for at in range(len(stores))[:: 1 if number % 2 else -1]:
            taken[at].append(timed(stores[at], asked, number))
    for at, one in enumerate(taken):
        hot = 100 * (1 - fetched[0] / shown) if at == 0 else 0.0
        yield {"hot %": round(hot, 1), **told(one[2 * RATE :])}


def timed(store: Store, asked: list[str], number: int) -> Taken:
    start = time.perf_counter()
    store.read([f"u{number % USERS}"], 50)
    between = time.perf_counter()
    store.cards(asked, ("title", "price"))
    end = time.perf_counter()
    return end - between, end - start


def told(taken: list[Taken]) -> dict[str, float]:
    cards, whole = zip(*taken, strict=True)
    return {**quantiles(cards), **{f"request {name}": one for name, one in quantiles(whole).items()}}


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    return {f"p{part} us": round(1e6 * float(np.quantile(seconds, part / 100)), 1) for part in (50, 99)}


def decoded() -> list[dict[str, Any]]:
    return [row for columns in (5, 20, 60) for row in from_bytes(columns)]


def from_bytes(columns: int) -> Iterator[dict[str, Any]]:
    """From the bytes of 200 cards, or from cards that lie decoded, to the bytes of the answer's."""
    wide = {f"column {at}": ("text " * 8, at * 1.5, ["x", "y"])[at % 3] for at in range(columns - 5)}
    cards = [card(at) | wide for at in range(ASKED)]
    packed = [msgspec.msgpack.encode(one) for one in cards]
    lazily = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
    two = ("title", "price")

    def raw(one: bytes) -> dict[str, Any]:
        there = lazily(one)
        return {name: msgspec.msgpack.decode(there[name]) for name in two if name in there}

    ways: dict[str, Callable[[], object]] = {
        "two fields, of cards decoded whole": lambda: [only(msgspec.msgpack.decode(one), two) for one in packed],
        "two fields, of values decoded at use": lambda: [raw(one) for one in packed],
        "two fields, alone decoded": lambda: decode_cards(packed, two),
        "two fields, of decoded cards": lambda: [only(one, two) for one in cards],
        "all fields, decoded": lambda: decode_cards(packed),
        "all fields, of decoded cards": lambda: cards,
    }
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(300):
        for way, act in ways.items():
            start = time.perf_counter()
            msgspec.json.encode(act())
            taken[way].append(time.perf_counter() - start)
    size = len(packed[0])
    return ({"200 cards": way, "fields": columns, "bytes": size, **quantiles(all)} for way, all in taken.items())


if __name__ == "__main__":
    main()
