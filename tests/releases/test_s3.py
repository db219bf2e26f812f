"""Releases on a real S3 server: what breaks between here and there, and what goes on meanwhile."""

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest

from zhiyin.errors import ReleaseError, SpecError
from zhiyin.manifest import manifest_digest, written
from zhiyin.places.base import MANIFEST
from zhiyin.places.objects import Objects
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.service.live import Live

if TYPE_CHECKING:
    from conftest import S3

A, B, C, D = "20260101-000000-aaaa", "20260102-000000-bbbb", "20260103-000000-cccc", "20260104-000000-dddd"

Add = Callable[[Releases, str], None]
Whole = Callable[[Path, str], None]


@pytest.fixture
def url(s3: "S3") -> str:
    return f"s3://bucket/{uuid.uuid4().hex}/films"


@pytest.fixture
def objects(url: str) -> Objects:
    return Objects(url)


@pytest.fixture
def writer(url: str, tmp_path: Path, add: Add) -> Releases:
    """Where A is live."""
    releases = Releases(tmp_path / "writer", url)
    add(releases, A)
    return releases


@pytest.fixture
def reader(writer: Releases, tmp_path: Path) -> Releases:
    return Releases(tmp_path / "reader", writer.url)


def folders(releases: Releases) -> list[str]:
    return sorted(path.name for path in releases.root.iterdir() if path.is_dir())


def test_a_trained_model_is_published_there_signed_and_served_by_another_machine(
    url: str, published: Callable[..., Release], keys: Path, tmp_path: Path
) -> None:
    writer = Releases(tmp_path / "writer", url, sign=keys / "ours.key")
    release = published(writer, A, seed=1)
    reader = Releases(tmp_path / "reader", url, trust=(keys / "ours.pub",))
    live = Live(reader).release
    assert live.id == release.id == A
    assert live.manifest == release.manifest
    np.testing.assert_array_equal(live.vectors, release.vectors)
    assert reader.is_used(A)
    with pytest.raises(ReleaseError, match=f"{url}: the release '{A}' exists"):
        published(writer, A)
    with pytest.raises(SpecError, match="would be signed by nobody"):
        published(reader, B)


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from zhiyin.places import leases
from zhiyin.places.objects import Objects
from zhiyin.places.remote import Remote
from zhiyin.releases import Releases

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

_, root, url, built, moment = sys.argv
leases.LEASE = 1.0
if moment == "half of the files are sent":
    send = Objects.send
    Objects.send = lambda self, files: (send(self, dict(list(files.items())[:8])), die())
elif moment == "all but the manifest is sent":
    Remote.reveal = die
else:
    Releases.swap = die
with Releases(Path(root), url).publishing("20260102-000000-bbbb") as building:
    shutil.copytree(built, building.folder, dirs_exist_ok=True)
    building.go_live()
"""


@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("half of the files are sent", [A]),
        ("all but the manifest is sent", [A]),
        ("the pointer is not yet written", [A, B]),
    ],
)
def test_a_publisher_is_killed_when(
    moment: str, left: list[str], writer: Releases, reader: Releases, add: Add, whole: Whole, tmp_path: Path
) -> None:
    whole(tmp_path / "built", B)
    words = [str(writer.root), writer.url, str(tmp_path / "built"), moment]
    done = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (reader.current(), reader.ids()) == (A, left)
    assert reader.open().id == A
    deadline = time.monotonic() + 60
    while True:
        try:
            add(writer, C)
            break
        except ReleaseError:  # until it is believed dead
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)
    assert (reader.ids(), reader.open().id) == ([*left, C], C)
    assert (objects_of(B, writer) != {}) == (B in left)
    assert not list(writer.root.glob(".building-*"))
    if B in left:  # it is whole, and may be made live
        reader.point(B)
        assert reader.open().id == B


def objects_of(id: str, releases: Releases) -> dict[str, int]:
    return Objects(releases.url).sizes(id)


def test_an_object_that_was_cut_short_or_lost_leaves_the_old_release_live(
    writer: Releases, reader: Releases, objects: Objects, add: Add
) -> None:
    live = Live(reader)
    add(writer, B)
    name = f"{B}/golden/user_vectors.npy"
    content = objects.read(name)
    cases: list[tuple[Callable[[], None], str]] = [
        (lambda: objects.write(name, content[:-1]), f"{writer.url}/{name}: damaged"),
        (lambda: objects.delete([name]), f"{writer.url}/{name}: a file is missing"),
    ]
    for breaks, said in cases:
        breaks()
        until(lambda said=said: said in live.trouble, live)  # type: ignore[misc]
        assert live.release.id == A
        assert folders(reader) == [A]
    with pytest.raises(ReleaseError, match=r"user_vectors\.npy: a file is missing; expected 1,"):
        writer.point(B)  # it has a whole copy, but nobody else could get one
    objects.write(name, content)
    until(lambda: live.release.id == B, live)
    assert live.trouble == ""


def until(true: Callable[[], bool], live: Live) -> None:
    for _ in range(200):
        live.look()
        if true():
            return
    raise AssertionError(live.trouble)


def test_a_store_that_is_down_takes_nothing_away_and_says_so(
    writer: Releases, reader: Releases, s3: "S3", add: Add
) -> None:
    live = Live(reader)
    held = live.release
    s3.kill()
    try:
        live.look()
        assert live.release is held
        assert f"{writer.url}/CURRENT: cannot be reached" in live.trouble
        assert f"127.0.0.1:{s3.port}" in live.trouble
        with pytest.raises(ReleaseError, match="cannot be reached"):
            add(writer, B)
    finally:
        s3.start()  # with nothing in it
    live.look()
    assert live.release is held
    assert "no release is live" in live.trouble
    add(writer, B)
    until(lambda: live.release.id == B, live)
    assert live.trouble == ""


def test_a_store_that_goes_down_while_it_is_written_to(
    writer: Releases, reader: Releases, objects: Objects, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the last two writes: the answer to one is lost on its way, the other does not arrive."""
    write = Objects.write

    def lost(self: Objects, name: str, content: bytes) -> None:
        write(self, name, content)
        if name == "CURRENT":
            raise ReleaseError("cannot be reached (it hung up)", where=name)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "write", lost)
        add(writer, B)
    assert reader.open().id == B

    def refused(self: Objects, name: str, content: bytes) -> None:
        if name == f"{D}/{MANIFEST}":
            raise ReleaseError("cannot be reached (it hung up)", where=name)
        write(self, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "write", refused)
        with pytest.raises(ReleaseError, match="it hung up"):
            add(writer, D)
    assert (reader.current(), reader.ids(), objects.sizes(D)) == (B, [A, B], {})


