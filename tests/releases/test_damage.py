"""A release that is damaged, wherever, is refused by name; a disk that is full takes nothing away."""

import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from zhiyin.errors import ReleaseError
from zhiyin.manifest import parse_manifest
from zhiyin.places.base import MANIFEST
from zhiyin.release import Release
from zhiyin.releases import Releases

A, B = "20260101-000000-aaaa", "20260102-000000-bbbb"

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = ("format-1", "format-2", "everything")
"""Releases with every kind of file there is: the last has weights apart, tables of channels, and a signature."""

Add = Callable[[Releases, str], None]
Start = Callable[[], Releases]


@pytest.fixture
def root(tmp_path: Path, add: Add) -> Path:
    add(Releases(tmp_path / "releases"), A)
    return tmp_path / "releases"


def every_file(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@contextmanager
def flipped(path: Path, place: int, bits: int) -> Iterator[None]:
    whole = path.read_bytes()
    content = bytearray(whole)
    content[place] ^= bits
    path.write_bytes(content)
    yield
    path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_byte_in_any_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    root = Path(shutil.copytree(GOLDEN / kind, tmp_path / "releases"))
    folder = root / Releases(root).current()
    files = every_file(folder)
    assert len(files) > 20
    assert kind != "everything" or {"item_tower.onnx.data", "user_tower.onnx.data"} < {path.name for path in files}
    for path in files:
        size = path.stat().st_size
        for place in {0, size - 1, *random.integers(0, size, 4).tolist()}:
            with flipped(path, place, int(random.integers(1, 256))), pytest.raises(ReleaseError) as refused:
                Release.open(folder)
            assert str(path) in str(refused.value)
    assert Releases(root).open().id == folder.name


@pytest.mark.parametrize("bits", [3, 0x20])
@pytest.mark.parametrize("kind", KINDS)
def test_no_byte_of_a_manifest_can_change_unnoticed(kind: str, bits: int) -> None:
    """Not even one that would mean the same: a line end that becomes a tab; nor one of a signature."""
    (path,) = (GOLDEN / kind).glob(f"*/{MANIFEST}")
    whole = path.read_bytes()

    def is_refused(place: int) -> bool:
        content = bytearray(whole)
        content[place] ^= bits
        try:
            parse_manifest(bytes(content), "m")
        except ReleaseError:
            return True
        return False

    assert [place for place in range(len(whole)) if not is_refused(place)] == []
    assert parse_manifest(whole, "m")["id"] == path.parent.name


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """The system refuses longer ones, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_server_whose_disk_is_full_says_so_and_takes_the_release_when_there_is_room(there: Start, add: Add) -> None:
    writer, server = there(), there()
    add(writer, A)
    old = server.open()
    add(writer, B)
    if not server.url:
        return  # nothing is copied
    with files_of_at_most(8_000), pytest.raises(ReleaseError, match=r"no copy of '20260102.* could be made \(File too"):
        server.open()
    assert [path.name for path in server.root.iterdir() if path.is_dir()] == [old.id]
    assert server.open().id == B


def test_a_full_disk_can_be_pruned(root: Path, add: Add) -> None:
    releases = Releases(root)
    add(releases, B)
    shutil.copytree(root / A, root / ".building-20260103-000000-cccc")
    with files_of_at_most(0):
        assert releases.prune(1) == [A]
    assert not list(root.glob(".building-*"))
    assert releases.open().id == B
