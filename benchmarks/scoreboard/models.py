"""Every model on MovieLens-1M: leave-last-out, the whole catalogue, seen items removed, several seeds; beside baselines
and torch-rechub 0.9.0's models of the same names.

    python benchmarks/scoreboard/models.py [--models DSSM MIND …] [--seeds 1 2 3] [--data PATH] [--threads N]
        [--peer-seeds 1] [--peer-epochs 3] [--peer-seconds 600] [--part ours|baselines|peers|all]

Settings stand in models.toml beside this file. Each (model, seed) that is finished is recorded in
benchmarks/results/models_movielens-1m.json, and the same command goes on where it was stopped; a model whose settings
changed is measured anew. What torch-rechub's models are given is said in peers.py. `--list`: print the table.
"""

import argparse
import json
import statistics
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from machine import machine, printed

from scoreboard import peers
from scoreboard.beside import everything_else
from scoreboard.records import RESULTS as RECORDS
from scoreboard.records import fingerprint, settings_of
from scoreboard.run import WORK, Clock, device, log, placed, seeded
from zhiyin import pipeline
from zhiyin.baselines.als import ALS
from zhiyin.baselines.bpr import BPR
from zhiyin.baselines.ease import EASE
from zhiyin.baselines.item_knn import ItemKNN
from zhiyin.baselines.popularity import Popularity
from zhiyin.data import datasets
from zhiyin.data.prepared import Prepared
from zhiyin.data.sources import Source
from zhiyin.data.splits import Split
from zhiyin.evaluation.report import evaluate
from zhiyin.recipe import Recipe

SETTINGS = Path(__file__).parent / "models.toml"
RESULTS = RECORDS.parent / "models_movielens-1m.json"
KS = (10, 50, 100)
SHOWN = ("recall@10", "recall@50", "recall@100", "ndcg@10", "coverage@100")
BASELINES: Mapping[str, Any] = {
    "popularity": Popularity(),
    "item-kNN": ItemKNN(),
    "recent kNN": ItemKNN(half_life=5),
    "EASE": EASE(),
    "ALS": ALS(),
    "BPR-MF": BPR(),
}

Told = dict[str, Any]


def main(words: Sequence[str] | None = None) -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--models", nargs="+", choices=list(recipes(SETTINGS)), help="all when left out")
    read.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    read.add_argument("--data", type=Path, help="MovieLens-1M; fetched from its publisher when left out")
    read.add_argument("--threads", type=int, default=0, help="torch's threads; all cores when left out")
    read.add_argument("--part", choices=["ours", "baselines", "peers", "all"], default="all")
    read.add_argument("--peer-seeds", type=int, nargs="+", default=[1])
    read.add_argument("--peer-epochs", type=int, default=3)
    read.add_argument("--peer-seconds", type=float, default=600.0, help="of training, for each model and rate")
    read.add_argument("--list", action="store_true", help="print the table of what is recorded")
    read.add_argument("--settings", type=Path, default=SETTINGS)
    read.add_argument("--work", type=Path, default=WORK)
    read.add_argument("--results", type=Path, default=RESULTS)
    given = read.parse_args(words)
    told: Told = json.loads(given.results.read_text()) if given.results.exists() else {}
    if not given.list:
        if given.threads:
            torch.set_num_threads(given.threads)
        measure(given, told)
    printed(rows(told))


def measure(given: argparse.Namespace, told: Told) -> None:
    """What is asked for and not recorded yet; the record is written after each."""
    work = given.work / "models"
    source = datasets.load("movielens-1m", data=given.data, cache=datasets.default_cache(), out=work / "data")
    found = recipes(given.settings)
    names = given.models or list(found)
    told["machine"] = {**machine(), "threads": torch.get_num_threads(), "device": device()}
    for part in ("baselines", "models", "torch-rechub"):
        told.setdefault(part, {})
    if given.part in ("ours", "all"):
        for name in names:
            ours(name, found[name], source, work, given.seeds, told["models"], lambda: save(given.results, told))
    if given.part in ("baselines", "peers", "all"):
        ready = placed(found[names[0]], source, work / "split")
        pipeline.prepare(ready)
        data, split = pipeline.opened(ready)
        if given.part != "peers":
            baselines(data, split, told["baselines"])
            save(given.results, told)
        if given.part != "baselines":
            limits = {"epochs": given.peer_epochs, "seconds": given.peer_seconds}
            for name in (name for name in names if name in peers.NAMES):
                kept = told["torch-rechub"].get(name, {})
                if kept.get("limits") != limits:
                    kept = {"limits": limits, "runs": []}
                for seed in given.peer_seeds:
                    if seed not in [run["seed"] for run in kept["runs"]] and "failed" not in kept:
                        log(f"torch-rechub's {name}, seed {seed}")
                        folder = work / "torch-rechub" / name
                        run = peers.measured(name, seed, data, split, folder, **limits, ks=KS)
                        if "failed" in run:
                            kept["failed"] = run["failed"]
                        else:
                            kept["runs"].append(run)
                        told["torch-rechub"][name] = kept
                        save(given.results, told)


