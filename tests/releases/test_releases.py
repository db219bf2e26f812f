"""What holds of releases wherever they are kept: in a folder, on an object store in memory, on a real S3 server."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zhiyin.errors import ReleaseError
from zhiyin.places.objects import Objects
from zhiyin.release import Release
from zhiyin.releases import Releases

A, B, C, D = "20260101-000000-aaaa", "20260102-000000-bbbb", "20260103-000000-cccc", "20260104-000000-dddd"

There = Callable[[], Releases]
Add = Callable[[Releases, str], None]


def test_what_one_machine_publishes_another_opens(there: There, add: Add) -> None:
    writer, reader = there(), there()
    with pytest.raises(ReleaseError, match="no release is live.*zhiyin publish"):
        reader.open()
    add(writer, A)
    release = reader.open()
    assert (release.id, reader.current(), reader.ids()) == (A, A, [A])
    np.testing.assert_array_equal(release.vectors, writer.open(A).vectors)
    assert reader.size(A) == sum(path.stat().st_size for path in (writer.root / A).rglob("*") if path.is_file())
    assert reader.manifest(A)["id"] == A
    add(writer, B)
    assert reader.open().id == B


def test_rolling_back_and_pointing(there: There, add: Add) -> None:
    one, other = there(), there()
    add(one, A)
    add(one, B)
    assert other.roll_back() == A
    assert one.current() == A
    with pytest.raises(ReleaseError, match=f"'{A}' is the oldest release"):
        other.roll_back()
    other.point(B)
    assert one.open().id == B
    with pytest.raises(ReleaseError, match=f"there is no release '{B[:-1]}'.*did you mean '{B}'"):
        other.point(B[:-1])


@pytest.mark.parametrize("pointer", [b"", b"what is this"])
def test_releases_that_nothing_points_at_are_made_live_by_their_id(there: There, add: Add, pointer: bytes) -> None:
    one = there()
    add(one, A)
    add(one, B)
    one.place.write("CURRENT", pointer)
    assert one.live() == ""
    with pytest.raises(ReleaseError, match=f"--to {B if not pointer else 'ID'}"):
        one.current()
    one.point(A)
    assert (one.live(), one.open().id) == (A, A)


def test_a_prune_spares_the_newest_the_live_one_those_pinned_and_those_in_use(there: There, add: Add) -> None:
    writer, server = there(), there()
    for id in (A, B, C, D):
        add(writer, id)
    used = server.open(A)
    writer.pin(B)
    writer.point(C)
    assert (writer.pinned(), writer.is_used(A), writer.is_used(B)) == ([B], True, False)
    assert writer.prune(0) == [D]
    assert writer.ids() == [A, B, C]
    del used
    assert not writer.is_used(A)
    assert writer.prune(1) == [A]
    writer.unpin(B)
    assert writer.prune(1) == [B]
    assert writer.ids() == [C]
    assert server.open().id == C


def test_what_is_not_ours_is_neither_pruned_nor_cleared_away(there: There, add: Add) -> None:
    """A bucket, or a folder, that others use, too."""
    releases = there()
    add(releases, A)
    add(releases, B)
    for name in ("20250101", "20250101-000000-0000"):  # one has a name as ours have
        folder = releases.root / "theirs"
        (folder / "deep").mkdir(parents=True)
        (folder / "manifest.json").write_text('{"id": "theirs", "format": 1, "files": {}}')
        (folder / "deep" / "data").write_text("dear")
        put(releases, folder, name)
    put_loose(releases)
    assert releases.prune(1) == [A]
    add(releases, C)
    for name in ("20250101", "20250101-000000-0000"):
        assert releases.place.read(f"{name}/deep/data") == b"dear"
    assert releases.place.read("loose/data") == b"dear"


def put(releases: Releases, folder: Path, name: str) -> None:
    """Move a folder to where the releases are."""
    if releases.url:
        objects = Objects(releases.url)
        objects.send({f"{name}/{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()})
        shutil.rmtree(folder)
    else:
        folder.rename(releases.root / name)


def put_loose(releases: Releases) -> None:
    """A folder without a manifest."""
    folder = releases.root / "theirs"
    folder.mkdir()
    (folder / "data").write_text("dear")
    put(releases, folder, "loose")


def test_pins_are_of_releases_that_are_there(there: There, add: Add) -> None:
    releases = there()
    add(releases, A)
    with pytest.raises(ReleaseError, match=f"there is no release '{A}x'.*did you mean '{A}'"):
        releases.pin(f"{A}x")
    releases.pin(A)
    releases.pin(A)
    assert there().pinned() == [A]
    releases.unpin(A)
    with pytest.raises(ReleaseError, match=f"'{A}' is not pinned"):
        releases.unpin(A)


def test_one_at_a_time_may_publish_and_the_other_is_told(there: There, add: Add) -> None:
    first, second = there(), there()
    add(first, A)
    with first.publishing(B):
        with pytest.raises(ReleaseError, match=r"another publish is under way here \(process \d+ on .*Nothing was"):
            add(second, C)
        second.point(A)  # what is live may change meanwhile
    add(second, C)
    assert first.ids() == [A, C]
    with pytest.raises(ReleaseError, match=f"the release '{C}' exists"):
        add(first, C)


def test_one_at_a_time_may_change_what_is_live(there: There, add: Add) -> None:
    first, second = there(), there()
    add(first, A)
    add(first, B)
    with first.changing():
        for change in (second.roll_back, lambda: second.prune(1), lambda: second.point(A)):
            with pytest.raises(ReleaseError, match=r"another change is under way here \(process \d+ on "):
                change()
    assert (second.current(), second.ids()) == (B, [A, B])
    assert second.roll_back() == A


def test_what_fails_while_it_is_built_leaves_nothing(there: There, add: Add) -> None:
    releases = there()
    add(releases, A)

    def fail() -> None:
        with releases.publishing(B) as building:
            (building.folder / "half").write_text("half")
            raise ValueError("a model that is none")

    with pytest.raises(ValueError, match="a model"):
        fail()
    assert (releases.ids(), releases.current()) == ([A], A)
    assert not list(releases.root.glob(".building-*"))
    add(releases, B)


@pytest.mark.parametrize("id", ["", ".hidden", "../up", "a/b", "CURRENT\n"])
def test_an_id_that_is_no_name_is_refused(id: str, tmp_path: Path, add: Add) -> None:
    with pytest.raises(ReleaseError, match="can be no release's id"):
        add(Releases(tmp_path), id)


@pytest.mark.parametrize("content", [b"../../elsewhere\n", b"\xff\xfe\n", b"a b\n"])
def test_a_pointer_that_is_no_id_is_refused(content: bytes, there: There, add: Add) -> None:
    releases = there()
    add(releases, A)
    releases.place.write("CURRENT", content)
    with pytest.raises(ReleaseError, match="CURRENT: damaged.*is no id.*rollback RECIPE --to ID"):
        releases.open()
    releases.point(A)
    assert releases.open().id == A


def test_a_release_in_use_is_so_by_every_one_that_has_it_open(there: There, add: Add) -> None:
    writer, server = there(), there()
    add(writer, A)
    add(writer, B)
    several: list[Release] = [server.open(A), there().open(A)]
    while several:
        assert writer.prune(1) == []
        several.pop()
    assert writer.prune(1) == [A]


def test_a_folder_may_be_moved_while_nobody_looks(tmp_path: Path, add: Add) -> None:
    add(Releases(tmp_path / "here"), A)
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert Releases(tmp_path / "there").open().id == A