def test_what_arrives_short_is_not_published(
    writer: Releases, objects: Objects, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Objects.send

    def short(self: Objects, files: dict[str, Path]) -> None:
        send(self, files)
        self.write(f"{B}/vectors.npy", b"short")

    monkeypatch.setattr(Objects, "send", short)
    with pytest.raises(ReleaseError, match=rf"{B}/vectors\.npy: 5 bytes; expected 1,\d\d\d bytes"):
        add(writer, B)
    assert (writer.ids(), writer.current(), objects.sizes(B)) == ([A], A, {})


def test_a_killed_download_leaves_nothing_that_counts(writer: Releases, reader: Releases) -> None:
    program = """
import os, signal, sys
from pathlib import Path
import zhiyin.releases
zhiyin.releases.verify = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
zhiyin.releases.Releases(Path(sys.argv[1]), sys.argv[2]).open()
"""
    words = [sys.executable, "-c", program, str(reader.root), reader.url]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert folders(reader) == [f".fetching-{A}"]
    assert reader.open().id == A
    assert folders(reader) == [A]


def test_a_copy_that_was_damaged_is_fetched_again(writer: Releases, reader: Releases) -> None:
    used = reader.open()  # whoever has the damaged one open does not stand in the way
    for name in ("vectors.npy", MANIFEST):
        path = reader.root / A / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert reader.open().id == A
        assert path.read_bytes() == whole
    assert used.id == A


def test_a_copy_is_fetched_once_and_two_stay_beside_those_in_use(
    writer: Releases, reader: Releases, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []
    fetch = Objects.fetch

    def counted(self: Objects, files: dict[str, Path]) -> None:
        fetched.append(next(iter(files)).partition("/")[0])
        fetch(self, files)

    monkeypatch.setattr(Objects, "fetch", counted)
    used = reader.open(A)
    for id in (B, C, D):
        add(writer, id)
        assert reader.open().id == id
        assert reader.open().id == id
    assert fetched == [A, B, C, D]
    assert folders(reader) == [A, C, D]
    del used
    add(writer, "20260105-000000-eeee")
    reader.open()
    assert folders(reader) == [D, "20260105-000000-eeee"]


def test_a_manifest_that_names_a_file_outside_is_refused(writer: Releases, reader: Releases, objects: Objects) -> None:
    manifest = json.loads(objects.read(f"{A}/{MANIFEST}"))
    manifest["files"]["../../stolen"] = manifest["files"]["vectors.npy"]
    manifest["digest"] = manifest_digest(manifest)
    objects.write(f"{A}/{MANIFEST}", written(manifest))
    with pytest.raises(ReleaseError, match=rf"{A}/manifest\.json: it names the file '\.\./\.\./stolen', which"):
        reader.open()


def test_what_a_url_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    with pytest.raises(SpecError, match=r"no such kind of storage \(Protocol not known: floppy\).*s3://bucket/prefix"):
        Releases(tmp_path, "floppy://a/b").ids()
    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(SpecError, match=r"s3://a/b: needs the package s3fs.*pip install 'zhiyin\[s3\]'"):
        Releases(tmp_path, "s3://a/b").ids()
