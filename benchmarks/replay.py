"""Is the live path as good as the offline number? The last tenth of two logs, sent through HTTP as it happened.

    python benchmarks/replay.py [--movielens FOLDER] [--retail FOLDER] [--out benchmarks/results/replay.json]

A model is trained on the first eight tenths of the events by time, and published. The store, on a redis-server of its
own, holds the first nine tenths. Then every later event, in order of time: the user asks for 50 candidates at that
moment, which find the event's item or not, and only then is the event sent. Offline, the same events are asked of the
trained model by torch, over the whole catalogue, with numpy's exact top 50. Recall@50 is the share of the events whose
item was found. Films that were seen do not come back; things that were bought do. Without `--movielens`, MovieLens-100K
is fetched; `--retail` holds the tidy Online Retail files (events.parquet, items.parquet, users.parquet).
"""

import argparse
import http.client
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, printed

from stores import server
from zhiyin import loading, pipeline
from zhiyin.data import datasets
from zhiyin.data.events import Events
from zhiyin.data.prepared import Prepared
from zhiyin.learning.scoring import TowerScorer
from zhiyin.recipe import Recipe
from zhiyin.service.app import create, running
from zhiyin.service.live import Live
from zhiyin.stores.base import Event, Store

RESULTS = Path(__file__).parent / "results" / "replay.json"
K = 50
BLOCK = 2048

RECIPE = """
home = "."

[data]
events = "{folder}/events.parquet"
items = "{folder}/items.parquet"
users = "{folder}/users.parquet"
user = "{user_id}"
item = "{item_id}"
time_unit = "s"
columns = [{columns}]

[features]
history_length = 50
user = [{user}]
item = [{item}]
event = [{event}]
context = [{{ use = "time:Hour" }}]

[split]
use = "splits:TimeCut"

[model]
use = "youtube_dnn:YouTubeDNN"

[negatives]
use = "negatives:WholeCatalogue"

[loss]
use = "losses:FullSoftmax"

[training]
epochs = {epochs}
device = "cpu"

[index]
use = "{index}"

[store]
use = "redis:Redis"
port = {port}
prefix = "{name}:"
"""

FEATURES = {
    "movielens-100k": {
        "user": '{ use = "categorical:Categorical", name = "occupation", dim = 8 }',
        "item": '{ use = "bag:Bag", name = "genres", dim = 16 }',
        "event": '{ use = "numeric:Numeric", name = "rating" }',
        "columns": '"rating"',
        "user_id": "user",
        "item_id": "item",
    },
    "online-retail": {
        "user": '{ use = "categorical:Categorical", name = "country", dim = 4 }',
        "item": '{ use = "numeric:Numeric", name = "median_price", scale = "log" }',
        "event": '{ use = "numeric:Numeric", name = "quantity" }',
        "columns": '"quantity"',
        "user_id": "user_id",
        "item_id": "item_id",
    },
}


@dataclass(frozen=True, slots=True)
class World:
    """A log that is replayed. `seen`: whether what a user had before may come back."""

    name: str
    folder: Path
    seen: bool


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--movielens", type=Path, help="folder or archive with MovieLens-100K")
    read.add_argument("--retail", type=Path, help="folder with the tidy Online Retail files")
    read.add_argument("--epochs", type=int, default=4)
    read.add_argument("--index", default="exact:Exact", help="so that the difference is the path's, and no index's")
    read.add_argument("--most", type=int, default=0, help="events to replay at most; 0: all")
    read.add_argument("--out", type=Path, default=RESULTS)
    given = read.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as made, server(Path(made) / "redis") as (port, _):
        films = Path(made) / "movielens"
        datasets.load("movielens-100k", data=given.movielens, cache=datasets.default_cache(), out=films)
        worlds = [World("movielens-100k", films, seen=False)]
        worlds += [World("online-retail", given.retail.absolute(), seen=True)] if given.retail else []
        for world in worlds:
            recipe = written(world, Path(made) / world.name, port, given)
            rows.append(replayed(world, recipe, given.most))
            printed(rows[-1:])
    told = {"machine": machine(), "load": os.getloadavg(), "redis-py": version("redis"), "rows": rows}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(told, indent=2) + "\n")


