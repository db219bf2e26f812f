"""Releases: built whole or not at all, proved before they go live, refused when damaged, rolled back."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zhiyin.errors import ReleaseError, SearchError
from zhiyin.indexes.auto import Auto
from zhiyin.indexes.base import IndexSpec
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.ivf import IVFFlat
from zhiyin.manifest import manifest_digest
from zhiyin.places.base import CURRENT, MANIFEST
from zhiyin.release import Release
from zhiyin.releases import Releases

Publisher = Callable[..., Release]


@pytest.fixture(scope="module")
def built(published: Publisher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases, the newer one live."""
    root = tmp_path_factory.mktemp("built") / "releases"
    published(root, "20260101-000000-aaaa", seed=1)
    published(root, "20260102-000000-bbbb", seed=2)
    return root


@pytest.fixture
def root(built: Path, tmp_path: Path) -> Path:
    """A copy of them for one test."""
    return Path(shutil.copytree(built, tmp_path / "releases"))


def test_publish_makes_the_release_live_and_leaves_nothing_else(root: Path) -> None:
    assert Releases(root).current() == "20260102-000000-bbbb"
    left = {p.name for p in root.iterdir()}
    assert left - {".publish.lock", ".change.lock"} == {"20260101-000000-aaaa", "20260102-000000-bbbb", CURRENT}


def test_a_release_states_its_proof(release: Release) -> None:
    proof = release.manifest["proof"]
    assert proof["parity"] <= 1e-4
    assert proof["overlap"] == 1.0
    assert proof["k"] == 10


def test_roll_back_points_at_the_older_one_and_stops_at_the_oldest(root: Path) -> None:
    there = Releases(root)
    assert there.roll_back() == "20260101-000000-aaaa"
    assert there.open().id == "20260101-000000-aaaa"
    with pytest.raises(ReleaseError, match="oldest release"):
        there.roll_back()
    there.point("20260102-000000-bbbb")
    assert there.current() == "20260102-000000-bbbb"


def test_pointing_at_a_release_that_is_not_there_names_the_nearest(root: Path) -> None:
    with pytest.raises(ReleaseError, match="did you mean '20260102-000000-bbbb'"):
        Releases(root).point("20260102-000000-bbb")
    assert Releases(root).current() == "20260102-000000-bbbb"


def test_prune_keeps_the_newest_and_the_live_one(root: Path) -> None:
    there = Releases(root)
    there.roll_back()
    assert there.prune(1) == []
    there.point("20260102-000000-bbbb")
    assert there.prune(1) == ["20260101-000000-aaaa"]
    assert there.ids() == ["20260102-000000-bbbb"]


def test_the_same_id_twice_is_refused(root: Path, published: Publisher) -> None:
    with pytest.raises(ReleaseError, match="the release '20260102-000000-bbbb' exists"):
        published(root, "20260102-000000-bbbb")


def every_file(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_truncated_a_missing_and_an_unknown_file_are_refused_by_name(root: Path) -> None:
    folder = root / "20260102-000000-bbbb"
    (folder / "stray.txt").write_text("?")
    with pytest.raises(ReleaseError, match=r"stray\.txt: a file that is not in the manifest"):
        Release.open(folder)
    (folder / "stray.txt").unlink()
    vectors = folder / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-7])
    with pytest.raises(ReleaseError, match=r"vectors\.npy: damaged"):
        Release.open(folder)
    vectors.unlink()
    with pytest.raises(ReleaseError, match=r"vectors\.npy: a file is missing"):
        Release.open(folder)


def test_a_newer_format_is_refused_with_the_way_out(root: Path) -> None:
    path = root / "20260102-000000-bbbb" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["format"] = 99
    manifest["digest"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match=r"release format 99; expected format 2 or older\. Upgrade zhiyin"):
        Release.open(path.parent)


def test_no_release_yet_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="no release is live.*zhiyin publish"):
        Releases(tmp_path).open()


def test_an_index_that_breaks_its_promise_is_not_published(root: Path, published: Publisher) -> None:
    with pytest.raises(ReleaseError, match=r"finds 0\.\d+ of the exact top 10; expected at least 0\.999.*Nothing"):
        published(root, "20260103-000000-cccc", index=IVFFlat(nlist=3, nprobe=1), overlap=0.999)
    assert Releases(root).current() == "20260102-000000-bbbb"
    assert not list(root.glob(".building*"))


