"""The examples run, on small data."""

import runpy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from zhiyin import Recipe, Request, Retriever, pipeline
from zhiyin.data.datasets import DATASETS
from zhiyin.data.worlds import tastes
from zhiyin.errors import DataError
from zhiyin.learning.fit import Fitted, Plan
from zhiyin.release import Release

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(script: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    runpy.run_path(str(EXAMPLES / script), run_name="__main__")


def short(name: str, folder: Path, **changes: Mapping[str, Any]) -> Recipe:
    """An example's recipe in a folder of its own, trained for one epoch."""
    recipe = Recipe.read(EXAMPLES / name)
    training = {**recipe.tables.get("training", {}), "epochs": 1}
    return Recipe.of({**recipe.tables, "training": training, **changes}, folder / name)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthetic log, and own-log.toml published from it."""
    folder = tmp_path_factory.mktemp("shop")
    runpy.run_path(str(EXAMPLES / "synthetic_log.py"))["write"](folder, users=150, items=80)
    text = (EXAMPLES / "own-log.toml").read_text()
    (folder / "own-log.toml").write_text(text.replace("batch_size = 512", "batch_size = 128\nepochs = 2"))
    recipe = Recipe.read(folder / "own-log.toml")
    pipeline.fit(recipe)
    pipeline.publish(recipe)
    store = recipe.store.open()
    pipeline.load(recipe, store)
    store.close()
    return folder


def test_the_synthetic_log_is_written_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("synthetic_log.py", str(tmp_path / "new"), monkeypatch=monkeypatch)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["events.csv", "items.csv", "users.csv"]


def test_own_log_uses_every_column_of_its_files(shop: Path) -> None:
    recipe = Recipe.read(shop / "own-log.toml")
    data, _ = pipeline.opened(recipe)
    schema = recipe.schema
    assert {f.name for f in schema.user} == set(data.user_table)
    assert {f.name for f in schema.item} == set(data.item_table) - {"title"}
    assert set(data.events.columns) == {"device"}


def test_the_live_release_answers_a_script(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("retrieve.py", str(shop / "own-log.toml"), "7", monkeypatch=monkeypatch)
    without, kept, stranger = capsys.readouterr().out.splitlines()
    assert without.startswith("7, seen items left out: deep [")
    assert kept.startswith("7, seen items kept: deep [")
    assert stranger.startswith("a stranger, seen items left out: popular [")
    assert without.split("[")[1] != stranger.split("[")[1]


def test_its_channels_are_published_and_answer(shop: Path) -> None:
    recipe = Recipe.read(shop / "own-log.toml")
    release, store = recipe.releases.open(), recipe.store.open()
    assert set(release.tables) == {"fresh", "together", "trending"}
    assert release.manifest["channels"]["trending"] == {
        "use": "popular:Popular", "half_life": 3.0, "segment": "country",
    }  # fmt: skip
    names = ("deep", "trending", "together", "fresh", "item_to_item", "popular")
    (answer,) = Retriever(store, online=recipe.online).retrieve(release, [Request("7", k=20, channels=names)])
    store.close()
    assert (answer.channel, answer.dropped, len(answer.items)) == ("+".join(names), (), 20)
    assert answer.sources is not None
    assert {one.channel for own in answer.sources for one in own} == set(names)


def test_what_a_channel_lacks_in_the_log_is_said_before_anything_is_published(shop: Path) -> None:
    online = {"channels": {"new": {"use": "fresh:Fresh", "column": "published"}}}
    recipe = short("own-log.toml", shop, online=online)
    with pytest.raises(DataError, match=r"^online\.channels\.new channel Fresh column: no column 'published'"):
        pipeline.publish(recipe)
    assert len(recipe.releases.ids()) == 1


def test_losses_are_compared(shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run("compare_losses.py", str(shop / "own-log.toml"), monkeypatch=monkeypatch)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["recall@10", "recall@50", "ndcg@10"]
    assert [row[:16].strip() for row in rows] == ["sampled softmax", "corrected logQ", "full softmax", "BPR"]
    values = np.array([[float(value) for value in row[16:].split()] for row in rows])
    assert ((values > 0) & (values < 1)).all()
    runs = [shop / f"own-log-{name}" / "run" for name in ("sampled-softmax", "corrected-logQ", "full-softmax", "BPR")]
    losses = [type(Fitted.open(run, 80).plan.loss).__name__ for run in runs]
    assert losses == ["SampledSoftmax", "CorrectedLogQ", "FullSoftmax", "BPR"]


def test_the_movielens_recipe_fits_the_files_that_zhiyin_writes(tmp_path: Path) -> None:
    assert "movielens-100k" in DATASETS
    write_movielens(tmp_path / "movielens-100k")
    recipe = short("movielens-100k.toml", tmp_path)
    assert isinstance(recipe.plan, Plan)
    pipeline.fit(recipe)
    assert isinstance(pipeline.publish(recipe), Release)


def write_movielens(folder: Path) -> None:
    """A small log with the columns of MovieLens-100K."""
    data = tastes(users=40, items=60, groups=4, events_per_user=8, seed=0).data
    log = data.events
    events = {"user": log.users, "item": log.items, "time": log.times // 1000, "rating": np.full(len(log), 4)}
    items = {"item": np.arange(60), "title": data.item_table["title"], "genres": data.item_table["tags"]}
    ages = data.user_table["age"]
    users = {"user": np.arange(40), "gender": ["M", "F"] * 20, "age": ages, "occupation": ["writer"] * 40}
    folder.mkdir()
    for name, columns in (("events", events), ("items", items), ("users", users)):
        pa.parquet.write_table(pa.table(columns), folder / f"{name}.parquet")


def test_every_example_is_listed_and_run() -> None:
    there = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".toml")}
    listed = (EXAMPLES / "README.md").read_text()
    tests = Path(__file__).read_text()
    assert [name for name in sorted(there) if f"]({name})" not in listed or f'"{name}"' not in tests] == []
