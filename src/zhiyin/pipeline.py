"""The stages, each a function of a recipe: what the command line calls, and what a script may call just as well."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zhiyin.data import sources
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, Split
from zhiyin.recipe import Recipe
from zhiyin.release import Release, Releases
from zhiyin.stores.base import Event, Store

if TYPE_CHECKING:
    from zhiyin.evaluation.report import Report
    from zhiyin.learning.fit import Fitted, Progress

CHUNK = 10_000
"""Events, users or items that are loaded into a store at a time."""


def prepare(recipe: Recipe, progress: Callable[[str], None] | None = None) -> sources.Summary:
    """Read, check, sort and number the log; write it to the recipe's `prepared` folder."""
    return sources.prepare(recipe.source, recipe.prepared, progress)


def append(recipe: Recipe, events: Path, progress: Callable[[str], None] | None = None) -> sources.Summary:
    """Add the events of new files (one, a folder or a pattern) to the prepared log; known users and items keep their
    rows. The recipe says how the columns are called, as ever, and its item and user tables are read anew."""
    return sources.append(replace(recipe.source, events=events), recipe.prepared, progress)


def opened(recipe: Recipe) -> tuple[Prepared, Split]:
    """The prepared data and its split. Raises `DataError` when it was not prepared."""
    data = Prepared.open(recipe.prepared)
    return data, recipe.splitter.split(data.events, data.clock)


def fit(
    recipe: Recipe, watch: Callable[["Progress"], None] = lambda progress: None, *, fresh: bool = False
) -> "Fitted":
    """Train; go on where an interrupted run stood, unless `fresh`. Prepares the data first if that was not done."""
    plan = recipe.plan
    from zhiyin.learning import fit as learning

    if not (recipe.prepared / "manifest.json").exists():
        prepare(recipe)
    data, split = opened(recipe)
    schema = recipe.schema.fit(data, split)
    if fresh:
        shutil.rmtree(recipe.run, ignore_errors=True)
    recipe.run.mkdir(parents=True, exist_ok=True)
    with (recipe.run / "log.jsonl").open("a") as log:

        def look(progress: "Progress") -> None:
            log.write(json.dumps({name: getattr(progress, name) for name in progress.__slots__}) + "\n")
            log.flush()
            watch(progress)

        return learning.fit(plan, data, split, schema, recipe.run, look)


def evaluate(recipe: Recipe, *, part: str = "test", ks: tuple[int, ...] = (10, 50, 100)) -> "Report":
    """The trained model's metrics over the whole catalogue beside simple baselines'; also written to the run."""
    from zhiyin.baselines.item_knn import ItemKNN
    from zhiyin.baselines.popularity import Popularity
    from zhiyin.evaluation.ranking import Scorer
    from zhiyin.evaluation.report import evaluate as measure
    from zhiyin.learning.fit import Fitted

    data, split = opened(recipe)
    fitted = Fitted.open(recipe.run, len(data.items))
    held = split.test if part == "test" else split.validation
    scorers: dict[str, Scorer] = {
        type(fitted.plan.model).__name__: fitted.scorer(data),
        "popularity": Popularity().fit(data, split),
    }
    if data.clock:
        scorers["popularity, 7 days"] = Popularity(days=7).fit(data, split)
    scorers["item-kNN"] = ItemKNN().fit(data, split)
    report = measure(scorers, data, held, ks=ks, split_words=f"{part} of {split.words}")
    (recipe.run / f"{part}.json").write_text(json.dumps(report.to_json(), indent=2) + "\n")
    return report


def publish(recipe: Recipe, now: datetime | None = None) -> Release:
    """The trained model becomes the live release."""
    import torch

    from zhiyin.learning.examples import Examples
    from zhiyin.learning.fit import Fitted
    from zhiyin.publish import publish as build

    now = now or datetime.now(UTC)
    data, split = opened(recipe)
    fitted = Fitted.open(recipe.run, len(data.items))
    examples = Examples(data, fitted.schema, end=fitted.end, device=torch.device("cpu"))
    return build(
        fitted.model,
        fitted.schema,
        data,
        items=examples.items(),
        sample=examples.queries(_sample(split.test, recipe.promise.queries)),
        popular=np.argsort(-np.bincount(data.events.items, minlength=len(data.items)), kind="stable").astype(np.int32),
        index=recipe.index,
        root=recipe.releases,
        id=f"{now:%Y%m%d-%H%M%S}-{os.urandom(2).hex()}",
        facts=_facts(recipe, fitted, split, now),
        promise=recipe.promise,
    )


def load(recipe: Recipe, store: Store, watch: Callable[[str, int], None] = lambda what, done: None) -> dict[str, int]:
    """Put the prepared data's profiles, events and item cards into the store; how many of each."""
    data = Prepared.open(recipe.prepared)
    items, users = data.items.ids(), data.users.ids()
    for start in range(0, len(items), CHUNK):
        cards = data.item_table.records(start, min(start + CHUNK, len(items)))
        store.put_cards(dict(zip(items[start : start + CHUNK], cards, strict=True)))
        watch("items", start + len(cards))
    profiles = 0
    for start in range(0, len(users), CHUNK):
        records = data.user_table.records(start, min(start + CHUNK, len(users)))
        told = {user: record for user, record in zip(users[start : start + CHUNK], records, strict=True) if record}
        store.put_profiles(told)
        profiles += len(told)
        watch("users", start + len(records))
    for start in range(0, len(data.events), CHUNK):
        stop = min(start + CHUNK, len(data.events))
        store.append(_events(data, start, stop, users, items))
        watch("events", stop)
    return {"items": len(items), "profiles": profiles, "events": len(data.events)}


@dataclass(frozen=True, slots=True)
class Served:
    """A store and releases opened for serving."""

    store: Store
    releases: Releases


def serving(recipe: Recipe) -> Served:
    """Open what the service needs. Raises `StoreError` where the store cannot be opened."""
    return Served(recipe.store.open(), Releases(recipe.releases))


def _events(data: Prepared, start: int, stop: int, users: list[str], items: list[str]) -> list[Event]:
    log = data.events
    values = log.columns.records(start, stop)
    return [
        Event(users[log.users[at]], items[log.items[at]], int(log.times[at]), values[at - start])
        for at in range(start, stop)
    ]


def _sample(held: HeldOut, count: int) -> Any:
    """Event numbers of at most `count` held-out queries, spread evenly."""
    places = np.linspace(0, len(held) - 1, min(count, len(held))).astype(np.int64)
    return held.starts[places]


def _facts(recipe: Recipe, fitted: "Fitted", split: Split, now: datetime) -> dict[str, Any]:
    from zhiyin import spec

    facts: dict[str, Any] = {
        "created": now.isoformat(timespec="seconds"),
        "model": spec.used_table(fitted.plan.model, "zhiyin.models"),
        "step": fitted.step,
        "split": split.words,
        "metrics": {f"validation recall@{fitted.plan.training.measure}": fitted.recall},
    }
    tested = recipe.run / "test.json"
    if tested.exists():
        facts["test"] = json.loads(tested.read_text())
    return facts
