"""The stages, each a function of a recipe: what the command line calls, and what a script may call just as well."""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zhiyin import loading
from zhiyin.data import origin, sources
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, Split
from zhiyin.data.tables import Column
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError, ReleaseError, SpecError, TrainingError
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.schema import Schema
from zhiyin.filters import bitmap
from zhiyin.indexes.auto import Auto
from zhiyin.places.locks import locked
from zhiyin.recipe import Recipe
from zhiyin.release import Arrays, Release
from zhiyin.releases import Releases
from zhiyin.service import pruning
from zhiyin.service.stream import Consumer, Counted
from zhiyin.stores.base import Store
from zhiyin.stores.redis import Redis

if TYPE_CHECKING:
    from zhiyin.evaluation.report import Measured, Report
    from zhiyin.evaluation.saved import Comparison
    from zhiyin.evaluation.through import EndToEnd
    from zhiyin.indexes.base import Vectors
    from zhiyin.indexes.tune import Tuned
    from zhiyin.learning.fit import Fitted, Progress
    from zhiyin.learning.scoring import TowerScorer

KS = (10, 50, 100)
"""How many candidates an evaluation looks at."""

TUNED_WITH = 4_000
"""Held-out queries that an index is tuned with."""


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
    recipe: Recipe,
    watch: Callable[["Progress"], None] = lambda progress: None,
    *,
    fresh: bool = False,
    profile: bool = False,
    start: Path | None = None,
) -> "Fitted":
    """Train; go on where an interrupted run stood, unless `fresh`. Prepares the data first if that was not done (not
    under torchrun: prepare first). `profile`: tell `watch` where the time goes. `start`: the folder of a run whose
    weights a new run begins with, after files were appended. Raises `DataError` where the recipe's [data] is not what
    was prepared."""
    plan = recipe.plan
    from zhiyin.learning import fit as learning
    from zhiyin.learning.earlier import Earlier
    from zhiyin.learning.journal import Journal

    if not (recipe.prepared / "manifest.json").exists() and "WORLD_SIZE" not in os.environ:
        prepare(recipe)
    origin.refuse_other(recipe.source, recipe.prepared)
    data, split = opened(recipe)
    schema = recipe.schema.fit(data, split)
    earlier = None if start is None else Earlier.open(start)
    if earlier is not None:
        schema = schema.onward(earlier.schema)
    with _alone(recipe.run), Journal(recipe.run, fresh=fresh) as journal:

        def look(progress: "Progress") -> None:
            journal.write(progress)
            watch(progress)

        return learning.fit(plan, data, split, schema, recipe.run, look, fresh=fresh, profile=profile, start=earlier)


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """One fit at a time writes a run. Of several processes of one fit, the first has the lock. Raises `TrainingError`
    for another fit."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(run / ".fit.lock", "fit", 0))
        except ReleaseError as error:
            remedy = "Wait until it has ended, or give this recipe another `home`."
            raise TrainingError(error.what, where=str(run), remedy=remedy) from None
        yield


def evaluate(
    recipe: Recipe,
    *,
    part: str = "test",
    ks: Sequence[int] = KS,
    every_baseline: bool = False,
    remove_seen: bool = True,
    beside: Sequence[Recipe] = (),
) -> "Report":
    """The trained model's metrics over the whole catalogue beside simple baselines' and the models of the recipes
    `beside`. Written to the run: the report as `part`.json, and what each query found as `part`.npz, which `compare`
    reads. Raises `SpecError` for a k below 1, and `DataError` for a recipe of another log or split."""
    return _measure(recipe, part, ks, every_baseline, remove_seen, beside).measured.report


def show(
    recipe: Recipe,
    *,
    part: str = "test",
    ks: Sequence[int] = KS,
    slices: Sequence[str] = (),
    every_baseline: bool = False,
    remove_seen: bool = True,
    beside: Sequence[Recipe] = (),
    released: Sequence["EndToEnd"] = (),
) -> tuple["Report", dict[str, Any], Path]:
    """`evaluate`, with intervals, slices (also by the columns named), and all else that a page shows: the report, the
    page's numbers, and where it was written; the numbers stand beside it as JSON. `released`: what `through` found;
    without it the live release, if it is of this training, is searched for some of the queries."""
    from zhiyin.evaluation.analysis import analyse, training_events
    from zhiyin.evaluation.curve import some
    from zhiyin.evaluation.embedding import embedding, titles
    from zhiyin.evaluation.lists import one_hot
    from zhiyin.evaluation.page import page
    from zhiyin.evaluation.progress import progress

    at = _measure(recipe, part, ks, every_baseline, remove_seen, beside)
    named, category = _category(at.fitted.schema, at.data, slices)
    traits = None if category is None else one_hot(category)
    features = (*at.fitted.schema.user, *at.fitted.schema.item)
    separators = {one.column or one.name: one.separator for one in features if isinstance(one, Bag)}
    document = analyse(at.measured, at.data, at.split, columns=slices, separators=separators, traits=traits)
    document["training"] = progress(recipe.run / "log.jsonl", f"recall@{at.fitted.plan.training.measure}")
    vectors = at.scorer.items.cpu().numpy()
    called = titles(at.data.items.ids(), at.data.item_table)
    document["embedding"] = embedding(vectors, training_events(at.data, at.split), category, named, called)
    live = _live(recipe, at.scorer)
    if live is not None and not released:
        few = some(at.measured.asked)
        released = _searched(live, at.scorer, at.data, few, (document["k"],), remove_seen=remove_seen)
    document["through"] = [asdict(one) for one in released]
    document["release"] = None if live is None else live.id
    document["index"] = None if live is None else _index_part(recipe, live, at, document["k"])
    written = recipe.run / f"{part}-report.html"
    written.with_suffix(".json").write_text(json.dumps(document, allow_nan=False) + "\n")
    written.write_text(page(document, f"{type(at.fitted.plan.model).__name__} on {recipe.home.resolve().name}"))
    return at.measured.report, document, written


def trained(recipe: Recipe) -> "Fitted":
    """The best step of the recipe's run. Raises `TrainingError` where there is none, `DataError` without its data."""
    _ = recipe.plan  # says what is missing where only serving is installed
    from zhiyin.learning.fit import Fitted

    return Fitted.open(recipe.run, len(Prepared.open(recipe.prepared).items))


