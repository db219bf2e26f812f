"""From a recipe to a page and a comparison: the stages, and the command line over them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from zhiyin import cli, pipeline
from zhiyin.data.worlds import tastes
from zhiyin.errors import DataError, ReleaseError, RequestError, SpecError
from zhiyin.recipe import Recipe

RECIPE = """
home = "{home}"
[data]
events = "events.parquet"
[features]
history_length = 8
item = [{item}]
[split]
use = "splits:TimeCut"
[model]
use = "youtube_dnn:YouTubeDNN"
dim = 8
hidden = [8]
[training]
epochs = {epochs}
batch_size = 256
measure = 10
device = "cpu"
[index]
use = "ivf:IVFFlat"
nlist = 8
nprobe = 2
[promise]
overlap = 0.1
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recipes of one log, trained for one epoch and for four; the first is published."""
    root = tmp_path_factory.mktemp("stages")
    data = tastes(users=150, items=120, groups=6, events_per_user=12, seed=0).data
    for name, epochs in (("short", 1), ("long", 4)):
        tags = '{ use = "bag:Bag", name = "tags" }' if name == "short" else ""
        (root / f"{name}.toml").write_text(RECIPE.format(home=name, epochs=epochs, item=tags))
        recipe = Recipe.read(root / f"{name}.toml")
        data.save(recipe.prepared)
        pipeline.fit(recipe)
    pipeline.publish(Recipe.read(root / "short.toml"))
    return root


@pytest.fixture(scope="module")
def shown(folder: Path) -> tuple[Any, dict[str, Any], Path]:
    return pipeline.show(Recipe.read(folder / "short.toml"), ks=(5, 10, 20), slices=("country",))


def test_the_page_stands_in_the_run_with_its_numbers_beside_it(
    folder: Path, shown: tuple[Any, dict[str, Any], Path]
) -> None:
    report, document, page = shown
    assert page == folder / "short" / "run" / "test-report.html"
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads(page.with_suffix(".json").read_text()) == json.loads(json.dumps(document))
    assert json.loads((page.parent / "test.json").read_text())["metrics"] == document["metrics"]
    assert document["metrics"]["YouTubeDNN"]["recall@5"] == report.value("YouTubeDNN", "recall@5")
    assert list(document["metrics"])[1:] == ["popularity", "popularity, 7 days", "item-kNN", "recent kNN"]


def test_the_page_has_all_its_parts(shown: tuple[Any, dict[str, Any], Path]) -> None:
    _, document, page = shown
    assert "user's country" in [one["name"] for one in document["slices"]]
    assert document["training"]["measure"] == "recall@10"
    assert len(document["training"]["validation"]) == 1
    assert document["embedding"]["column"] == "tags"
    assert len(document["embedding"]["points"]) == 120
    assert (document["index"]["knob"], document["index"]["name"]) == ("nprobe", "IVFFlat")
    assert document["index"]["points"][-1]["overlap"] == 1
    assert document["index"]["effort"] == 2
    (served,) = document["through"]
    assert (served["filter"], served["k"], served["queries"]) == ("", 10, document["queries"])
    assert served["exact_recall"] == pytest.approx(document["metrics"]["YouTubeDNN"]["recall@10"])
    assert served["recall"] != served["exact_recall"]
    assert "What reaches users" in page.read_text()
    assert 0 < document["lists"]["popularity"]["diversity@10"] < 1


def test_without_item_features_the_sliced_column_colours_the_map(folder: Path) -> None:
    long = Recipe.read(folder / "long.toml")
    _, document, page = pipeline.show(long, ks=(5,), slices=("country", "category"))
    assert document["embedding"]["column"] == "category"
    assert "diversity@5" in document["lists"]["popularity"]
    assert (document["index"], document["through"]) == (None, [])  # nothing is published
    assert "YouTubeDNN on long" in page.read_text()
    _, document, _ = pipeline.show(long, ks=(5,))
    assert (document["embedding"]["column"], document["embedding"]["categories"]) == ("", ["items"])
    assert "diversity@5" not in document["lists"]["popularity"]


def test_two_runs_are_compared(folder: Path) -> None:
    short, long = (Recipe.read(folder / f"{name}.toml") for name in ("short", "long"))
    reports = [pipeline.evaluate(recipe, part="validation") for recipe in (short, long)]
    found = pipeline.compare(short, long, part="validation")
    one = found.metrics["recall@50"]
    assert [one.first, one.second] == pytest.approx([r.value("YouTubeDNN", "recall@50") for r in reports])
    assert one.low <= one.difference <= one.high
    (short.run / "validation.npz").unlink()
    with pytest.raises(DataError, match=r"validation\.npz: there is no saved evaluation here"):
        pipeline.compare(short, long, part="validation")


def test_what_the_live_release_lets_through_stands_beside_what_there_is(folder: Path) -> None:
    """Two of eight cells are searched: not all is found. With a filter both look among what passes, exactly where
    little does."""
    short = Recipe.read(folder / "short.toml")
    report = pipeline.evaluate(short, ks=(5, 20))
    for one in pipeline.through(short, ks=(5, 20)):
        assert one.exact_recall == pytest.approx(report.value("YouTubeDNN", f"recall@{one.k}"))
        assert 0.1 < one.overlap < 1
    filters = ('category == "group 0"', 'category == "group 1"')
    every, *groups = pipeline.through(short, ks=(120,), filters=filters, remove_seen=False)
    assert [one.filter for one in (every, *groups)] == ["", *filters]
    for one in groups:
        assert (one.recall, one.exact_recall, one.overlap) == (1.0, 1.0, 1.0)
        assert one.selectivity == pytest.approx(20 / 120)
        assert one.queries < report.queries
    with pytest.raises(RequestError, match="colour"):
        pipeline.through(short, filters=['colour == "red"'])
    with pytest.raises(ReleaseError, match="no release is live"):
        pipeline.through(Recipe.read(folder / "long.toml"))


def test_a_release_of_another_training_is_not_measured(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "events.parquet").touch()
    text = (folder / "long.toml").read_text().replace('home = "long"', f'home = "{folder / "long"}"')
    (tmp_path / "other.toml").write_text(f'{text}\n[releases]\nroot = "{folder / "short" / "releases"}"\n')
    with pytest.raises(ReleaseError, match="was made of another training than the recipe's last"):
        pipeline.through(Recipe.read(tmp_path / "other.toml"))


def test_every_baseline_can_stand_beside_the_model(folder: Path) -> None:
    report = pipeline.evaluate(Recipe.read(folder / "long.toml"), every_baseline=True)
    assert {"EASE", "ALS", "BPR-MF"} < set(report.rows)
    assert all(row["recall@50"] > 50 / 120 for row in report.rows.values())


def test_evaluate_says_what_the_release_lets_through(folder: Path) -> None:
    recipe = str(folder / "short.toml")
    group = 'category == "group 0"'
    said = " ".join(run("evaluate", recipe, "-k", "5", "--filter", group).split())
    assert re.search(rf"{group} 16\.7% \d+ 5 0\.\d{{4}}", said)
    assert re.search(r"none 100\.0% \d+ 5 0\.\d{4}", said)
    run("evaluate", recipe, "-k", "5", "-k", "10", "--filter", group, "--report")
    page = folder / "short" / "run" / "test-report.html"
    assert re.search(r"<td>category == &quot;group 0&quot;</td>(<td>[\d.]+</td>){3}<td>16\.7%</td>", page.read_text())
    kept = json.loads(page.with_suffix(".json").read_text())["through"]
    assert [(one["filter"], one["k"]) for one in kept] == [("", 5), ("", 10), (group, 5), (group, 10)]
    told = json.loads(run("evaluate", recipe, "-k", "5", "-k", "10", "--through", "--json"))
    assert [one["k"] for one in told["through"]] == [5, 10]
    assert "through" not in json.loads(run("evaluate", recipe, "-k", "5", "--json"))


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_line_says_where_the_page_is_and_prints_the_slices(folder: Path) -> None:
    recipe = str(folder / "long.toml")
    said = json.loads(run("evaluate", recipe, "--part", "validation", "--slices", "country", "--json").splitlines()[-1])
    assert "user's country" in [one["name"] for one in said["slices"]]
    assert (folder / "long" / "run" / "validation-report.html").exists()
    plain = json.loads(run("evaluate", recipe, "--part", "validation", "--json").splitlines()[-1])
    assert plain["metrics"] == said["metrics"]
    found = json.loads(run("compare", recipe, recipe, "--part", "validation", "--json").splitlines()[-1])
    assert found["metrics"]["recall@10"]["difference"] == 0


def test_a_comparison_says_whose_figures_stand_where(folder: Path, tmp_path: Path) -> None:
    """By the recipes' names, with their folders where these are equal; and which k it could not compare."""
    recipe = folder / "long.toml"
    (tmp_path / "long.toml").write_text(recipe.read_text().replace('home = "long"', f'home = "{folder / "long"}"'))
    run("evaluate", str(recipe), "-k", "5,20")
    assert run("compare", str(recipe), str(recipe)).split()[:2] == ["long", "long"]
    said = run("compare", str(recipe), str(tmp_path / "long.toml"))
    assert re.sub(r"\s", "", said).startswith(f"{folder.name}/long")
    run("evaluate", str(folder / "short.toml"), "-k", "20")
    said = run("compare", str(folder / "short.toml"), str(tmp_path / "long.toml"))
    assert said.split()[:2] == ["short", "long"]
    assert "recall@20" in said
    assert "recall@5" not in said
    assert "paired; not at k = 5, which only one of them has; the interval" in " ".join(said.split())