def recipes(path: Path) -> dict[str, Recipe]:
    """Each model's recipe: the common tables, and its own over them."""
    tables = tomllib.loads(path.read_text())
    common = tables.pop("common")
    return {
        name: Recipe.of(
            {
                table: values if "use" in values else {**common.get(table, {}), **values}
                for table, values in {**common, **own}.items()
            },
            path,
        )
        for name, own in tables.items()
    }


def ours(name: str, recipe: Recipe, source: Source, work: Path, seeds: Sequence[int], told: Told, save: Any) -> None:
    """A model's runs that are not recorded yet."""
    settings = json.loads(json.dumps(settings_of(recipe.tables)))
    if told.get(name, {}).get("settings") != settings:
        told[name] = {"settings": settings, "runs": []}
    runs = told[name]["runs"]
    for seed in seeds:
        if seed in [run["seed"] for run in runs]:
            continue
        one = seeded(recipe, source, work / name, seed)
        log(f"{name}, seed {seed} ({fingerprint(settings)})")
        clock = Clock(one.home / "seconds.json")
        fitted = pipeline.fit(one, clock.watching(f"{name}, seed {seed}"))
        data, split = pipeline.opened(one)
        report = evaluate({name: fitted.scorer(data)}, data, split.test, ks=KS, split_words=split.words, end=split.end)
        runs.append(
            {
                "seed": seed,
                "metrics": dict(report.rows[name]),
                "validation": fitted.recall,
                "best step": fitted.step,
                "training seconds": round(clock.seconds, 1),
                "measured": report.words,
            }
        )
        runs.sort(key=lambda run: int(run["seed"]))
        save()


def baselines(data: Prepared, split: Split, told: Told) -> None:
    """Those that are not recorded; they learn from all that is not the test."""
    whole = everything_else(data, split)
    for name, spec in BASELINES.items():
        if told.get(name, {}).get("settings") != str(spec):
            log(name)
            started = time.perf_counter()
            scorer = spec.fit(data, whole)
            seconds = time.perf_counter() - started
            report = evaluate({name: scorer}, data, split.test, ks=KS)
            told[name] = {"settings": str(spec), "metrics": report.rows[name], "training seconds": round(seconds, 1)}


def save(path: Path, told: Told) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(told, indent=2) + "\n")
    part.replace(path)


def rows(told: Told) -> list[dict[str, str]]:
    """The table: baselines, our models, torch-rechub's of the same names."""
    lines = [row(name, [one]) for name, one in told.get("baselines", {}).items()]
    for name, one in told.get("models", {}).items():
        lines.append(row(name, one["runs"]))
        lines += peer_row(name, told)
    lines += [
        line for name in told.get("torch-rechub", {}) if name not in told["models"] for line in peer_row(name, told)
    ]
    return lines or [row("nothing is recorded", [])]


def peer_row(name: str, told: Told) -> list[dict[str, str]]:
    """torch-rechub's line of a model, if there is one."""
    peer = told.get("torch-rechub", {}).get(name)
    if not peer:
        return []
    within = "at most {epochs} epochs, {seconds:.0f} s".format(**peer["limits"])
    return [row(f"  torch-rechub's {name}, {within}", peer["runs"], peer.get("failed", ""))]


def row(name: str, runs: Sequence[Told], failed: str = "") -> dict[str, str]:
    figures = {metric: mean([run["metrics"][metric] for run in runs]) for metric in SHOWN}
    seconds = [run["training seconds"] for run in runs]
    said = {"seconds": f"{statistics.mean(seconds):,.0f}" if seconds else failed[:60] or "–", "seeds": str(len(runs))}
    return {"": name, **figures, **said}


def mean(values: Sequence[float]) -> str:
    """Mean ± standard deviation of the sample."""
    if not values:
        return "–"
    return f"{statistics.mean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