def outdated(recipe: Recipe) -> list[str]:
    """The tables of the recipe that say something else than its run was trained with: they take effect with the next
    fit. Raises `TrainingError` where there is no run."""
    plan = recipe.plan
    from zhiyin.learning.fit import outdated as changed

    return changed(recipe.run, plan, recipe.schema)


def compare(first: Recipe, second: Recipe, *, part: str = "test") -> "Comparison":
    """The second recipe's model beside the first's, paired by query. Raises `DataError` where one was not evaluated, or
    the two were asked different queries."""
    from zhiyin.evaluation.saved import Saved
    from zhiyin.evaluation.saved import compare as paired

    return paired(Saved.open(first.run / f"{part}.npz"), Saved.open(second.run / f"{part}.npz"))


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """A run, opened and measured."""

    data: Prepared
    split: Split
    held: HeldOut
    fitted: "Fitted"
    scorer: "TowerScorer"
    measured: "Measured"


def _measure(
    recipe: Recipe,
    part: str,
    ks: Sequence[int],
    every_baseline: bool,
    remove_seen: bool,
    beside: Sequence[Recipe],
) -> _Evaluation:
    fitted = trained(recipe)
    from zhiyin.baselines.standard import standard
    from zhiyin.evaluation.report import measure
    from zhiyin.evaluation.saved import Saved

    data, split = opened(recipe)
    held = split.test if part == "test" else split.validation
    scorer = fitted.scorer(data)
    name = type(fitted.plan.model).__name__
    scorers = {name: scorer, **_others(beside, data, split, name), **standard(data, split, everything=every_baseline)}
    words = f"{part} of {split.words}"
    measured = measure(scorers, data, held, ks=ks, remove_seen=remove_seen, split_words=words, end=split.end)
    facts = {"step": fitted.step, **measured.report.to_json()}
    (recipe.run / f"{part}.json").write_text(json.dumps(facts, indent=2) + "\n")
    Saved.of(measured, data).save(recipe.run / f"{part}.npz")
    return _Evaluation(data, split, held, fitted, scorer, measured)


def _others(recipes: Sequence[Recipe], data: Prepared, split: Split, first: str) -> dict[str, "TowerScorer"]:
    """The trained models of other recipes, by the model's name, and the recipe's where that is taken."""
    scorers: dict[str, TowerScorer] = {}
    for recipe in recipes:
        fitted = trained(recipe)
        its, other = opened(recipe)
        if not _same_queries(data, split, its, other):
            raise DataError(
                "its log or its split is another one, and so are its queries",
                where=str(recipe.path),
                remedy="Give both recipes the same [data] and [split], and prepare both.",
            )
        name = type(fitted.plan.model).__name__
        labels = (name, f"{name} ({recipe.path.stem})", f"{name} ({recipe.path})")
        label = next((one for one in labels if one != first and one not in scorers), labels[-1])
        scorers[label] = fitted.scorer(its)
    return scorers


