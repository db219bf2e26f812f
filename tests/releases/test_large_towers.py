"""Towers whose weights lie in files of their own, as those of over 2 GB must: here from 100 bytes on."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zhiyin.errors import ReleaseError
from zhiyin.manifest import read_manifest
from zhiyin.release import Release
from zhiyin.releases import Releases

A, B = "20260101-000000-aaaa", "20260102-000000-bbbb"
FILES = ("item_tower.onnx.data", "user_tower.onnx.data")

Publisher = Callable[..., Release]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["zhiyin.publish"], "INSIDE", 100)


@pytest.fixture
def root(published: Publisher, tmp_path: Path) -> Path:
    published(tmp_path / "releases", A, seed=1)
    return tmp_path / "releases"


def test_it_answers_as_one_whose_towers_are_in_one_file(
    root: Path, published: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(FILES) < set(read_manifest(root / A)["files"])
    monkeypatch.undo()
    whole = published(tmp_path / "whole", A, seed=1)
    assert not set(FILES) & set(whole.manifest["files"])
    apart = Releases(root).open()
    np.testing.assert_array_equal(apart.vectors, whole.vectors)
    golden = root / A / "golden"
    for kind in ("inputs", "item_inputs"):
        inputs = {path.stem: np.load(path) for path in golden.glob(f"{kind}/*.npy")}
        towers = (apart.user_tower, whole.user_tower) if kind == "inputs" else (apart.item_tower, whole.item_tower)
        np.testing.assert_array_equal(towers[0](inputs), towers[1](inputs))


@pytest.mark.parametrize("name", FILES)
def test_such_a_file_that_is_damaged_or_missing_is_named(root: Path, name: str) -> None:
    path = root / A / name
    whole = path.read_bytes()
    for place in (0, len(whole) // 2, len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(ReleaseError, match=rf"{name}: damaged"):
            Release.open(root / A)
    path.unlink()
    with pytest.raises(ReleaseError, match=rf"{name}: a file is missing"):
        Release.open(root / A)


def test_such_a_file_is_sent_and_fetched(published: Publisher, there: Callable[[], Releases]) -> None:
    writer, reader = there(), there()
    published(writer, A)
    release = reader.open()
    assert set(FILES) < set(release.manifest["files"])
    np.testing.assert_array_equal(release.vectors, writer.open().vectors)


def test_a_disk_that_is_too_full_for_such_a_file_takes_nothing_away(root: Path, published: Publisher) -> None:
    before = sorted(root.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((root / A / FILES[0]).stat().st_size - 1, hard))
    try:
        with pytest.raises(ReleaseError, match="could not be written.*the live release is untouched"):
            published(root, B)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(root.rglob("*")) == before
    assert Releases(root).open().id == A