def test_k_is_what_the_command_line_says(folder: Path) -> None:
    recipe = str(folder / "long.toml")
    said = json.loads(run("evaluate", recipe, "-k", "20", "-k", "5,7", "--json").splitlines()[-1])["metrics"]
    names = [name for name in said["YouTubeDNN"] if name.startswith("recall@")]
    assert names == ["recall@5", "recall@7", "recall@20"]
    assert said == json.loads(run("evaluate", recipe, "--ks", "5,7,20", "--json").splitlines()[-1])["metrics"]
    whole = json.loads(run("evaluate", recipe, "-k", "500", "--seen", "--json").splitlines()[-1])
    assert "lists are shorter than 500, as the catalogue is" in whole["protocol"]
    assert whole["metrics"]["popularity"]["recall@500"] == 1  # of 120 items, the seen ones among them


@pytest.mark.parametrize("words", ["0", "-3", "ten", "10,", "1.5", "10 50"])
def test_a_k_that_is_none_is_refused_before_anything_is_read(words: str) -> None:
    with pytest.raises(SpecError, match=r"^-k: '.*'; expected whole numbers of at least 1, as in -k 10 -k 50 or"):
        CliRunner().invoke(cli.app, ["evaluate", "nowhere.toml", f"--ks={words}"], catch_exceptions=False)


