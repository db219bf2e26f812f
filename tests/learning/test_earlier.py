"""A run that starts from an earlier one's weights, after files were appended: what was learned stays, the new joins."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from zhiyin import pipeline
from zhiyin.data.prepared import Prepared
from zhiyin.errors import SpecError, TrainingError
from zhiyin.learning import checkpoint
from zhiyin.learning.distributed import ALONE
from zhiyin.learning.earlier import Earlier
from zhiyin.learning.fit import TrainingRun
from zhiyin.recipe import Recipe

TEXT = """
[data]
events = "first.csv"
items = "items.csv"
users = "users.csv"
time_unit = "position"
[features]
history_length = 6
user = [{ use = "categorical:Categorical", name = "country", dim = 4 }]
item = [{ use = "bag:Bag", name = "tags", dim = 4 }, { use = "numeric:Numeric", name = "price" }]
[model]
use = "dssm:DSSM"
dim = 8
hidden = [16]
[training]
epochs = 3
batch_size = 64
[index]
use = "exact:Exact"
"""
OLD, NEW = 12, 3


def write(folder: Path, name: str, users: range, items: int, start: int) -> None:
    random = np.random.default_rng(start)
    rows = [f"u{user},i{random.integers(items):02},{start + at}" for user in users for at in range(6)]
    (folder / name).write_text("\n".join(["user,item,time", *rows]) + "\n")


def write_tables(folder: Path, users: int, items: int) -> None:
    """New items have a tag, and new users a country, that nobody had."""
    rows = [f"i{row:02},{'abc'[row % 3]}|{'abc'[row // 2 % 3] if row < OLD else 'z'},{row}" for row in range(items)]
    (folder / "items.csv").write_text("\n".join(["item,tags,price", *rows]) + "\n")
    people = [f"u{user},{'ke' if user >= 40 else 'cn' if user % 2 else 'fr'}" for user in range(users)]
    (folder / "users.csv").write_text("\n".join(["user,country", *people]) + "\n")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe of a model of 40 users and 12 items, whose log has since got 10 users, 3 items, a tag and a country;
    the data set as it was is kept in `before`."""
    folder = tmp_path_factory.mktemp("grown")
    (folder / "r.toml").write_text(TEXT)
    write(folder, "first.csv", range(40), OLD, 0)
    write_tables(folder, 40, OLD)
    recipe = Recipe.read(folder / "r.toml")
    pipeline.fit(recipe)
    shutil.copytree(recipe.prepared, folder / "before")
    write(folder, "second.csv", range(50), OLD + NEW, 100)
    write_tables(folder, 50, OLD + NEW)
    pipeline.append(recipe, folder / "second.csv")
    return folder / "r.toml"


@pytest.fixture
def recipe(grown: Path, tmp_path: Path) -> Recipe:
    return Recipe.read(shutil.copytree(grown.parent, tmp_path / "copy") / "r.toml")


def begun(recipe: Recipe) -> TrainingRun:
    """A run with the weights in it, before its first step."""
    data, split = pipeline.opened(recipe)
    earlier = Earlier.open(recipe.run)
    schema = recipe.schema.fit(data, split).onward(earlier.schema)
    run = TrainingRun(recipe.plan, data, split, schema, recipe.run, ALONE, profile=False)
    earlier.put_into(run.model, recipe.plan.model, data)
    return run


def test_rows_of_old_items_and_values_are_kept_and_new_ones_are_as_in_a_new_model(recipe: Recipe) -> None:
    old = load_file(recipe.run / "best.safetensors")
    run = begun(recipe)
    data, torch_seed = run.data, run.training.seed
    assert data.items.ids()[:OLD] == Prepared.open(recipe.path.parent / "before").items.ids()
    torch.manual_seed(torch_seed)
    fresh = checkpoint.weights(recipe.plan.model.build(run.schema, len(data.items)))
    now = checkpoint.weights(run.model)
    ids, tags, country = (
        f"model.{name}.table.weight"
        for name in ("items", "attributes.embeddings.feature_tags", "request.embeddings.feature_country")
    )
    for name, rows, more in ((ids, OLD, NEW), (tags, 3, 1), (country, 2, 1)):
        assert (len(old[name]), len(now[name])) == (rows + 1, rows + more + 1)
        assert torch.equal(now[name][:rows], old[name][:rows])
        assert torch.equal(now[name][rows:-1], fresh[name][rows:-1])
        assert torch.equal(now[name][-1], old[name][-1])
    others = [name for name in now if now[name].shape == old[name].shape]
    assert len(others) > 6
    assert all(torch.equal(now[name], old[name]) for name in others)


