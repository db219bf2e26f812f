"""Are items found that nobody has chosen yet? Recall of new items: content with id dropout, without, ids alone, chance.

    python benchmarks/cold_items.py [--data FOLDER] [--worlds realistic …] [--models DSSM …] [--shares 0 0.3 …]
                                    [--seeds 0 1 2] [--out benchmarks/results/cold_items.json]

Three worlds have clocks (a synthetic one, Online Retail, MovieLens-100K): what came before the last tenth of the events
is learned from, and an item is new when it is first seen in that tenth. In the others a time is a position in one
user's own order, so that no item is first seen anywhere: each user's last tenth of events is the test, and a random
tenth of the items (another with each seed) is new: their events before the test are taken out of the log. FOLDER holds
the named data sets, as `zhiyin data NAME --data` takes them; what is not there is fetched. A query is a user at the
cut. "among all": its new items among the k best of the whole catalogue; "among new": among the k best of the new items
alone; "warm": its other items, among all; "seldom": those of them that were chosen less than twenty times in training;
items of the user's history are passed over. "a tenth": one place in ten is kept for new items that are not there
anyhow, those that the towers score highest ("by the towers", what the channel Fresh(among=…) does under a quota) or any
("at random", which is all that the newest first can be here). "id kept": a new item keeps its row in the table, which
only negatives have moved; "by content": the tower is told that it does not know it. Each figure is the mean of the
seeds, `sd` their standard deviation. Writes benchmarks/results/cold_items.json, or what --out names.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine, printed
from numpy.typing import NDArray

from zhiyin.data import datasets
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.realistic import realistic
from zhiyin.data.sources import Source, prepare
from zhiyin.data.splits import HeldOut, Split
from zhiyin.data.tables import Table
from zhiyin.features.bag import Bag
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Fitted, Plan, Training, fit
from zhiyin.learning.negatives import Mixed
from zhiyin.learning.scoring import TowerScorer
from zhiyin.models.base import ModelSpec
from zhiyin.models.dssm import DSSM
from zhiyin.models.youtube_dnn import YouTubeDNN

Parts = tuple[Prepared, Split, NDArray[np.bool_]]
"""The data, what is learned from and asked, and bool [m] which items are new."""

RESULTS = Path(__file__).parent / "results" / "cold_items.json"
TENTH, K, QUERIES, SELDOM = 0.1, (10, 50), 3_000, 20
TOLD = (
    *("new among all", "new among new", "warm", "seldom"),
    *("a tenth by the towers, new", "a tenth by the towers, warm", "a tenth at random, new"),
)
MODELS: dict[str, ModelSpec] = {"YouTubeDNN": YouTubeDNN(), "DSSM": DSSM()}
FEATURES: dict[str, Schema] = {
    "realistic": Schema(item=(Categorical("category", dim=32), Categorical("brand", dim=32), Numeric("price"))),
    "online-retail": Schema(
        item=(Bag("title", dim=32, separator=" ", at_least=2), Numeric("median_price", scale="log"))
    ),
    "movielens-1m": Schema(item=(Bag("genres", dim=32), Bag("words", "title", dim=32, separator=" ", at_least=2))),
    "movielens-100k": Schema(item=(Bag("genres", dim=32), Bag("words", "title", dim=32, separator=" ", at_least=2))),
    "amazon-beauty": Schema(item=(Bag("attributes", dim=32, length=16, at_least=2),)),
}


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--data", type=Path, help="fetched from their publishers when left out")
    read.add_argument("--worlds", nargs="+", default=list(FEATURES), choices=list(FEATURES))
    read.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.1, 0.3, 1.0])
    read.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    read.add_argument("--epochs", type=int, default=4)
    read.add_argument("--examples", type=int, default=40, help="of a user an epoch")
    read.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    read.add_argument("--out", type=Path, default=RESULTS)
    given = read.parse_args()
    told: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    for name in given.worlds:
        with tempfile.TemporaryDirectory() as folder:
            found = measured(name, given, Path(folder))
        told |= {"machine": machine(), name: found}
        given.out.parent.mkdir(exist_ok=True)
        given.out.write_text(json.dumps(told, indent=2) + "\n")


def measured(name: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Facts of a world, and a row for every model and every way to know a new item."""
    prepare(source_of(name, given.data, folder), folder / "prepared")
    data = Prepared.open(folder / "prepared")
    facts, runs = [], []
    for seed in given.seeds:
        parts, split, new = divided(data, seed)
        targets = wanted(parts, split.test, new)
        facts.append(
            {
                "new": int(new.sum()),
                "queries with new items": sum(len(one) > 0 for one in targets),
                "new targets": sum(len(one) for one in targets),
            }
        )
        print(f"\n{name}, seed {seed}: {facts[-1]}", flush=True)
        runs.append(of_one_seed(name, given, seed, (parts, split, new), folder / f"{seed}"))
    rows = spread(runs)
    printed([{key: value for key, value in row.items() if not key.endswith(" sd")} for row in rows])
    told = {"items": len(data.items), "events": len(data.events), "clock": data.clock, "seeds": given.seeds}
    told |= {"of each seed": facts, "epochs": given.epochs, "examples of a user an epoch": given.examples}
    return {**told, "rows": rows}


