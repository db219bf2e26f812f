"""A sweep: what it may search, that it finds what is better, goes on after a kill, prunes, and never sees the test."""

import contextlib
import json
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyin import cli, pipeline, spec
from zhiyin.data import worlds
from zhiyin.data.guess import inspect, recipe_text
from zhiyin.draws import UNPRUNED, drawn, value_of
from zhiyin.errors import SpecError, TrainingError
from zhiyin.learning.fit import Fitted, Progress
from zhiyin.ranges import Choice, Range, parse, put
from zhiyin.recipe import Recipe
from zhiyin.sweep import Swept, best_path, sweep
from zhiyin.trials import Trial, TrialJournal, TrialRun

RECIPE = """
[data]
events = "events.csv"
time_unit = "position"

[features]
history_length = 5

[model]
use = "youtube_dnn:YouTubeDNN"
dim = 8
hidden = [16]

[negatives]
use = "negatives:Uniform"
count = 16

[optimizer]
lr = 0.01

[training]
epochs = 3
batch_size = 256
measure = 5
patience = 0
"""


def world(folder: Path, sweep: str, *, test: int = 0) -> Recipe:
    """The ring world and a recipe in a folder; with another `test`, other items stand in the test."""
    log = worlds.ring(150, 30, 8, 0.1, seed=0).events
    items = np.array(log.items)
    last = log.offsets[1:] - 1
    items[last] = np.random.default_rng(test).permutation(items[last]) if test else items[last]
    folder.mkdir(exist_ok=True)
    lines = [f"{user},{item},{place}" for place, (user, item) in enumerate(zip(log.users, items, strict=True))]
    (folder / "events.csv").write_text("user,item,time\n" + "\n".join(lines) + "\n")
    (folder / "recipe.toml").write_text(RECIPE + f"\n[sweep]\n{sweep}\n")
    return Recipe.read(folder / "recipe.toml")


def results(swept: Swept) -> list[dict[str, Any]]:
    """The trials but for their seconds."""
    return [{**asdict(one), "seconds": 0} for one in swept.trials]


def test_the_better_rate_is_found_and_its_recipe_fits_to_the_same_recall(tmp_path: Path) -> None:
    recipe = world(tmp_path, "optimizer.table_lr = [1e-6, 0.05]")
    heard: list[Trial] = []
    swept = sweep(recipe, trials=4, sampler="random", told=heard.append)
    assert heard == list(swept.trials)
    assert {one.values["optimizer.table_lr"] for one in swept.trials} == {1e-6, 0.05}
    best, *_ = swept.ranked
    assert best.values == {"optimizer.table_lr": 0.05}
    worst = min(one.recall or 0.0 for one in swept.trials)
    assert best.recall is not None
    assert best.recall > worst + 0.1
    assert swept.recipe == tmp_path / "recipe-best.toml"
    text = swept.recipe.read_text()
    assert text.startswith(
        f"# Written by `zhiyin sweep` from recipe.toml: the best of 4 trials, number {best.number}, validation "
        f"recall@5 {best.recall:.4f}.\n"
    )
    written = Recipe.read(swept.recipe)
    assert written.plan.optimizer.table_lr == 0.05
    assert written.ranges == {}
    assert written.home != recipe.home
    assert pipeline.fit(written).recall == best.recall
    again = sweep(recipe, trials=4, sampler="random", told=heard.append)
    assert len(heard) == 4
    assert results(again) == results(swept)
    assert not [path for path in (recipe.home / "sweep").iterdir() if path.is_dir()]  # checkpoints are gone