def test_a_model_that_starts_there_knows_of_old_items_what_it_knew(recipe: Recipe) -> None:
    """Same features, same codes: its vectors of the old items are what they were."""
    run = begun(recipe)
    before = Prepared.open(recipe.path.parent / "before")
    old = pipeline.trained(Recipe.of({**recipe.tables, "home": str(kept(recipe))}, recipe.path))
    expected = old.scorer(before, "cpu").items
    run.model.eval()
    with torch.no_grad():
        found = run.model.item_vectors(run.examples.items(torch.arange(OLD)))
    torch.testing.assert_close(found, expected)


def kept(recipe: Recipe) -> Path:
    """A home with the data as they were, and the run."""
    home = recipe.path.parent / "old"
    shutil.copytree(recipe.path.parent / "before", home / "prepared")
    shutil.copytree(recipe.run, home / "run")
    return home


def test_after_an_append_it_goes_on_and_the_new_rows_learn(recipe: Recipe) -> None:
    with pytest.raises(TrainingError, match=r"trained with 12 items, and there are 15 now.*--from RECIPE"):
        pipeline.trained(recipe)
    with pytest.raises(TrainingError, match=r"other data.*--from RECIPE to start from its weights"):
        pipeline.fit(recipe)
    before = load_file(recipe.run / "best.safetensors")["model.items.table.weight"]
    fitted = pipeline.fit(recipe, start=recipe.run)
    after = checkpoint.weights(fitted.model)["model.items.table.weight"]
    torch.manual_seed(0)
    drawn = checkpoint.weights(recipe.plan.model.build(fitted.schema, OLD + NEW))["model.items.table.weight"]
    assert (after[:OLD] - before[:OLD]).norm() < (after[:OLD] - drawn[:OLD]).norm() / 2, "it went on, not anew"
    assert (after[OLD:-1] - drawn[OLD:-1]).abs().amax(1).min() > 0, "new rows have learned"


def test_a_run_that_started_there_and_was_cut_goes_on_to_the_same_bits(recipe: Recipe) -> None:
    whole = Recipe.read(shutil.copytree(recipe.path.parent, recipe.path.parent.parent / "whole") / "r.toml")
    pipeline.fit(whole, start=whole.run)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(progress: object) -> None:
        raise Stop

    with pytest.raises(Stop):
        pipeline.fit(recipe, stop, start=recipe.run)
    pipeline.fit(recipe, start=recipe.run)
    one, other = (load_file(run / "best.safetensors") for run in (whole.run, recipe.run))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_runs_weights_are_taken_into_a_home_of_its_own(recipe: Recipe) -> None:
    other = Recipe.of({**recipe.tables, "home": "elsewhere"}, recipe.path)
    shutil.copytree(recipe.prepared, other.prepared)
    pipeline.fit(other, start=recipe.run)
    assert (other.run / "best.safetensors").exists()
    with pytest.raises(TrainingError, match=r"no trained model here"):
        pipeline.fit(other, start=recipe.path.parent / "nowhere")


def test_data_that_were_prepared_anew_are_refused(recipe: Recipe) -> None:
    write(recipe.path.parent, "first.csv", range(50), OLD + NEW, 7)
    pipeline.prepare(recipe)
    with pytest.raises(TrainingError, match=r"the 12 items it was trained with have other rows among today's 15.*anew"):
        pipeline.fit(recipe, start=recipe.run)


def test_another_model_and_other_features_are_refused(recipe: Recipe) -> None:
    model = {**recipe.tables["model"], "dim": 16}
    wider = Recipe.of({**recipe.tables, "model": model}, recipe.path)
    with pytest.raises(TrainingError, match=r"weights of another model.*expected DSSM\(dim=16.*Put \[model\]"):
        pipeline.fit(wider, start=recipe.run)
    features = {**recipe.tables["features"], "user": []}
    fewer = Recipe.of({**recipe.tables, "features": features}, recipe.path)
    with pytest.raises(SpecError, match=r"features\.user: these are not the features.*Categorical\(name='country'"):
        pipeline.fit(fewer, start=recipe.run)


def test_numbers_are_scaled_as_they_were(recipe: Recipe) -> None:
    data, split = pipeline.opened(recipe)
    new, old = recipe.schema.fit(data, split), Earlier.open(recipe.run).schema
    assert new.item[1] != old.item[1]
    assert new.onward(old).item[1] == old.item[1]
    assert new.onward(new) == new
    with pytest.raises(SpecError, match="history_length = 6"):
        replace(new, history_length=7).onward(old)
