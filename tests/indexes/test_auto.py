"""`index = "auto"`: from the recipe to a release that says what it measured."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zhiyin import spec
from zhiyin.errors import SpecError
from zhiyin.indexes.auto import Auto
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.overlap import overlap
from zhiyin.places.base import MANIFEST
from zhiyin.recipe import Recipe
from zhiyin.release import Release

DATA = '[data]\nevents = "log.csv"\n'


def recipe(tmp_path: Path, text: str) -> Recipe:
    (tmp_path / "recipe.toml").write_text(text)
    return Recipe.read(tmp_path / "recipe.toml")


def test_a_recipe_says_auto_in_a_word_or_in_a_table(tmp_path: Path) -> None:
    assert recipe(tmp_path, 'index = "auto"\n' + DATA).index == Auto()
    table = DATA + '[index]\nuse = "auto:Auto"\noverlap = 0.9\nk = 500\nmemory_mb = 200\n'
    assert recipe(tmp_path, table).index == Auto(overlap=0.9, k=500, memory_mb=200)
    with pytest.raises(SpecError, match=r"recipe\.toml index: overlap = 2\.0; expected above 0"):
        recipe(tmp_path, DATA + '[index]\nuse = "auto:Auto"\noverlap = 2.0\n')


def test_a_release_with_a_tuned_index_holds_what_was_chosen_and_why(
    published: Callable[..., Release], tmp_path: Path
) -> None:
    published(tmp_path / "releases", "20260101-000000-aaaa", index=Auto(overlap=0.9, k=10, seconds=20), overlap=0.9)
    folder = tmp_path / "releases" / "20260101-000000-aaaa"
    manifest = json.loads((folder / MANIFEST).read_text())
    index = spec.used_build(manifest["index"], "zhiyin.indexes")
    assert index == spec.used_build(manifest["tuning"]["chosen"]["index"], "zhiyin.indexes")
    assert manifest["index"] == spec.used_table(index, "zhiyin.indexes", whole=True)
    assert manifest["tuning"]["target"] == {"overlap": 0.9, "k": 10, "threads": 1, "seed": 0}
    assert manifest["tuning"]["chosen"]["held_out_overlap"] >= 0.85
    assert len(manifest["tuning"]["curve"]) >= 1
    assert not isinstance(index, Auto)
    release = Release.open(folder)
    queries = np.array(release.vectors[:5])
    exact = Exact().build(release.vectors).search(queries, 10)
    assert overlap(release.index.search(queries, 10), exact) >= 0.8