def test_a_killed_sweep_goes_on_and_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    ranges = "optimizer.table_lr = { low = 1e-3, high = 0.1, log = true }\nmodel.dim = [4, 8]\ntraining.epochs = [24]"
    whole = sweep(world(tmp_path / "whole", ranges), trials=3)
    recipe = world(tmp_path / "killed", ranges)
    command = [sys.executable, "-m", "zhiyin.cli", "sweep", str(recipe.path), "--trials", "3"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not (_finished(recipe) and 1 <= _looks(recipe) < 24):
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert 1 <= _finished(recipe) < 3
    looks = _looks(recipe)
    first: list[int] = []

    def watch(number: int, values: Mapping[str, Any], progress: Progress) -> None:
        first.append(progress.step)

    swept = sweep(recipe, trials=3, watch=watch)
    assert results(swept) == results(whole)
    assert first[0] > 3 * looks  # three steps an epoch, and so a look: a checkpoint was gone on with


def _looks(recipe: Recipe) -> int:
    """Validations of the trial that trains."""
    with contextlib.suppress(FileNotFoundError):
        return max((len(json.loads(p.read_text())["looks"]) for p in recipe.home.glob("sweep/*/looks.json")), default=0)
    return 0


def _finished(recipe: Recipe) -> int:
    path = recipe.home / "sweep" / "trials.jsonl"
    return path.read_text().count('"number"') if path.exists() else 0


def test_trials_below_the_median_are_pruned(tmp_path: Path) -> None:
    recipe = world(tmp_path, "optimizer.table_lr = { low = 1e-6, high = 0.1, log = true }\ntraining.epochs = [4]")
    swept = sweep(recipe, trials=9, sampler="random")
    pruned = [one for one in swept.trials if one.state == "pruned"]
    assert pruned
    assert all(one.number >= UNPRUNED for one in pruned)
    for one in pruned:
        assert len(one.looks) < 4
        assert one.recall == one.looks[-1]
        before = [other.looks[len(one.looks) - 1] for other in swept.trials[: one.number] if other.state == "complete"]
        assert one.recall < np.median(before)
    assert swept.ranked[0].state == "complete"
    assert {one.state for one in swept.ranked[-len(pruned) :]} == {"pruned"}


def test_nothing_of_the_test_is_read(tmp_path: Path) -> None:
    ranges = "optimizer.table_lr = [0.01, 0.05]\nmodel.dim = [4, 8]"
    one, other = (sweep(world(tmp_path / str(test), ranges, test=test), trials=3) for test in (0, 1))
    assert results(one) == results(other)
    recipes = [Recipe.read(tmp_path / str(test) / "recipe.toml") for test in (0, 1)]
    tests = [data.events.items[split.test.starts] for data, split in map(pipeline.opened, recipes)]
    assert (tests[0] != tests[1]).mean() > 0.5


def test_a_trial_that_diverges_or_cannot_be_is_one_of_the_trials(tmp_path: Path) -> None:
    recipe = world(tmp_path, "optimizer.lr = [1e30, 0.01]\nmodel.hidden = [[16], [0]]")
    swept = sweep(recipe, trials=12, sampler="random")
    words = {json.dumps(one.values): one.words for one in swept.trials}
    assert "the loss is " in words['{"optimizer.lr": 1e+30, "model.hidden": [16]}']
    assert "hidden" in words['{"optimizer.lr": 0.01, "model.hidden": [0]}']
    assert {one.state for one in swept.trials} == {"complete", "failed"}
    assert swept.ranked[0].values == {"optimizer.lr": 0.01, "model.hidden": [16]}
    (tmp_path / "recipe-best.toml").unlink()
    recipe = world(tmp_path, "optimizer.lr = [1e30, 1e31]")
    with pytest.raises(TrainingError, match="all 2 trials failed; the first: .*the loss is "):
        sweep(recipe, trials=2, fresh=True)
    assert not best_path(recipe).exists()


def test_time_that_is_up_is_gone_on_with(tmp_path: Path) -> None:
    recipe = world(tmp_path, "optimizer.table_lr = [0.01, 0.05]")
    cut = sweep(recipe, trials=2, minutes=1e-9)
    assert (cut.trials, cut.recipe) == ([], None)
    assert len(sweep(recipe, trials=2).trials) == 2


def test_another_sweep_is_refused_until_it_is_forgotten(tmp_path: Path) -> None:
    sweep(world(tmp_path, "optimizer.table_lr = [0.01]"), trials=1)
    recipe = world(tmp_path, "optimizer.table_lr = [0.05]")
    with pytest.raises(TrainingError, match=r"another sweep was begun here, with other sweep.*--fresh"):
        sweep(recipe, trials=1)
    (swept,) = sweep(recipe, trials=1, fresh=True).trials
    assert swept.values == {"optimizer.table_lr": 0.05}
    with pytest.raises(TrainingError, match="with other seed"):
        sweep(recipe, trials=2, seed=1)


def test_what_stands_in_the_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Recipe.of({"data": {"events": "e.csv"}, "model": {"use": "dssm:DSSM"}}, tmp_path / "recipe.toml")
    with pytest.raises(
        SpecError, match=r"recipe.toml: the table \[sweep\] is missing; expected what to search. Add it"
    ):
        sweep(bare)
    recipe = world(tmp_path, "optimizer.lr = [0.01]")
    with pytest.raises(SpecError, match="trials = 0, minutes = 0; expected trials ≥ 1"):
        sweep(recipe, trials=0)
    best_path(recipe).write_text("[data]\n")
    with pytest.raises(SpecError, match="recipe-best.toml: this file would be replaced, and no sweep wrote it"):
        sweep(recipe)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SpecError, match=r"sweep needs the package 'optuna', which is not installed. pip install"):
        sweep(recipe)