def written(world: World, home: Path, port: int, given: argparse.Namespace) -> Recipe:
    home.mkdir()
    facts = {"folder": world.folder, "port": port, "name": world.name, "epochs": given.epochs, "index": given.index}
    facts |= FEATURES[world.name]
    (home / "recipe.toml").write_text(RECIPE.format(**facts))
    return Recipe.read(home / "recipe.toml")


def replayed(world: World, recipe: Recipe, most: int) -> dict[str, Any]:
    pipeline.prepare(recipe)
    fitted = pipeline.fit(recipe)
    pipeline.publish(recipe)
    data, split = pipeline.opened(recipe)
    log = data.events
    cut = int(log.times[split.test.starts].min())
    later = np.flatnonzero(log.times >= cut)
    order = later[np.argsort(log.times[later], kind="stable")]
    order = order[:most] if most else order
    served = pipeline.serving(recipe)
    try:
        loading.cards(data, served.store)
        loading.profiles(data, served.store)
        loaded(data, np.flatnonzero(log.times < cut), served.store)
        with Live(served.releases) as live, running(create(live, served.store, recipe.service)) as url:
            online, taken = asked(url, data, order, seen=world.seen)
    finally:
        served.store.close()
    offline = exact(fitted.scorer(data, "cpu"), data, order, seen=world.seen)
    live_recall, number = float(online.mean()), float(offline.mean())
    return {
        "log": world.name,
        "events": len(order),
        f"live recall@{K}": round(live_recall, 5),
        f"offline recall@{K}": round(number, 5),
        "difference %": round(100 * abs(live_recall / number - 1), 3),
        "events that differ": int((online != offline).sum()),
        "p50 ms": round(statistics.median(taken), 2),
        "p99 ms": round(float(np.quantile(taken, 0.99)), 2),
    }


def loaded(data: Prepared, numbers: Events, store: Store) -> None:
    for start in range(0, len(numbers), loading.CHUNK):
        part = numbers[start : start + loading.CHUNK]
        store.append(events_of(data, part))


def events_of(data: Prepared, numbers: Events) -> list[Event]:
    """These events, each with its number as its id: some stand in the log several times."""
    return [replace(one, id=f"e{at}") for one, at in zip(loading.as_told(data, numbers), numbers, strict=True)]


def asked(url: str, data: Prepared, order: Events, *, seen: bool) -> tuple[np.ndarray, list[float]]:
    """bool [n]: whether each event's item was among what its user was offered just before; and how long each took."""
    host = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    found, taken = np.zeros(len(order), bool), []
    for at, event in enumerate(events_of(data, order)):
        moment = event.time / 1000
        start = time.perf_counter()
        answer = post(host, "/v1/retrieve", {"user_id": event.user, "k": K, "time": moment, "exclude_seen": not seen})
        taken.append(1e3 * (time.perf_counter() - start))
        found[at] = event.item in [candidate["item_id"] for candidate in answer["candidates"]]
        told = {"user_id": event.user, "item_id": event.item, "time": moment, "event_id": event.id}
        kept = post(host, "/v1/events", {"events": [{**told, "values": dict(event.values)}]})
        assert kept["accepted"] == 1, kept
    host.close()
    return found, taken


def post(host: http.client.HTTPConnection, path: str, body: dict[str, Any]) -> dict[str, Any]:
    host.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = host.getresponse()
    told: dict[str, Any] = json.loads(answer.read())
    assert answer.status == 200, told
    return told


def exact(scorer: TowerScorer, data: Prepared, order: Events, *, seen: bool) -> np.ndarray:
    """bool [n]: the same, by the trained model and numpy."""
    found = np.zeros(len(order), bool)
    for start in range(0, len(order), BLOCK):
        part = order[start : start + BLOCK]
        scores = scorer.scores(part).numpy()
        for at, number in enumerate(part):
            history = data.events.history(int(number))
            if not seen:
                scores[at, history] = -np.inf
            best = np.argpartition(-scores[at], K)[:K]
            item = data.events.items[number]
            found[start + at] = item in best and np.isfinite(scores[at, item])
    return found


if __name__ == "__main__":
    main()