@pytest.mark.parametrize("index", [Exact(), IVFFlat(), Auto(overlap=0.9, k=10, seconds=20)], ids=repr)
def test_a_model_that_diverged_is_not_published(root: Path, published: Publisher, index: IndexSpec | Auto) -> None:
    before = every_file(root)
    with pytest.raises(SearchError, match=r"row 0 has a number that is not finite.*\(60 such rows\).*diverged"):
        published(root, "20260103-000000-cccc", index=index, scale=float("nan"))
    assert every_file(root) == before
    assert Releases(root).open().id == "20260102-000000-bbbb"


def test_vectors_that_are_all_zero_are_published_and_answered_by_row(tmp_path: Path, published: Publisher) -> None:
    release = published(tmp_path, "20260101-000000-aaaa", index=Auto(overlap=0.9, k=10, seconds=20), scale=0.0)
    assert not release.vectors.any()
    assert release.manifest["proof"]["overlap"] >= 0.9
    hits = release.index.search(np.zeros((1, 16), np.float32), 5)
    assert (len(set(hits.rows[0].tolist())), hits.scores.tolist()) == (5, [[0.0] * 5])


@pytest.mark.parametrize("most", [100, 1_500, 8_000])
def test_a_full_disk_is_a_sentence_and_the_live_release_stays(root: Path, published: Publisher, most: int) -> None:
    """The system refuses files of more than `most` bytes, as a full disk would: ids, vectors, a tower."""
    before = every_file(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        with pytest.raises(ReleaseError, match="could not be written.*the live release is untouched"):
            published(root, "20260103-000000-cccc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert every_file(root) == before
    assert Releases(root).open().id == "20260102-000000-bbbb"


def test_a_disk_that_is_full_at_the_very_last_step_leaves_nothing(
    root: Path, published: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = every_file(root)
    monkeypatch.setattr(Releases, "swap", full)
    with pytest.raises(ReleaseError, match="could not be written.*No space left.*the live release is untouched"):
        published(root, "20260103-000000-cccc")
    assert every_file(root) == before


def test_a_swap_that_fails_leaves_the_live_one_and_no_leftover(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = every_file(root)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        Releases(root).point("20260101-000000-aaaa")
    assert every_file(root) == before
    assert Releases(root).current() == "20260102-000000-bbbb"


def test_rolling_back_to_a_damaged_release_is_refused(root: Path) -> None:
    vectors = root / "20260101-000000-aaaa" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match=r"vectors\.npy: damaged"):
        Releases(root).roll_back()
    assert Releases(root).current() == "20260102-000000-bbbb"


def test_a_folder_that_was_renamed_is_not_that_release(root: Path) -> None:
    (root / "20260101-000000-aaaa").rename(root / "20260104-000000-dddd")
    with pytest.raises(ReleaseError, match="dddd: it says it is '20260101-000000-aaaa'"):
        Releases(root).open("20260104-000000-dddd")


def test_prune_clears_what_a_killed_prune_left(root: Path) -> None:
    left = root / ".pruned-20250101-000000-0000"
    left.mkdir()
    (left / "vectors.npy").write_bytes(b"half")
    assert Releases(root).prune(5) == []
    assert not left.exists()


def test_no_path_of_the_publishers_machine_is_in_a_release(root: Path) -> None:
    for name in every_file(root):
        assert b'File "' not in (root / name).read_bytes(), name


def test_a_publish_that_was_killed_leaves_nothing_in_the_way(root: Path, published: Publisher) -> None:
    half = root / ".building-20260103-000000-cccc"
    half.mkdir()
    (half / "vectors.npy").write_bytes(b"half")
    assert Releases(root).ids() == ["20260101-000000-aaaa", "20260102-000000-bbbb"]
    assert published(root, "20260103-000000-cccc").id == "20260103-000000-cccc"
    assert not half.exists()


def test_the_online_wing_opens_a_release_without_torch(root: Path) -> None:
    """The same in a fresh environment without torch is `tests/test_without_torch.py`; this one is quick."""
    program = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from zhiyin.releases import Releases
from zhiyin.retriever import Request, Retriever
from zhiyin.stores.memory import Memory
release = Releases(Path({str(root)!r})).open()
print(len(Retriever(Memory().open()).retrieve(release, [Request(k=5, profile={{"country": "cn"}})])[0].items))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "5", done.stderr