def test_the_ranges_that_init_writes_are_of_every_model(tmp_path: Path) -> None:
    world(tmp_path, "optimizer.lr = [0.01]")
    written = Recipe.of(tomllib.loads(recipe_text(inspect(tmp_path / "events.csv"), "home")), tmp_path / "recipe.toml")
    assert set(written.ranges) == {"model.dim", "model.dropout", "optimizer.lr", "optimizer.table_lr"}
    for model in spec.examples("zhiyin.models"):
        use = spec.used_table(model, "zhiyin.models")["use"]
        for path, one in written.ranges.items():
            for value in one.tried:
                tables = put({**written.tables, "model": {"use": use}}, {path: value})
                assert Recipe.of(tables, written.path).plan is not None


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ("model.dmi = [8]", r"sweep 'model.dmi': recipe.toml model: unknown key 'dmi' \(did you mean 'dim'\?\)"),
        ("model.dim = [0, -1]", "sweep 'model.dim': .*0"),
        ("optimizer.lr = { low = -1.0, high = 0.0 }", "sweep 'optimizer.lr': .*above 0"),
        ("model.use = ['dssm:DSMM']", "sweep 'model.use': .*did you mean 'dssm:DSSM'"),
        (
            "loss.use = ['losses:FullSoftmax', 'losses:BPRR']",
            "recipe.toml sweep 'loss.use': .*did you mean 'losses:BPR'",
        ),
        (
            "negatives.use = ['negatives:InBatch', 'Mixed']",
            "sweep 'negatives.use': use = 'Mixed' .did you mean 'negatives:Mixed'.*; expected module:Class",
        ),
    ],
)
def test_a_key_that_no_recipe_has_is_refused_before_anything_is_trained(
    tmp_path: Path, ranges: str, words: str
) -> None:
    recipe = world(tmp_path, ranges)
    with pytest.raises(SpecError, match=words):
        sweep(recipe)
    assert not recipe.home.exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"modle": {"dim": [8]}}, r"sweep 'modle.dim': 'modle' is not searched \(did you mean 'model'\?\)"),
        ({"split": {"use": ["a"]}}, "'split' is not searched"),
        ({"model": [8]}, "sweep 'model': 'model' is not searched.*; expected a key of"),
        ({"training": {"seed": [1]}}, "sweep 'training.seed': it cannot be searched: every trial has the same one"),
        ({"training": {"measure": [1]}}, "cannot be searched: it is what trials are judged by"),
        ({"model": {"dim": []}}, "sweep 'model.dim': an empty list"),
        ({"model": {"dim": 8}}, "8; expected a list of values, or { low"),
        ({"model": {"dim": {"low": 8, "hihg": 9}}}, r"unknown key 'hihg' \(did you mean 'high'\?\)"),
        ({"model": {"dim": {"low": 8}}}, "'high' is missing"),
        ({"model": {"dim": {"low": "8", "high": 9}}}, "low = '8'; expected a number"),
        ({"model": {"dim": {"low": 8, "high": True}}}, "high = True; expected a number"),
        ({"model": {"dim": {"low": 9, "high": 8}}}, "low = 9 and high = 8; expected low below high. Exchange them"),
        ({"model": {"dim": {"low": 8, "high": 8}}}, "low = 8 and high = 8"),
        ({"optimizer": {"lr": {"low": 0.0, "high": 1.0, "log": True}}}, "log = true with low = 0.0"),
        ({"optimizer": {"lr": {"low": 0.1, "high": 1.0, "log": 1}}}, "log = 1; expected true or false"),
        ({"optimizer": {"lr": {"low": 0.1, "high": 1.0, "log": True, "step": 0.1}}}, "both log and step"),
        ({"optimizer": {"lr": {"low": 0.1, "high": 1.0, "step": 2.0}}}, "step = 2.0; expected a number above 0"),
        ({"model": {"dim": {"low": 8, "high": 64, "step": 0.5}}}, "step = 0.5; expected a whole number"),
        ({"optimizer": {"lr": {"low": float("nan"), "high": 1.0}}}, "low = nan; expected a number"),
    ],
)
def test_ranges_that_cannot_be(table: Mapping[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse(table)
    with pytest.raises(SpecError, match="recipe.toml.*" + words):
        Recipe.of({"data": {"events": "e.csv"}, "sweep": table}, Path("recipe.toml"))


def test_dotted_keys_and_quoted_ones_are_the_same() -> None:
    text = 'optimizer.lr = { low = 0.1, high = 1.0 }\n"model.dim" = [8]\nfeatures = { history_length = [5, 10] }'
    assert parse(tomllib.loads(text)) == {
        "optimizer.lr": Range(0.1, 1.0),
        "model.dim": Choice((8,)),
        "features.history_length": Choice((5, 10)),
    }


def test_values_are_put_where_they_belong_and_nothing_given_is_changed() -> None:
    tables = {"model": {"use": "a", "dim": 1}, "home": "x"}
    assert put(tables, {"model.dim": 2, "loss.smoothing": 0.1}) == {
        "model": {"use": "a", "dim": 2},
        "home": "x",
        "loss": {"smoothing": 0.1},
    }
    assert tables == {"model": {"use": "a", "dim": 1}, "home": "x"}


RANGES: dict[str, Choice | Range] = {
    "a": Choice(("x", [1], "y")),
    "b": Range(1, 9),
    "c": Range(1, 10, step=4),
    "d": Range(1e-5, 1e-1, log=True),
    "e": Range(0.0, 1.0, step=0.3),
    "f": Range(1, 1000, log=True),
}


def trials(sampler: Any, count: int, seed: int = 0) -> list[Trial]:
    """Drawn one after the other; the larger e, the better."""
    found: list[Trial] = []
    for number in range(count):
        asked = drawn(found, RANGES, sampler, seed)
        values = {path: value_of(one, asked.params[path]) for path, one in RANGES.items()}
        recall = float(values["e"] + values["b"] / 100)
        state: Any = ("complete", "complete", "pruned", "failed")[number % 4]
        found.append(Trial(number, values, state, None if state == "failed" else recall, (recall,)))
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_draws_stay_in_their_ranges_and_depend_on_nothing_but_seed_and_trials(sampler: Any) -> None:
    found = trials(sampler, 24)
    assert all(one.values["a"] in ("x", [1], "y") for one in found)
    assert all(isinstance(one.values["b"], int) and 1 <= one.values["b"] <= 9 for one in found)
    assert {one.values["c"] for one in found} == {1, 5, 9}
    assert all(1e-5 <= one.values["d"] <= 1e-1 and one.values["d"] == float(f"{one.values['d']:.4g}") for one in found)
    assert min(one.values["d"] for one in found) < 1e-3  # by the logarithm, half of them lie below
    assert {one.values["e"] for one in found} == {0.0, 0.3, 0.6, 0.9}
    assert min(one.values["f"] for one in found) < 40
    kept = [Trial(**json.loads(json.dumps(asdict(one)))) for one in found]  # as a journal has them
    for at in (3, 15):
        assert drawn(kept[:at], RANGES, sampler, 0).params == drawn(found[:at], RANGES, sampler, 0).params
    assert trials(sampler, 4, seed=1) != found[:4]


def test_tpe_draws_more_of_what_was_good() -> None:
    means = [np.mean([one.values["e"] for one in trials(sampler, 40)[12:]]) for sampler in ("tpe", "random")]
    assert means[0] > means[1] + 0.1


def test_a_trial_is_compared_with_the_median_at_the_same_look() -> None:
    ranges = {"b": RANGES["b"]}
    known = [Trial(at, {"b": at + 1}, "complete", 0.5, (0.1 * at, 0.5)) for at in range(5)]
    for look, value, expected in ((1, 0.19, True), (1, 0.21, False), (2, 0.49, True), (2, 0.51, False)):
        asked = drawn(known, ranges, "random", 0)
        asked.report(value, look)
        assert asked.should_prune() == expected
    asked = drawn(known[: UNPRUNED - 1], ranges, "random", 0)
    asked.report(0.0, 1)
    assert not asked.should_prune()


def test_a_line_that_a_kill_cut_short_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "sweep" / "trials.jsonl"
    journal = TrialJournal(path, {"format": 1})
    assert journal.read() == []
    one = Trial(0, {"a": [1]}, "complete", 0.5, (0.4, 0.5), 1.0)
    journal.write(one)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-20])
    path.write_bytes(whole + b'{"number": 1, "val')
    assert TrialJournal(path, {"format": 1}).read() == [one]
    assert path.read_bytes() == whole
    path.write_bytes(b'{"form')
    assert TrialJournal(path, {"format": 1}).read() == []
    assert json.loads(path.read_text()) == {"format": 1}


