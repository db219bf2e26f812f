"""The scoreboard: its page says what its records say, and a run is resumed, recorded once, and never measured again."""

import json
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from zhiyin import pipeline, spec
from zhiyin.data import worlds
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut
from zhiyin.evaluation.report import evaluate
from zhiyin.recipe import Recipe

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from scoreboard import page, run  # noqa: E402
from scoreboard.beside import everything_else  # noqa: E402
from scoreboard.records import RESULTS, Record, settings_of  # noqa: E402
from scoreboard.sets import SETS, Bar  # noqa: E402

RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.toml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small log in place of Amazon Beauty, and a recipe that learns from it in a second."""
    folder = tmp_path_factory.mktemp("scoreboard")
    log = worlds.ring(120, 40, 10, 0.1, seed=0).events
    columns = {
        "user_id": log.users.astype(str),
        "item_id": log.items.astype(str),
        "time": np.arange(len(log)) - log.offsets[log.users],
    }
    (folder / "amazon-beauty").mkdir()
    pa.parquet.write_table(pa.table(columns), folder / "amazon-beauty" / "events.parquet")
    (folder / "small.toml").write_text(
        '[data]\nevents = "events.parquet"\n[model]\nuse = "youtube_dnn:YouTubeDNN"\ndim = 8\nhidden = [16]\n'
        '[negatives]\nuse = "negatives:Uniform"\ncount = 8\n[training]\nepochs = 2\nbatch_size = 256\nmeasure = 10\n'
    )
    return folder


def measure(folder: Path, *words: str, recipe: str = "small.toml") -> Record:
    places = ("--data", str(folder), "--work", str(folder / "work"), "--results", str(folder / "results"))
    run.main(["amazon-beauty", "--recipe", str(folder / recipe), *places, *words])
    return Record.open(folder / "results" / "amazon-beauty.json")


def test_a_seed_is_recorded_once_and_others_are_added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measure(folder, "--seeds", "2")
    assert [one["seed"] for one in first.runs] == [2]
    asked: list[Recipe] = []
    real = pipeline.evaluate

    def counted(recipe: Recipe, **options: Any) -> Any:
        asked.append(recipe)
        return real(recipe, **options)

    monkeypatch.setattr(pipeline, "evaluate", counted)
    both = measure(folder, "--seeds", "1", "2")
    assert [recipe.plan.training.seed for recipe in asked] == [1]
    assert [one["seed"] for one in both.runs] == [1, 2]
    assert both.runs[1] == first.runs[0]
    assert both.baselines == first.baselines
    assert set(both.baselines) == {"popularity", "item-kNN", "recent kNN", "EASE"}


def test_a_record_is_what_evaluate_finds(folder: Path) -> None:
    record = measure(folder, "--seeds", "1")
    (home,) = (folder / "work" / "amazon-beauty").glob("*/seed-1")
    tables = {**Recipe.read(folder / "small.toml").tables, "home": str(home)}
    report = pipeline.evaluate(Recipe.of(tables, folder / "small.toml"), ks=(10,))
    told = record.runs[0]
    assert told["metrics"]["recall@10"] == report.value("YouTubeDNN", "recall@10")
    low, high = told["intervals"]["recall@10"]
    assert low < told["metrics"]["recall@10"] < high
    assert told["measured"].startswith("test of leave-last-out")
    assert told["training seconds"] > 0
    trained = pipeline.trained(Recipe.of(tables, folder / "small.toml"))
    data, split = pipeline.opened(Recipe.of(tables, folder / "small.toml"))
    kept = evaluate({"one": trained.scorer(data)}, data, split.test, ks=(10,), remove_seen=False)
    assert told["with seen items kept"]["recall@10"] == kept.value("one", "recall@10")


def test_runs_of_other_settings_are_kept_as_earlier_ones_and_come_back(folder: Path) -> None:
    before = measure(folder, "--seeds", "1")
    text = (folder / "small.toml").read_text()
    (folder / "other.toml").write_text(text.replace("dim = 8", "dim = 4"))
    other = measure(folder, "--seeds", "1", recipe="other.toml")
    assert other.settings["model"]["dim"] == 4
    assert len(other.runs) == 1
    assert other.earlier == [{"settings": before.settings, "runs": before.runs}]
    assert measure(folder, "--seeds", "1").runs == before.runs
    other.protocol = "another one"
    other.save(folder / "results" / "amazon-beauty.json")
    with pytest.raises(SystemExit, match="measured by another protocol"):
        measure(folder, "--seeds", "1")
    other.protocol = before.protocol
    other.save(folder / "results" / "amazon-beauty.json")


class Killed(BaseException):
    """What stops a run in the middle."""


def test_a_run_that_is_stopped_goes_on_with_its_seed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = run.Clock.watching

    def stopping(self: run.Clock, words: str) -> Callable[[Any], None]:
        watch = watching(self, words)

        def stop(progress: Any) -> None:
            watch(progress)
            raise Killed

        return stop

    with monkeypatch.context() as patched:
        patched.setattr(run.Clock, "watching", stopping)
        with pytest.raises(Killed):
            measure(folder, "--seeds", "5")
    steps: list[int] = []

    def noting(self: run.Clock, words: str) -> Callable[[Any], None]:
        watch = watching(self, words)

        def note(progress: Any) -> None:
            watch(progress)
            steps.append(progress.step)

        return note

    monkeypatch.setattr(run.Clock, "watching", noting)
    seconds = json.loads(next((folder / "work").glob("*/*/seed-5/seconds.json")).read_text())
    record = measure(folder, "--seeds", "5")
    told = next(one for one in record.runs if one["seed"] == 5)
    assert told["training seconds"] >= round(seconds, 1)
    whole = next(one for one in measure(folder, "--seeds", "1").runs if one["seed"] == 1)
    assert len(steps) == 1  # of two epochs the second
    assert told["machine"] == whole["machine"]


def test_baselines_learn_from_all_that_is_not_the_test() -> None:
    data: Prepared = worlds.ring(50, 20, 6, 0.1, seed=0)
    split = LeaveLastOut().split(data.events, data.clock)
    whole = everything_else(data, split)
    assert sorted([*whole.train, *split.test.starts]) == list(range(len(data.events)))
    assert whole.end == data.events.times[whole.train].max()


def test_the_page_is_written_from_the_records() -> None:
    assert page.PAGE.read_text() == page.page(page.records(RESULTS)), "run benchmarks/scoreboard/page.py"


def test_every_figure_of_the_first_table_is_in_the_records() -> None:
    found = page.records(RESULTS)
    text = page.PAGE.read_text().split("\n## ")[0]
    for one in SETS.values():
        record = found.get(one.name)
        for bar in one.bars:
            (line,) = re.findall(rf"^\| {re.escape(one.title)} \| {bar.metric} \| (.*) \|$", text, re.MULTILINE)
            values = [run["metrics"][bar.metric] for run in record.runs] if record else []
            shown = line.split(" | ")[2]
            assert shown == "–" if not values else shown.startswith(f"{statistics.mean(values):.4f}")


def told(value: float, low: float, high: float) -> dict[str, Any]:
    return {"metrics": {"m@10": value}, "intervals": {"m@10": [low, high]}}


@pytest.mark.parametrize(
    ("bar", "values", "expected"),
    [
        (Bar("m@10", 0.1, 0.2), [0.21, 0.23, 0.22], "**goal passed**, +120.0% of the bar"),
        (Bar("m@10", 0.1, 0.2), [0.15, 0.15, 0.15], "**bar passed**, +50.0% of the bar, -25.0% of the goal"),
        (Bar("m@10", 0.1, 0.2), [0.09, 0.09], "falls short: -10.0% of the bar (2 of 3 seeds)"),
        (Bar("m@10", 0.1, 0.2), [], "not measured yet"),
        (Bar("m@10", above=0.1), [0.3, 0.3, 0.3], "**goal passed**, +50.0% of the bar"),
    ],
)
def test_what_is_said_of_a_bar(bar: Bar, values: list[float], expected: str) -> None:
    record = Record("x", "", {}, [told(one, 0.25, 0.35) for one in values], {"EASE": told(0.2, 0.15, 0.24)})
    assert page.verdict(bar, page.targets(bar, record), values, record) == expected
    if bar.above:
        record.baselines["EASE"]["intervals"]["m@10"] = [0.15, 0.26]  # they overlap
        assert not page.verdict(bar, page.targets(bar, record), values, record).startswith("**goal")
        record.baselines["popularity"] = told(0.4, 0.39, 0.41)
        assert page.targets(bar, record) == pytest.approx((0.4, 0.44))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_sets_recipe_can_be_built_and_measures_what_the_bar_does(path: Path) -> None:
    recipe = Recipe.read(path)
    one = SETS[path.stem]
    assert recipe.plan.training.measure == one.k
    assert set(settings_of(recipe.tables)) <= set(recipe.tables) - {"home"}
    assert replace(recipe.plan, training=spec.build(type(recipe.plan.training), {})) != recipe.plan
    words = {"amazon-beauty": "LeaveLastOut", "amazon-sports": "LeaveLastOut", "movielens-1m": "LeaveLastOut"}
    split = {**words, "gowalla": "Marked", "online-retail": "TimeCut"}[one.name]
    assert type(recipe.splitter).__name__ == split
    assert recipe.index is not None


def test_every_set_has_a_recipe() -> None:
    assert [path.stem for path in RECIPES] == sorted(SETS)


def test_settings_know_no_places_and_no_seed() -> None:
    tables = {
        "home": "there",
        "data": {"events": "here", "columns": ["split"], "time_unit": "s"},
        "training": {"seed": 3, "epochs": 2},
    }
    assert settings_of(tables) == {"data": {"columns": ["split"]}, "training": {"epochs": 2}}
    other = {**tables, "home": "elsewhere", "training": {"seed": np.int64(4).item(), "epochs": 2}}
    assert settings_of(other) == settings_of(tables)
