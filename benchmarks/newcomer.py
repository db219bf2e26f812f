"""How good is a newcomer's first recipe? The one that `zhiyin data movielens-100k` writes, with one model or another,
trained by the library's own step rules and by others; seeds side by side.

    python benchmarks/newcomer.py [--data ARCHIVE_OR_FOLDER] [--models YouTubeDNN DSSM …] [--ways library falling …]

Settings are compared on validation; the test figures stand beside them, and what each training cost.
"""

import argparse
import json
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from zhiyin import pipeline
from zhiyin.data import datasets
from zhiyin.data.guess import inspect, recipe_text
from zhiyin.evaluation.report import evaluate
from zhiyin.recipe import Recipe

MODELS = {"YouTubeDNN": "youtube_dnn", "DSSM": "dssm", "SASRec": "sasrec", "ESASRec": "esasrec"}
FALLING = {"lr": 0.002, "table_lr": 0.006, "decay": "linear"}
WAYS: dict[str, dict[str, Any]] = {
    "library": {},
    "falling": {"optimizer": FALLING},
    "falling to the end": {"optimizer": FALLING, "training": {"epochs": 10, "patience": 0}},
}
"""Step rules to compare: tables that are laid over the recipe's."""

SHOWN = ("validation", "recall@10", "recall@50", "ndcg@10", "CPU seconds")


def main() -> None:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--data", type=Path, help="MovieLens-100K as a folder or an archive, instead of fetching it")
    read.add_argument("--models", nargs="+", choices=MODELS, default=["YouTubeDNN", "DSSM", "SASRec"])
    read.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    read.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    read.add_argument("--write", type=Path, default=Path(__file__).parent / "results" / "newcomer.json")
    given = read.parse_args()
    told: dict[str, Any] = {"machine": machine(), "runs": []}
    with tempfile.TemporaryDirectory() as place:
        recipe = written(Path(place), given.data)
        for model in given.models:
            for way in given.ways:
                for seed in given.seeds:
                    told["runs"].append({"model": model, "way": way, "seed": seed, **trained(recipe, model, way, seed)})
                    given.write.parent.mkdir(exist_ok=True)
                    given.write.write_text(json.dumps(told, indent=2) + "\n")
                print(line(model, way, [one for one in told["runs"] if (one["model"], one["way"]) == (model, way)]))


def written(folder: Path, data: Path | None) -> Recipe:
    """What `zhiyin data` writes, prepared."""
    found = datasets.load("movielens-100k", data=data, cache=datasets.default_cache(), out=folder)
    guess = inspect(found.events, found.items, found.users, time_unit=found.time_unit)
    (folder / "recipe.toml").write_text(recipe_text(guess, "made", folder))
    recipe = Recipe.read(folder / "recipe.toml")
    pipeline.prepare(recipe)
    return recipe


def trained(recipe: Recipe, model: str, way: str, seed: int) -> dict[str, Any]:
    """One training's figures."""
    tables = tomllib.loads(recipe.path.read_text())
    tables["model"]["use"] = f"{MODELS[model]}:{model}"
    tables["training"]["seed"] = seed
    for name, table in WAYS[way].items():
        tables[name] = {**tables.get(name, {}), **table}
    one = Recipe.of(tables, recipe.path)
    since = time.process_time()
    fitted = pipeline.fit(one, fresh=True)
    seconds = time.process_time() - since
    data, split = pipeline.opened(one)
    row = evaluate({model: fitted.scorer(data)}, data, split.test, ks=(10, 50), end=split.end).rows[model]
    return {"validation": fitted.recall, "step": fitted.step, "CPU seconds": round(seconds, 1), **row}


def line(model: str, way: str, runs: list[dict[str, Any]]) -> str:
    figures = {name: np.array([run[name] for run in runs]) for name in SHOWN}
    cells = [f"{name} {values.mean():.4g} ± {values.std():.2g}" for name, values in figures.items()]
    return f"{model}, {way}: {', '.join(cells)}"


if __name__ == "__main__":
    main()
