"""Measure a set of the scoreboard: train its recipe once for each seed, and record what each run finds in the test.

    python benchmarks/scoreboard/run.py amazon-beauty --seeds 1 2 3 [--data PATH] [--threads N] [--recipe TOML]

SET: amazon-beauty, amazon-sports, movielens-1m, gowalla or online-retail. PATH: a folder or archive that
`zhiyin data SET --data` takes; fetched from its publisher when left out. Each seed is `zhiyin fit` and
`zhiyin evaluate` of examples/recipes/SET.toml; a finished one is recorded in benchmarks/results/scoreboard, and the
same command goes on where it was stopped, with the seed that was training, too. `--baselines`: only those.
benchmarks/scoreboard/page.py makes the table out of the records.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # both as the command line does
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from machine import machine

from scoreboard.beside import bands, baselines, everything_else
from scoreboard.records import RESULTS, Record, fingerprint, settings_of
from scoreboard.sets import SETS, BenchmarkSet
from zhiyin import pipeline
from zhiyin.data import datasets
from zhiyin.data.sources import Source
from zhiyin.evaluation.report import evaluate, per_query
from zhiyin.evaluation.saved import Saved
from zhiyin.learning.fit import Fitted, Progress, fit
from zhiyin.recipe import Recipe

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
WORK = Path(tempfile.gettempdir()) / "zhiyin-benchmarks" / "scoreboard"


def main(words: Sequence[str] | None = None) -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("set", choices=list(SETS))
    read.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    read.add_argument("--data", type=Path, help="the data; fetched from their publisher when left out")
    read.add_argument("--threads", type=int, default=0, help="torch's threads; all cores when left out")
    read.add_argument("--recipe", type=Path, help="another recipe than examples/recipes/SET.toml")
    read.add_argument("--baselines", action="store_true", help="measure the baselines, train nothing")
    read.add_argument("--work", type=Path, default=WORK, help="where runs are kept, to be gone on with")
    read.add_argument("--results", type=Path, default=RESULTS, help="where records are written")
    given = read.parse_args(words)
    if given.threads:
        torch.set_num_threads(given.threads)
    one = SETS[given.set]
    work = given.work / one.name
    recipe = Recipe.read(given.recipe or RECIPES / f"{one.name}.toml")
    source = datasets.load(one.name, data=given.data, cache=datasets.default_cache(), out=work / "data")
    path = given.results / f"{one.name}.json"
    record = Record.current(path, one.name, one.protocol, settings_of(recipe.tables))
    for seed in [] if given.baselines else given.seeds:
        if record.has(seed):
            log(f"{one.name}: seed {seed} is recorded")
            continue
        record.runs.append(measured(one, seeded(recipe, source, work, seed), seed))
        record.runs.sort(key=lambda run: int(run["seed"]))
        record.save(path)
    if not record.baselines:
        log(f"{one.name}: baselines")
        record.baselines = beside(one, recipe, source, work)
    record.save(path)


def log(words: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {words}", flush=True)


def seeded(recipe: Recipe, source: Source, work: Path, seed: int) -> Recipe:
    """The recipe with one seed, on these data, its home in a folder named after its settings."""
    home = work / fingerprint(settings_of(recipe.tables)) / f"seed-{seed}"
    return placed(recipe, source, home, training={**recipe.tables.get("training", {}), "seed": seed})


def placed(recipe: Recipe, source: Source, home: Path, **tables: Mapping[str, Any]) -> Recipe:
    """The recipe on these data, with another home and some other tables."""
    wanted = recipe.tables["data"]
    places = {name: str(getattr(source, name)) for name in ("events", "items", "users") if name in wanted}
    data = {**wanted, **places, "time_unit": source.time_unit}
    return Recipe.of({**recipe.tables, "home": str(home), "data": data, **tables}, recipe.path)


def beside(one: BenchmarkSet, recipe: Recipe, source: Source, work: Path) -> dict[str, Any]:
    """The set's baselines, measured."""
    ready = placed(recipe, source, work / "baselines")
    pipeline.prepare(ready)
    return baselines(one, *pipeline.opened(ready))


