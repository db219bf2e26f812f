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
from zhiyin.data.splits import LeaveLastOut, Marked, TimeCut
from zhiyin.evaluation.report import evaluate
from zhiyin.models.base import ModelSpec
from zhiyin.recipe import Recipe

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from scoreboard import models, page, peers, run  # noqa: E402
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
    assert told["training seconds"] >= round(seconds, 3)
    whole = next(one for one in measure(folder, "--seeds", "1").runs if one["seed"] == 1)
    assert len(steps) == 1  # of two epochs the second
    assert told["machine"] == whole["machine"]


def test_a_set_with_refit_is_learned_anew_from_all_that_is_not_the_test(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETS, "amazon-beauty", replace(SETS["amazon-beauty"], refit=True))
    places = ("--data", str(folder), "--work", str(tmp_path / "work"), "--results", str(tmp_path))
    run.main(["amazon-beauty", "--recipe", str(folder / "small.toml"), *places, "--seeds", "1"])
    (home,) = (tmp_path / "work" / "amazon-beauty").glob("*/seed-1")
    tables = Recipe.read(folder / "small.toml").tables
    first, again = (Recipe.of({**tables, "home": str(at)}, tmp_path) for at in (home, home / "refit"))
    chosen, fitted = pipeline.trained(first), pipeline.trained(again)
    data, split = pipeline.opened(first)
    assert fitted.end == data.events.times[everything_else(data, split).train].max() > chosen.end
    assert fitted.step == chosen.step == 4 * fitted.plan.training.epochs  # four steps an epoch, then and now
    (told,) = Record.open(tmp_path / "amazon-beauty.json").runs
    report = evaluate({"one": fitted.scorer(data)}, data, split.test, ks=(10,))
    assert told["metrics"]["recall@10"] == report.value("one", "recall@10")
    assert told["validation"] == {"recall@10": chosen.recall}


def test_baselines_learn_from_all_that_is_not_the_test() -> None:
    data: Prepared = worlds.ring(50, 20, 6, 0.1, seed=0)
    split = LeaveLastOut().split(data.events, data.clock)
    whole = everything_else(data, split)
    assert sorted([*whole.train, *split.test.starts]) == list(range(len(data.events)))
    assert whole.end == data.events.times[whole.train].max()


def test_the_page_is_written_from_the_records() -> None:
    assert page.PAGE.read_text() == page.page(page.records(RESULTS), page.models()), "run benchmarks/scoreboard/page.py"


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
def test_every_sets_recipe_can_be_built_and_splits_as_its_protocol_says(path: Path) -> None:
    recipe = Recipe.read(path)
    one = SETS[path.stem]
    assert recipe.plan.training.measure in one.ks
    splits = {"gowalla": Marked(validation=0.1), "online-retail": TimeCut(30.0, 14.0, "days")}
    assert recipe.splitter == splits.get(one.name, LeaveLastOut())


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


def test_the_table_of_models_has_settings_for_every_model_there_is() -> None:
    found = models.recipes(models.SETTINGS)
    assert sorted(type(recipe.plan.model).__name__ for recipe in found.values()) == sorted(
        name for _, name in spec.choices("zhiyin.models", ModelSpec)
    )
    assert all(name == type(recipe.plan.model).__name__ for name, recipe in found.items())
    assert found["SASRec"].schema.history_length == 200
    assert found["MIND"].schema.history_length == 50
    assert found["SASRec"].plan.training.patience == found["MIND"].plan.training.patience  # laid over, not replaced
    assert set(peers.NAMES) <= set(found)


