"""The stages, each a function of a recipe: what the command line calls, and what a script may call just as well."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zhiyin.data import sources
from zhiyin.data.events import EventLog, Events
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, Split
from zhiyin.data.tables import Table
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


def opened(recipe: Recipe) -> tuple[Prepared, Split]:
    """The prepared data and its split. Raises `DataError` when it was not prepared."""
    data = Prepared.open(recipe.prepared)
    return data, recipe.splitter.split(data.events, data.clock)


def fit(
    recipe: Recipe,
    watch: Callable[["Progress"], None] = lambda progress: None,
    *,
    fresh: bool = False,
    profile: bool = False,
) -> "Fitted":
    """Train; go on where an interrupted run stood, unless `fresh`. Prepares the data first if that was not done (not
    under torchrun: prepare first). `profile`: tell `watch` where the time goes."""
    plan = recipe.plan
    from zhiyin.learning import fit as learning
    from zhiyin.learning.journal import Journal

    if not (recipe.prepared / "manifest.json").exists() and "WORLD_SIZE" not in os.environ:
        prepare(recipe)
    data, split = opened(recipe)
    schema = recipe.schema.fit(data, split)
    if fresh:
        (recipe.run / "log.jsonl").unlink(missing_ok=True)
    with Journal(recipe.run) as journal:

        def look(progress: "Progress") -> None:
            journal.write(progress)
            watch(progress)

        return learning.fit(plan, data, split, schema, recipe.run, look, fresh=fresh, profile=profile)


def evaluate(recipe: Recipe, *, part: str = "test", ks: tuple[int, ...] = (10, 50, 100)) -> "Report":
    """The trained model's metrics over the whole catalogue beside simple baselines'; also written to the run."""
    fitted = trained(recipe)
    from zhiyin.baselines.item_knn import ItemKNN
    from zhiyin.baselines.popularity import Popularity
    from zhiyin.evaluation.ranking import Scorer
    from zhiyin.evaluation.report import evaluate as measure

    data, split = opened(recipe)
    held = split.test if part == "test" else split.validation
    scorers: dict[str, Scorer] = {
        type(fitted.plan.model).__name__: fitted.scorer(data),
        "popularity": Popularity().fit(data, split),
    }
    if data.clock:
        scorers["popularity, 7 days"] = Popularity(days=7).fit(data, split)
    scorers["item-kNN"] = ItemKNN().fit(data, split)
    report = measure(scorers, data, held, ks=ks, split_words=f"{part} of {split.words}")
    measured = {"step": fitted.step, **report.to_json()}
    (recipe.run / f"{part}.json").write_text(json.dumps(measured, indent=2) + "\n")
    return report


def trained(recipe: Recipe) -> "Fitted":
    """The best step of the recipe's run. Raises `TrainingError` where there is none, `DataError` without its data."""
    _ = recipe.plan  # says what is missing where only serving is installed
    from zhiyin.learning.fit import Fitted

    return Fitted.open(recipe.run, len(Prepared.open(recipe.prepared).items))


def publish(recipe: Recipe, now: datetime | None = None) -> Release:
    """The trained model becomes the live release."""
    fitted = trained(recipe)
    import torch

    from zhiyin.learning.examples import Examples
    from zhiyin.publish import publish as build

    now = now or datetime.now(UTC)
    data, split = opened(recipe)
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


Watch = Callable[[str, int, int], None]
"""Told what is being loaded, how many are done, and of how many."""


def load(recipe: Recipe, store: Store, watch: Watch = lambda what, done, total: None) -> dict[str, int]:
    """Put the prepared data's item cards, profiles, and each user's newest events (as many as the store keeps) into the
    store; how many of each. Safe to run again: what is there already is there once."""
    data = Prepared.open(recipe.prepared)
    return {
        "items": _load_cards(data, store, watch),
        "profiles": _load_profiles(data, store, watch),
        "events": _load_events(data, store, recipe.store.keep, watch),
    }


def _load_cards(data: Prepared, store: Store, watch: Watch) -> int:
    total = len(data.items)
    for start in range(0, total, CHUNK):
        rows = range(start, min(start + CHUNK, total))
        cards = data.item_table.records(rows.start, rows.stop)
        store.put_cards(dict(zip(data.items.ids(rows), cards, strict=True)))
        watch("items", rows.stop, total)
    return total


def _load_profiles(data: Prepared, store: Store, watch: Watch) -> int:
    total, loaded = len(data.users), 0
    for start in range(0, total, CHUNK):
        rows = range(start, min(start + CHUNK, total))
        records = data.user_table.records(rows.start, rows.stop)
        told = {user: record for user, record in zip(data.users.ids(rows), records, strict=True) if record}
        store.put_profiles(told)
        loaded += len(told)
        watch("users", rows.stop, total)
    return loaded


def _load_events(data: Prepared, store: Store, keep: int, watch: Watch) -> int:
    kept = np.minimum(np.diff(data.events.offsets), keep)
    total, loaded = int(kept.sum()), 0
    for numbers in _newest(data.events, kept):
        store.append(_events(data, numbers))
        loaded += len(numbers)
        watch("events", loaded, total)
    return total


def _newest(log: EventLog, kept: NDArray[np.int64]) -> Iterator[Events]:
    """The newest `kept` [users] events of each user, for some whole users at a time: about `CHUNK` events."""
    before = np.r_[0, np.cumsum(kept)]
    first = 0
    while first < len(kept):
        stop = max(first + 1, int(np.searchsorted(before, before[first] + CHUNK, side="right")) - 1)
        ends = log.offsets[first + 1 : stop + 1]
        runs = [np.arange(end - count, end) for end, count in zip(ends, kept[first:stop], strict=True)]
        yield np.concatenate(runs)
        first = stop


@dataclass(frozen=True, slots=True)
class Served:
    """A store and releases opened for serving."""

    store: Store
    releases: Releases


def serving(recipe: Recipe) -> Served:
    """Open what the service needs. Raises `StoreError` where the store cannot be opened."""
    return Served(recipe.store.open(), Releases(recipe.releases))


def _events(data: Prepared, numbers: Events) -> list[Event]:
    """These events of the log as the store takes them. An event that the log holds several times has an id for each
    further one, so that the store keeps them all, too."""
    log = data.events
    users, items = data.users.ids(log.users[numbers]), data.items.ids(log.items[numbers])
    values = Table(log.columns.arrow.take(numbers)).records(0, len(numbers))
    seen: Counter[tuple[str, str, int]] = Counter()
    events = []
    for user, item, time, told in zip(users, items, log.times[numbers].tolist(), values, strict=True):
        seen[user, item, time] += 1
        again = seen[user, item, time] - 1
        events.append(Event(user, item, time, told, f"{item}@{time}+{again}" if again else ""))
    return events


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
        measured = json.loads(tested.read_text())
        if measured.get("step") == fitted.step:  # and not the metrics of what an earlier fit had made
            facts["test"] = measured
    return facts