def _same_queries(data: Prepared, split: Split, its: Prepared, other: Split) -> bool:
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
        (data.events.items, its.events.items),
        (data.events.offsets, its.events.offsets),
        (data.events.times, its.events.times),
        (split.train, other.train),
        (split.validation.starts, other.validation.starts),
        (split.test.starts, other.test.starts),
    ]
    return all(np.array_equal(one, two) for one, two in pairs) and data.items.ids() == its.items.ids()


def _category(schema: Schema, data: Prepared, slices: Sequence[str]) -> tuple[str, Column | None]:
    """The item column that lists and maps are told apart by, its name and its values: that of the first feature with
    categories, else the first that is sliced by, else none."""
    feature = next((f for f in schema.item if isinstance(f, Categorical | Bag)), None)
    if feature is None:
        name = next((name for name in slices if name in data.item_table), "")
        return name, data.item_table[name] if name else None
    column = data.item_table[feature.column or feature.name]
    if isinstance(feature, Bag):
        parted = [value.split(feature.separator) if isinstance(value, str) else value for value in column]
        column = np.empty(len(parted), object)
        column[:] = parted
    return feature.column or feature.name, column


def through(
    recipe: Recipe,
    *,
    part: str = "test",
    ks: Sequence[int] = KS,
    filters: Sequence[str] = (),
    remove_seen: bool = True,
) -> list["EndToEnd"]:
    """For each k, what the live release's index lets through to the user of what exact search finds; then the same for
    each filter: both look among the items that pass it, and others are no targets. Raises `ReleaseError` where nothing
    is live or what is live was made of another training, `RequestError` for a filter that the release cannot answer,
    and `DataError` when no held-out query has a target."""
    fitted = trained(recipe)
    from zhiyin.evaluation.through import holds

    release = recipe.releases.open()
    data, split = opened(recipe)
    scorer = fitted.scorer(data)
    if not holds(release.vectors, scorer):
        raise ReleaseError(
            f"the live release '{release.id}' was made of another training than the recipe's last",
            where=str(recipe.releases.root),
            remedy="Publish again: zhiyin publish RECIPE.",
        )
    held = split.test if part == "test" else split.validation
    return _searched(release, scorer, data, held, ks, filters, remove_seen=remove_seen)


def _searched(
    release: Release,
    scorer: "TowerScorer",
    data: Prepared,
    held: HeldOut,
    ks: Sequence[int],
    filters: Sequence[str] = (),
    *,
    remove_seen: bool,
) -> list["EndToEnd"]:
    """Without a filter, then with each of them, and of each every k."""
    from zhiyin.evaluation.through import end_to_end

    kept = {"": None, **{words: bitmap.allowed(release, words) for words in filters}}
    return [
        end_to_end(release.index, scorer, data, held, k, allowed=allowed, filter=words, remove_seen=remove_seen)
        for words, allowed in kept.items()
        for k in ks
    ]


def _live(recipe: Recipe, scorer: "TowerScorer") -> Release | None:
    """The live release; None where there is none, or none of this training."""
    from zhiyin.evaluation.through import holds

    release = recipe.releases.open() if recipe.releases.ids() else None
    return release if release is not None and holds(release.vectors, scorer) else None


def _index_part(recipe: Recipe, live: Release, at: _Evaluation, k: int) -> dict[str, Any] | None:
    """How the live release's index trades time for overlap."""
    from zhiyin import spec
    from zhiyin.evaluation.curve import index_part

    kind = spec.used_build(live.manifest["index"], "zhiyin.indexes")
    path = recipe.releases.root / live.id / "index.bin"
    return index_part(kind, path, np.asarray(live.vectors), at.scorer, at.measured.asked, k)


def publish(recipe: Recipe, now: datetime | None = None, watch: Callable[[str], None] = lambda words: None) -> Release:
    """The trained model becomes the live release; `watch` is told what is being done."""
    fitted = trained(recipe)
    import torch

    from zhiyin.publish import publish as build

    now, index = now or datetime.now(UTC), recipe.index
    if isinstance(index, Auto):
        index = index.after(_training_seconds(recipe))
    data, split = opened(recipe)
    examples = fitted.examples(data, torch.device("cpu"))
    return build(
        fitted.model,
        fitted.schema,
        data,
        sample=examples.queries(_sample(split.test, max(recipe.promise.queries, TUNED_WITH * isinstance(index, Auto)))),
        popular=np.argsort(-np.bincount(data.events.items, minlength=len(data.items)), kind="stable").astype(np.int32),
        index=index,
        root=recipe.releases,
        id=f"{now:%Y%m%d-%H%M%S}-{os.urandom(2).hex()}",
        facts=_facts(recipe, fitted, split, now),
        promise=recipe.promise,
        tables=_tables(recipe, data, split),
        watch=watch,
        nameless=fitted.nameless,
    )