def test_a_script_is_refused_a_k_below_1_too(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"ks = \[10, 0\]; expected numbers of candidates, each at least 1"):
        pipeline.evaluate(Recipe.read(folder / "long.toml"), ks=(10, 0))


def test_seen_items_come_back_where_that_is_asked_for(folder: Path) -> None:
    recipe = str(folder / "long.toml")
    said = json.loads(run("evaluate", recipe, "--seen", "--json").splitlines()[-1])
    without = json.loads(run("evaluate", recipe, "--json").splitlines()[-1])
    assert "items already in the history may come back" in said["protocol"]
    assert "items already in the history are removed" in without["protocol"]
    assert said["metrics"]["item-kNN"]["recall@10"] < without["metrics"]["item-kNN"]["recall@10"]


def test_models_of_other_recipes_stand_beside_the_first_on_the_page(folder: Path) -> None:
    short, long = (Recipe.read(folder / f"{name}.toml") for name in ("short", "long"))
    alone = [pipeline.evaluate(recipe, ks=(10,)).rows["YouTubeDNN"] for recipe in (short, long)]
    report, document, page = pipeline.show(short, ks=(10,), beside=[long])
    assert list(report.rows)[:2] == ["YouTubeDNN", "YouTubeDNN (long)"]
    assert [report.rows[name] for name in list(report.rows)[:2]] == alone
    assert "YouTubeDNN (long)" in document["increments"]["adds"]
    assert "YouTubeDNN (long)" in page.read_text()
    said = run("evaluate", str(short.path), "--beside", str(long.path), "--json").splitlines()[-1]
    assert "YouTubeDNN (long)" in json.loads(said)["metrics"]


def test_a_recipe_of_another_split_does_not_stand_beside(folder: Path, tmp_path: Path) -> None:
    long = Recipe.read(folder / "long.toml")
    text = long.path.read_text().replace('home = "long"', f'home = "{long.home}"')
    (tmp_path / "other.toml").write_text(text.replace("splits:TimeCut", "splits:LeaveLastOut"))
    with pytest.raises(DataError, match=r"other\.toml: its log or its split is another one.*\[data\] and \[split\]"):
        pipeline.evaluate(long, beside=[Recipe.read(tmp_path / "other.toml")])


@pytest.mark.parametrize("verb", [["evaluate", "a.toml"], ["compare", "a.toml", "b.toml"]])
def test_a_wrong_part_is_refused(verb: list[str]) -> None:
    with pytest.raises(SpecError, match="--part training; expected 'test' or 'validation'"):
        CliRunner().invoke(cli.app, [*verb, "--part", "training"], catch_exceptions=False)