def small_films(folder: Path) -> None:
    """A log with the columns of MovieLens-1M."""
    data = worlds.tastes(users=60, items=40, groups=4, events_per_user=8, seed=0).data
    log = data.events
    events = {"user_id": log.users.astype(str), "item_id": log.items.astype(str), "time": np.arange(len(log))}
    items = {"item_id": [str(row) for row in range(40)], "genres": [["a"], ["b", "c"]] * 20}
    users = {"user_id": [str(row) for row in range(60)], "gender": ["F", "M"] * 30, "age": [1, 25, 50] * 20}
    users["occupation"] = [str(row % 5) for row in range(60)]
    folder.mkdir()
    for name, columns in (("events", events), ("items", items), ("users", users)):
        pa.parquet.write_table(pa.table(columns), folder / f"{name}.parquet")


def test_the_table_of_models_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_films(tmp_path / "movielens-1m")
    places = ("--data", str(tmp_path), "--work", str(tmp_path / "work"), "--results", str(tmp_path / "told.json"))
    text = (
        '[common.data]\nevents = "e.parquet"\nitems = "i.parquet"\nusers = "u.parquet"\n'
        "[common.training]\nepochs = 1\nbatch_size = 128\n"
        '[YouTubeDNN.model]\nuse = "youtube_dnn:YouTubeDNN"\ndim = 8\nhidden = [8]\n'
        '[MIND.model]\nuse = "mind:MIND"\ndim = 8\n[MIND.training]\nbatch_size = 64\n'
    )
    settings = tmp_path / "models.toml"
    settings.write_text(text)

    def told(*words: str) -> dict[str, Any]:
        models.main(["--settings", str(settings), "--part", "ours", *places, *words])
        return dict(json.loads((tmp_path / "told.json").read_text()))

    first = told("--models", "MIND", "--seeds", "1")
    assert list(first["models"]) == ["MIND"]
    assert set(models.SHOWN) <= set(first["models"]["MIND"]["runs"][0]["metrics"])
    both = told("--seeds", "1", "2")
    assert both["models"]["MIND"]["runs"][0] == first["models"]["MIND"]["runs"][0]
    assert [run["seed"] for run in both["models"]["YouTubeDNN"]["runs"]] == [1, 2]
    settings.write_text(text.replace("batch_size = 64", "batch_size = 32"))
    changed = told("--models", "MIND", "--seeds", "1")
    assert [run["seed"] for run in changed["models"]["MIND"]["runs"]] == [1]
    assert changed["models"]["MIND"]["settings"]["training"]["batch_size"] == 32
    assert changed["models"]["YouTubeDNN"] == both["models"]["YouTubeDNN"]
    capsys.readouterr()
    told("--list")
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["recall@10", "recall@50"]
    assert [line.split()[0] for line in lines] == ["MIND", "YouTubeDNN"]
    recall = changed["models"]["MIND"]["runs"][0]["metrics"]["recall@50"]
    assert re.search(rf"^\| MIND \| [\d.]+ \| {recall:.4f} \|", page.all_models(changed), re.MULTILINE)


def test_rechubs_models_are_measured_like_ours(tmp_path: Path) -> None:
    data = worlds.ring(30, 20, 6, 0.1, seed=0)
    split = LeaveLastOut().split(data.events, data.clock)
    random = np.random.default_rng(0)
    users = random.standard_normal((len(split.test), 3, 4)).astype(np.float32)
    items = random.standard_normal((20, 4)).astype(np.float32)
    scorer = peers.PeerVectors(split.test, users, items)
    expected = np.einsum("nhd,md->nhm", users, items).max(1)
    assert np.allclose(scorer.scores(split.test.starts[[4, 2]]).numpy(), expected[[4, 2]], atol=1e-6)
    report = evaluate({"peer": scorer}, data, split.test, ks=(5,))
    seen = [set(data.events.history(int(event)).tolist()) for event in split.test.starts]
    tops = [[row for row in np.argsort(-expected[at]) if row not in seen[at]][:5] for at in range(len(seen))]
    asked = [at for at, event in enumerate(split.test.starts) if int(data.events.items[event]) not in seen[at]]
    hits = [int(data.events.items[split.test.starts[at]]) in tops[at] for at in asked]
    assert report.value("peer", "recall@5") == pytest.approx(np.mean(hits))