def _tables(recipe: Recipe, data: Prepared, split: Split) -> dict[str, Arrays]:
    """What the channels want to find in a release, by name: those of the recipe, and of the built-in ones those that
    the log can serve."""
    from zhiyin.baselines.neighbourhoods import fitted
    from zhiyin.channels.online import BUILT_IN

    whole = replace(split, train=np.arange(len(data.events)), end=int(data.events.times.max(initial=0)))

    def neighbourhoods(baseline: Mapping[str, Any], keep: int) -> Arrays:
        return fitted(baseline, data, whole, keep)

    tables = {}
    for name, channel in {**BUILT_IN, **recipe.online.channels}.items():
        try:
            tables[name] = channel.tables(data, neighbourhoods)
        except (DataError, SpecError) as error:
            if name in recipe.online.channels:
                raise error.at(f"online.channels.{name}") from None
    return {name: arrays for name, arrays in tables.items() if arrays}


def tune(
    recipe: Recipe,
    changes: Mapping[str, Any] = MappingProxyType({}),
    release: str | None = None,
    watch: Callable[[str], None] = lambda words: None,
) -> "Tuned":
    """The fastest index that reaches the recipe's goal (its `[index]` where that is `auto:Auto`, else what `Auto` says
    of itself), with `changes` to it: measured on the trained model's vectors, or on those of a published `release` (its
    id; "" is the live one), with held-out users'. `watch` is told what is being tried. Nothing is kept.
    """
    from zhiyin.indexes.tune import tune as search

    goal = recipe.index if isinstance(recipe.index, Auto) else Auto()
    goal = replace(goal, **changes).after(_training_seconds(recipe))
    with tempfile.TemporaryDirectory(prefix="zhiyin-tune-") as folder:
        watch("vectors of items and held-out users")
        if release is None:
            vectors, users = _trained_vectors(recipe, Path(folder))
        else:
            vectors, users = _published_vectors(recipe, release)
        return search(vectors, users.reshape(-1, users.shape[-1]), goal, watch)


def _trained_vectors(recipe: Recipe, folder: Path) -> tuple["Vectors", "Vectors"]:
    """[m, d] the trained model's item vectors, in a file in `folder`, and [n, h, d] held-out users'."""
    fitted = trained(recipe)
    import torch

    from zhiyin.models.catalogue import item_blocks, item_vectors, write_vectors

    data, split = opened(recipe)
    model = fitted.model.cpu().eval()
    blocks = item_blocks(fitted.schema, data, nameless=fitted.nameless)
    vectors = write_vectors(partial(item_vectors, model), blocks, len(data.items), folder / "vectors.npy")
    examples = fitted.examples(data, torch.device("cpu"))
    with torch.inference_mode():
        return vectors, model.user_vectors(examples.queries(_sample(split.test, TUNED_WITH))).numpy()


def _published_vectors(recipe: Recipe, id: str) -> tuple["Vectors", "Vectors"]:
    """The same of a release, whose own user tower sees the histories in its own rows."""
    release = recipe.releases.open(id)
    import torch

    from zhiyin.learning.examples import Examples

    data, split = opened(recipe)
    examples = Examples(data, release.schema, end=split.end, device=torch.device("cpu"))
    queries = examples.queries(_sample(split.test, TUNED_WITH))
    rows = np.append(release.items.rows(data.items.ids()), np.int32(UNKNOWN))  # the last is what UNKNOWN points at
    history = rows.astype(np.int64)[queries.history.numpy()]
    columns = {name: column.numpy() for name, column in queries.columns.items()}
    return release.vectors, release.user_tower({"history": history, **columns})


def _training_seconds(recipe: Recipe) -> float:
    """How long the recipe's run has taken, by what its log says of its speed; 0 without one."""
    log, seconds, before = recipe.run / "log.jsonl", 0.0, 0
    for line in log.read_text().splitlines() if log.exists() else ():
        look = json.loads(line)
        seconds += max(0, look["step"] - before) * recipe.plan.training.batch_size / look["examples_per_second"]
        before = look["step"]
    return seconds