def of_one_seed(name: str, given: argparse.Namespace, seed: int, parts: Parts, folder: Path) -> list[dict[str, Any]]:
    data, split, new = parts
    rows: list[dict[str, Any]] = [{"model": "chance", "item tower": "", **chance(data, split, new, seed)}]

    def keep(kind: str, tower: str, fitted: Fitted) -> None:
        rows.append({"model": kind, "item tower": tower, **recalls(fitted, data, split, new)})
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)

    for kind in given.models:
        model, run = MODELS[kind], folder / kind
        training = Training(given.epochs, 1024, given.examples, patience=1, device="cpu", seed=seed)
        plan = Plan(model, Mixed(512), training=training)
        keep(kind, "id alone", trained(plan, data, split, Schema(), run / "ids"))
        for share in given.shares:
            dropping = replace(plan, training=replace(training, id_dropout=share))
            fitted = trained(dropping, data, split, FEATURES[name], run / f"{share}")
            keep(kind, named(share), fitted)
            if share == 0:
                keep(kind, "content and id, id kept", replace(fitted, nameless=torch.empty(0, dtype=torch.int64)))
    return rows


def spread(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The mean of each figure over the runs, and its standard deviation."""
    rows = []
    for same in zip(*runs, strict=True):
        row = {name: same[0][name] for name in ("model", "item tower")}
        for name in [name for name in same[0] if name not in row]:
            values = np.array([one[name] for one in same])
            row[name] = round(float(values.mean()), 4)
            if len(values) > 1:
                row[f"{name} sd"] = round(float(values.std(ddof=1)), 4)
        rows.append(row)
    return rows


def named(share: float) -> str:
    if share in (0, 1):
        return "content and id, new ones by content" if share == 0 else "content alone (id_dropout 1)"
    return f"content and id, id_dropout {share:g}"


def source_of(name: str, data: Path | None, folder: Path) -> Source:
    if name == "realistic":
        return realistic(6_000, 6_000, 150_000, seed=0, groups=200, shown=0, width=5.0).write(folder / "log")
    given = data / name if data is not None and (data / name).exists() else None
    return datasets.load(name, data=given, cache=datasets.default_cache(), out=folder / "log")


def divided(data: Prepared, seed: int) -> Parts:
    """`seed`: of which items are new, where there is no clock to say so."""
    log = data.events
    if data.clock:
        ranked = np.sort(log.times)
        cut, before_cut = (int(ranked[int(len(ranked) * (1 - share))]) for share in (TENTH, 2 * TENTH))
        late, middle = log.times >= cut, (log.times >= before_cut) & (log.times < cut)
        return data, split_of(log, late, middle), np.bincount(log.items[~late], minlength=len(data.items)) == 0
    new = np.random.default_rng(seed).random(len(data.items)) < TENTH
    kept = ~(new[log.items] & ~of_the_end(log, TENTH))
    log = EventLog.of(
        log.users[kept],
        log.items[kept],
        log.times[kept],
        user_count=len(data.users),
        columns=Table(log.columns.arrow.filter(kept)),
    )
    late = of_the_end(data.events, TENTH)[kept]
    middle = of_the_end(data.events, 2 * TENTH)[kept] & ~late
    return replace(data, events=log), split_of(log, late, middle), new


def of_the_end(log: EventLog, share: float) -> NDArray[np.bool_]:
    """bool [E] the last share of each user's events."""
    counts = np.diff(log.offsets)[log.users]
    places = np.arange(len(log)) - log.offsets[log.users]
    return np.asarray(places >= np.floor(counts * (1 - share)))


def split_of(log: EventLog, late: NDArray[np.bool_], middle: NDArray[np.bool_]) -> Split:
    train = np.flatnonzero(~late & ~middle)
    return Split(train, held(log, middle), held(log, late), int(log.times[train].max()), "the last tenth")


def held(log: EventLog, inside: NDArray[np.bool_]) -> HeldOut:
    """Of each user with something before: one query, all their events inside."""
    events = np.flatnonzero(inside)
    users = log.users[events]
    first = np.flatnonzero(np.r_[True, users[1:] != users[:-1]])
    starts, counts = events[first], np.diff(np.r_[first, len(events)])
    known = starts > log.offsets[log.users[starts]]
    return HeldOut(starts[known], (starts + counts)[known])


def wanted(data: Prepared, asked: HeldOut, among: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    """The items of each query's targets that are among these, each once, without those of its history."""
    log, found = data.events, []
    for start, stop in zip(asked.starts, asked.stops, strict=True):
        items = np.setdiff1d(log.items[start:stop], log.history(start))
        found.append(items[among[items]])
    return found


def trained(plan: Plan, data: Prepared, split: Split, schema: Schema, folder: Path) -> Fitted:
    return fit(plan, data, split, schema.fit(data, split), folder)


def recalls(fitted: Fitted, data: Prepared, split: Split, new: NDArray[np.bool_]) -> dict[str, float]:
    scorer: TowerScorer = fitted.scorer(data, "cpu")
    return found_by(lambda events: scorer.scores(events).numpy(), data, split, new)


def chance(data: Prepared, split: Split, new: NDArray[np.bool_], seed: int) -> dict[str, float]:
    random = np.random.default_rng(seed)
    return found_by(lambda events: random.random((len(events), len(data.items)), np.float32), data, split, new)


Scores = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def found_by(scores: Scores, data: Prepared, split: Split, new: NDArray[np.bool_]) -> dict[str, float]:
    """recall@k, the mean over queries that have such targets: new ones among all and among new, and warm among all."""
    asked = split.test
    counts = np.bincount(data.events.items[split.train], minlength=len(data.items))
    cold, warm, seldom = (wanted(data, asked, among) for among in (new, ~new, (counts > 0) & (counts < SELDOM)))
    told: dict[str, list[float]] = {f"{what} @{k}": [] for what in TOLD for k in K}
    random = np.random.default_rng(0)
    places = np.flatnonzero([len(one) > 0 for one in cold])
    places = np.union1d(places, np.linspace(0, len(asked) - 1, min(len(asked), QUERIES)).astype(np.int64))
    for part in np.array_split(places, max(1, len(places) // 512)):
        found = scores(asked.starts[part])
        for row, place in enumerate(part):
            found[row, data.events.history(int(asked.starts[place]))] = -np.inf
        among_all = best(found)
        among_new = best(np.where(new, found, -np.inf))
        among_any = best(np.where(new & np.isfinite(found), random.random(found.shape, np.float32), -np.inf))
        for row, place in enumerate(part):
            for k in K:
                for way, extra in (("by the towers", among_new[row]), ("at random", among_any[row])):
                    lot = with_a_tenth(among_all[row], extra, k)
                    if len(cold[place]):
                        told[f"a tenth {way}, new @{k}"].append(float(np.isin(cold[place], lot).mean()))
                    if len(warm[place]) and way == "by the towers":
                        told[f"a tenth {way}, warm @{k}"].append(float(np.isin(warm[place], lot).mean()))
                if len(cold[place]):
                    told[f"new among all @{k}"].append(float(np.isin(cold[place], among_all[row, :k]).mean()))
                    told[f"new among new @{k}"].append(float(np.isin(cold[place], among_new[row, :k]).mean()))
                if len(seldom[place]):
                    told[f"seldom @{k}"].append(float(np.isin(seldom[place], among_all[row, :k]).mean()))
                if len(warm[place]):
                    told[f"warm @{k}"].append(float(np.isin(warm[place], among_all[row, :k]).mean()))
    return {name: round(float(np.mean(values)), 4) for name, values in told.items()}


def with_a_tenth(ranked: NDArray[np.int64], extra: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """k of the ranked rows, the last tenth of whose places `extra` ones have."""
    kept = ranked[: k - k // 10]
    return np.concatenate([kept, extra[~np.isin(extra, kept)][: k // 10]])


def best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """[n, max K] the best items, best first."""
    nearest = np.argpartition(-scores, max(K), axis=1)[:, : max(K)]
    order = np.argsort(-np.take_along_axis(scores, nearest, 1), axis=1, kind="stable")
    return np.take_along_axis(nearest, order, 1)


if __name__ == "__main__":
    main()