def measured(one: BenchmarkSet, recipe: Recipe, seed: int) -> dict[str, Any]:
    """One run, trained (or gone on with) and measured on the test, once."""
    log(f"{one.name}: seed {seed} in {recipe.home}")
    clock = Clock(recipe.home / "seconds.json")
    first = fitted = pipeline.fit(recipe, clock.watching(f"{one.name}, seed {seed}"))
    if one.refit:
        recipe, fitted = refitted(recipe, first, clock)
    report = pipeline.evaluate(recipe, part="test", ks=one.ks)
    name = type(fitted.plan.model).__name__
    saved = Saved.open(recipe.run / "test.npz")
    values = per_query(saved.hits[name], saved.counts, one.ks)
    data, split = pipeline.opened(recipe)
    kept = evaluate({name: fitted.scorer(data)}, data, split.test, ks=(one.k,), remove_seen=False)
    run = {
        "seed": seed,
        "model": name,
        "metrics": dict(report.rows[name]),
        "intervals": bands(values, saved.users),
        "with seen items kept": {bar.metric: kept.value(name, bar.metric) for bar in one.bars},
        "validation": {f"recall@{first.plan.training.measure}": first.recall},
        "best step": first.step,
        "training seconds": round(clock.seconds, 3),
        "measured": report.words,
        "machine": {**machine(), "threads": torch.get_num_threads(), "device": device()},
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    told = ", ".join(f"{bar.metric} {report.value(name, bar.metric):.4f}" for bar in one.bars)
    log(f"{one.name}: seed {seed}: {told}; {clock.seconds:,.0f} s of training")
    return run


def refitted(recipe: Recipe, chosen: Fitted, clock: "Clock") -> tuple[Recipe, Fitted]:
    """The same settings, learned from all that is not the test, for as many epochs as validation chose; its only
    validation is at the end, and decides nothing."""
    looks = [json.loads(line) for line in (recipe.run / "log.jsonl").read_text().splitlines()]
    epochs = math.ceil(next(look["epoch"] for look in looks if look["step"] == chosen.step) - 1e-9)
    training = {**recipe.tables.get("training", {}), "epochs": epochs, "validate_every": epochs, "patience": 0}
    tables = {**recipe.tables, "home": str(recipe.home / "refit"), "training": training}
    again = Recipe.of(tables, recipe.path)
    if not (again.prepared / "manifest.json").exists():
        pipeline.prepare(again)
    data, split = pipeline.opened(again)
    whole = everything_else(data, split)
    log(f"learning anew from all that is not the test, {epochs} epochs")
    fitted = fit(again.plan, data, whole, again.schema.fit(data, whole), again.run, lambda progress: clock.keep())
    return again, fitted


class Clock:
    """Seconds of training, looks at validation included, over all the times that a run was gone on with."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = float(json.loads(path.read_text())) if path.exists() else 0.0
        self._since = time.perf_counter()
        self.seconds = self._before

    def keep(self) -> None:
        """Note the seconds until now."""
        self.seconds = self._before + time.perf_counter() - self._since
        self._path.write_text(json.dumps(self.seconds))

    def watching(self, words: str) -> Callable[[Progress], None]:
        """What `fit` is watched by: keeps the seconds, and logs each validation."""

        def watch(progress: Progress) -> None:
            self.keep()
            if progress.validated:
                log(
                    f"{words}: epoch {progress.epoch:.1f}, loss {progress.loss:.4f}, validation recall "
                    f"{progress.recall:.4f}, best {progress.best:.4f}, {progress.examples_per_second:,.0f} examples/s"
                )

        return watch


def device() -> str:
    """What torch computes on where a recipe leaves it to it."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    main()