def test_looks_that_a_kill_came_between_are_filled_in(tmp_path: Path) -> None:
    run = TrialRun.open(tmp_path)
    run.look(0.1, 1)
    run.look(0.3, 3)
    assert TrialRun.open(tmp_path).looks == [0.1, 0.3, 0.3]
    assert TrialRun.open(tmp_path).seconds >= run.before


scalars = st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(st.dictionaries(st.text(), st.dictionaries(st.text(), values, max_size=3) | scalars, max_size=3))
def test_a_recipe_as_text_is_the_recipe(tables: dict[str, Any]) -> None:
    assert tomllib.loads(Recipe(Path("recipe.toml"), tables).text()) == tables


def test_the_best_recipe_of_a_home_of_its_own(tmp_path: Path) -> None:
    world(tmp_path, "optimizer.table_lr = [0.05]")
    text = (tmp_path / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text('home = "there"\n' + text)
    swept = sweep(Recipe.read(tmp_path / "recipe.toml"), trials=1)
    assert swept.recipe is not None
    best = Recipe.read(swept.recipe)
    assert best.home == tmp_path / "there-best"
    pipeline.fit(best)
    assert isinstance(Fitted.open(best.run, 30), Fitted)


def test_the_command_line_shows_the_best_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = world(tmp_path, "optimizer.table_lr = [1e-6, 0.05]\nmodel.hidden = [[16]]")
    (tmp_path / "recipe.toml").write_text(recipe.path.read_text().replace("epochs = 3", "epochs = 1"))

    def zhiyin(*words: str) -> tuple[int, str, str]:
        before, sys.argv = sys.argv, ["zhiyin", "sweep", str(recipe.path), *words]
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.argv = before
        told = capsys.readouterr()
        return code, told.out, " ".join(told.err.split())

    code, out, err = zhiyin("--trials", "2", "--sampler", "random", "--minutes", "1e-9")
    assert (code, out) == (0, "")
    assert "0 of 2 trials: the same command goes on" in err
    code, out, err = zhiyin("--trials", "1", "--sampler", "random")
    assert "of earlier calls" not in err
    assert "trial 0: complete 0." in err
    code, out, err = zhiyin("--trials", "2", "--sampler", "random")
    assert (code, out) == (0, "")
    assert err.startswith("1 trial of earlier calls trial 1: complete 0.")
    assert "trial recall@5 optimizer.table_lr model.hidden seconds" in err
    assert "next: zhiyin fit recipe-best.toml" in err
    code, out, err = zhiyin("--trials", "2", "--sampler", "random", "--json")
    told = json.loads(out)
    assert told["recipe"] == str(tmp_path / "recipe-best.toml")
    assert [set(one["values"]) for one in told["trials"]] == [{"optimizer.table_lr", "model.hidden"}] * 2
    assert told["trials"][0]["recall"] >= told["trials"][1]["recall"]
    code, out, err = zhiyin("--sampler", "grid")
    assert (code, out) == (2, "")
    assert "--sampler grid; expected 'tpe' or 'random'" in err
