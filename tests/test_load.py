"""A log that is loaded again never undoes what became of its items since."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from zhiyin import loading, pipeline, spec
from zhiyin.recipe import Recipe
from zhiyin.screen import stored_words
from zhiyin.stores.base import Change, Store, StoreSpec

Placed = Callable[[StoreSpec, Path], StoreSpec]
WRITTEN = 1_700_000_000
"""When the item table was last written, in seconds."""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "log.csv").write_text("user,item,time\n" + "".join(f"u{at % 3},i{at},{at}\n" for at in range(6)))
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{at},of the table\n" for at in range(6)))
    os.utime(tmp_path / "items.csv", (WRITTEN, WRITTEN))
    (tmp_path / "r.toml").write_text('home = "home"\n[data]\nevents = "log.csv"\nitems = "items.csv"\n')
    recipe = Recipe.read(tmp_path / "r.toml")
    pipeline.prepare(recipe)
    return recipe


@pytest.fixture(params=spec.examples("zhiyin.stores"), ids=lambda one: str(one)[:50])
def store(request: pytest.FixtureRequest, placed: Placed, tmp_path: Path) -> Iterator[Store]:
    store = placed(request.param, tmp_path).open()
    yield store
    store.close()


def titles(store: Store) -> list[Any]:
    return [None if card is None else card["title"] for card in store.cards([f"i{at}" for at in range(6)])]


def change(store: Store, item: str, seconds: int, title: str | None) -> None:
    """As the service does."""
    told = None if title is None else {"title": title}
    if told is not None:
        store.put_cards({item: told})
    store.put_changes([Change(item, 1000 * seconds, told)])
    if told is None:
        store.drop_cards([item])


def test_what_was_changed_since_keeps_its_card(recipe: Recipe, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CHUNK", 2)
    assert pipeline.load(recipe, store) == {"items": 6, "newer": 0, "profiles": 0, "events": 6}
    change(store, "i1", WRITTEN + 1, "newer")
    change(store, "i2", WRITTEN + 1, None)
    change(store, "i3", WRITTEN, "older")
    change(store, "i4", WRITTEN - 9, None)
    change(store, "strange", WRITTEN + 1, "newer")
    told = pipeline.load(recipe, store)
    assert told == {"items": 3, "newer": 3, "profiles": 0, "events": 6}
    assert titles(store) == ["of the table", "newer", None, "of the table", None, "of the table"]
    assert stored_words(told) == (
        "the store holds 3 items, 0 profiles, 6 events; 3 items were put or deleted since, and keep their cards "
        "(load --replace: the log's)"
    )
    assert pipeline.load(recipe, store, replace_newer=True)["newer"] == 0
    assert titles(store) == ["of the table"] * 6
    assert store.cards(["strange"]) == [{"title": "newer"}]


def test_loading_unblocks_nothing_and_brings_blocked_items_newer_cards(recipe: Recipe, store: Store) -> None:
    store.put_cards({"i1": {"title": "older"}})
    store.put_changes([Change("i1", 1000 * (WRITTEN + 1), None, blocked=True)])
    before = store.changes(0, 9)
    assert pipeline.load(recipe, store) == {"items": 6, "newer": 0, "profiles": 0, "events": 6}
    assert titles(store)[1] == "of the table"
    assert store.changes(0, 9) == before


def test_a_table_that_is_written_and_prepared_anew_is_the_newer(recipe: Recipe, store: Store) -> None:
    change(store, "i1", WRITTEN + 1, "newer")
    os.utime(recipe.path.parent / "items.csv", (WRITTEN + 2, WRITTEN + 2))
    assert pipeline.load(recipe, store)["newer"] == 1
    pipeline.prepare(recipe)
    assert pipeline.load(recipe, store)["newer"] == 0
    assert titles(store)[1] == "of the table"


def test_what_is_changed_while_the_log_is_loaded_is_newer_too(
    recipe: Recipe, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "CHUNK", 2)

    def watch(what: str, done: int, total: int) -> None:
        if (what, done) == ("items", 2):
            change(store, "i4", WRITTEN + 1, "newer")
            change(store, "i5", WRITTEN + 1, None)

    assert pipeline.load(recipe, store, watch)["newer"] == 2
    assert titles(store) == ["of the table"] * 4 + ["newer", None]


def test_items_are_known_as_of_the_table_that_was_read(recipe: Recipe) -> None:
    """Not as of one that was written since; nor of the preparation, which may have read an old table."""
    items = recipe.path.parent / "items.csv"
    assert pipeline.items_as_of(recipe).timestamp() == WRITTEN
    os.utime(items, (WRITTEN + 5, WRITTEN + 5))
    assert pipeline.items_as_of(recipe).timestamp() == WRITTEN
    pipeline.append(recipe, added(recipe, 10))
    assert pipeline.items_as_of(recipe).timestamp() == WRITTEN + 5
    os.utime(items, (2**33, 2**33))
    before = datetime.now(UTC).timestamp()
    pipeline.prepare(recipe)
    assert int(before) <= pipeline.items_as_of(recipe).timestamp() <= datetime.now(UTC).timestamp()
    (recipe.prepared / "items_as_of.json").unlink()  # prepared before that was kept
    os.utime(recipe.prepared / "manifest.json", (WRITTEN, WRITTEN))
    assert pipeline.items_as_of(recipe).timestamp() == WRITTEN


def test_without_a_table_nothing_is_known_of_items(recipe: Recipe) -> None:
    bare = Recipe.of({"home": "bare", "data": {"events": "log.csv"}}, recipe.path)
    pipeline.prepare(bare)
    assert pipeline.items_as_of(bare).timestamp() == 0
    pipeline.append(bare, added(recipe, 20))
    assert pipeline.items_as_of(bare).timestamp() == 0


def added(recipe: Recipe, at: int) -> Path:
    """A file with one more event."""
    path = recipe.path.parent / f"more{at}.csv"
    path.write_text(f"user,item,time\nu0,i1,{at}\n")
    return path