def load(
    recipe: Recipe, store: Store, watch: loading.Watch = loading.unwatched, *, replace_newer: bool = False
) -> dict[str, int]:
    """Put the prepared data's item cards, profiles, and each user's newest events (as many as the store keeps) into the
    store; how many of each. Safe to run again: what is there already is there once.

    The cards of items that were put or deleted over HTTP since the item table was written stay as they are (`newer`
    says how many), unless `replace_newer`."""
    data = Prepared.open(recipe.prepared)
    changed = None if replace_newer else loading.Newer(store, 1e3 * items_as_of(recipe).timestamp())
    there = loading.cards(data, store, changed, watch)
    return {
        "items": there,
        "newer": len(data.items) - there,
        "profiles": loading.profiles(data, store, watch),
        "events": loading.events(data, store, recipe.store.keep, watch),
    }


def items_as_of(recipe: Recipe) -> datetime:
    """The prepared data know what became of items by then: when the item table that they were made of was last written
    before it was read. Without an item table they know nothing of it."""
    known = origin.items_as_of(recipe.prepared)
    if known is None:  # prepared before that was kept
        known = (recipe.prepared / "manifest.json").stat().st_mtime
    return datetime.fromtimestamp(int(known), UTC)


def prune_changes(recipe: Recipe, now: datetime | None = None) -> pruning.Pruned:
    """Forget the changes of items that no release which is there needs any more. Of a release, only which items it has
    is read. Raises `ReleaseError` where that cannot be, `StoreError` where the store does not answer."""
    releases, store = recipe.releases, recipe.store.open()
    try:
        if not store.changes(0, 1).changes:
            return pruning.Pruned()
        known = [releases.catalogue(id) for id in releases.ids()]
        return pruning.prune(store, known, int(1e3 * (now or datetime.now(UTC)).timestamp()))
    finally:
        store.close()


@dataclass(frozen=True, slots=True)
class Served:
    """A store and releases opened for serving."""

    store: Store
    releases: Releases


def serving(recipe: Recipe) -> Served:
    """Open what the service needs. Raises `StoreError` where the store cannot be opened."""
    return Served(recipe.store.open(), recipe.releases)


def consume(
    recipe: Recipe, stop: threading.Event, *, once: bool = False, say: Callable[[str], None] = lambda words: None
) -> Counted:
    """Put the events of the recipe's stream into its store until `stop` is set, or, with `once`, until none is left.

    Raises `SpecError` for a store that is not Redis, on which the stream would lie."""
    if not isinstance(recipe.store, Redis):
        raise SpecError(
            f"a stream lies on Redis, and the store is {type(recipe.store).__name__}",
            where=recipe.path.name,
            remedy='Set [store] use = "redis:Redis", or send events to POST /v1/events.',
        )
    store = recipe.store.open()
    try:
        consumer = Consumer(recipe.stream, recipe.store, store, earliest=recipe.service.earliest)
        say(f"taking events from {consumer.key} as {consumer.name} of group {recipe.stream.group}; ctrl-c stops it")
        try:
            consumer.run(stop, once=once)
        finally:
            consumer.close()
        return consumer.counted
    finally:
        store.close()


def _sample(held: HeldOut, count: int) -> Any:
    """Event numbers of at most `count` held-out queries, spread evenly."""
    places = np.linspace(0, len(held) - 1, min(count, len(held))).astype(np.int64)
    return held.starts[places]


def _facts(recipe: Recipe, fitted: "Fitted", split: Split, now: datetime) -> dict[str, Any]:
    from zhiyin import spec

    prepared = (recipe.prepared / "manifest.json").stat().st_mtime
    facts: dict[str, Any] = {
        "created": now.isoformat(timespec="seconds"),
        "prepared": datetime.fromtimestamp(int(prepared), UTC).isoformat(),
        "items_as_of": items_as_of(recipe).isoformat(),
        "model": spec.used_table(fitted.plan.model, "zhiyin.models"),
        "step": fitted.step,
        "split": split.words,
        "channels": {
            name: spec.used_table(channel, "zhiyin.channels") for name, channel in recipe.online.channels.items()
        },
        "metrics": {f"validation recall@{fitted.plan.training.measure}": fitted.recall},
    }
    tested = recipe.run / "test.json"
    if tested.exists():
        measured = json.loads(tested.read_text())
        if measured.get("step") == fitted.step:  # and not the metrics of what an earlier fit had made
            facts["test"] = measured
    return facts
