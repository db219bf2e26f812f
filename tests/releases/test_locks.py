"""Locks and leases: they end with their process, and nobody who was taken for dead goes on."""

import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from zhiyin.errors import ReleaseError
from zhiyin.places import leases
from zhiyin.places.leases import LeaseLock, is_used, use
from zhiyin.places.objects import Objects
from zhiyin.releases import Releases

A, B, C = "20260101-000000-aaaa", "20260102-000000-bbbb", "20260103-000000-cccc"

Add = Callable[[Releases, str], None]
There = Callable[[], Releases]


@contextmanager
def process(program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has said "ready"; killed at the end."""
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running
        running.kill()


HOLDS = """
import sys, time
from pathlib import Path
from zhiyin.places import leases
from zhiyin.releases import Releases
leases.LEASE = 1.5
releases = Releases(Path(sys.argv[1]), sys.argv[2])
what = releases.publishing("20260109-000000-0000") if sys.argv[3] == "publish" else releases.changing()
if sys.argv[3] == "use":
    release = releases.open(sys.argv[4])
else:
    what.__enter__()
print("ready", flush=True)
time.sleep(600)
"""


def another(there: There, what: str, id: str = "") -> list[str]:
    releases = there()
    return [HOLDS, str(releases.root), releases.url, what, id]


def until(act: Callable[[], object]) -> None:
    """Until it is no longer refused."""
    deadline = time.monotonic() + 60
    while True:
        try:
            act()
            return
        except ReleaseError as error:
            if "is under way" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@pytest.fixture(params=["folder", "s3"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> There:
    """Where other processes can be, too."""
    if request.param == "folder":
        return lambda: Releases(tmp_path / "shared")
    request.getfixturevalue("s3")
    url = f"s3://bucket/{uuid.uuid4().hex}"
    return lambda: Releases(tmp_path / uuid.uuid4().hex, url)


def test_the_lock_of_a_killed_publisher_is_free(there: There, add: Add) -> None:
    releases = there()
    add(releases, A)
    with process(*another(there, "publish")) as other:
        with pytest.raises(ReleaseError, match=rf"another publish is under way here \(process {other.pid} on "):
            add(releases, B)
        other.kill()
        other.wait()
        until(lambda: add(releases, B))
    assert releases.current() == B
    assert releases.ids() == [A, B]


def test_the_lock_of_a_killed_prune_is_free(there: There, add: Add) -> None:
    releases = there()
    add(releases, A)
    add(releases, B)
    with process(*another(there, "change")) as other:
        with pytest.raises(ReleaseError, match=rf"another change is under way here \(process {other.pid} on "):
            releases.roll_back()
        other.kill()
        other.wait()
        until(releases.roll_back)
    assert releases.current() == A


def test_what_a_killed_server_used_is_no_longer_in_use(there: There, add: Add) -> None:
    releases = there()
    add(releases, A)
    add(releases, B)
    with process(*another(there, "use", A)) as server:
        assert releases.is_used(A)
        assert releases.prune(1) == []
        server.kill()
        server.wait()
        deadline = time.monotonic() + 60
        while releases.is_used(A):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert releases.prune(1) == [A]


def test_a_server_that_ends_well_uses_nothing_at_once(there: There, add: Add) -> None:
    releases = there()
    add(releases, A)
    program = HOLDS.replace("leases.LEASE = 1.5", "leases.LEASE = 600.0").replace("time.sleep(600)", "input()")
    words = another(there, "use", A)[1:]
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", program, *words], **pipe) as server:  # type: ignore[call-overload]
        assert server.stdout.readline() == "ready\n"
        assert releases.is_used(A)
        server.communicate("\n")
    assert not releases.is_used(A)


def test_of_many_that_publish_at_once_one_wins(there: There, add: Add) -> None:
    many = 6
    add(there(), A)
    lost, start = [], threading.Barrier(many)
    all_lost = threading.Event()

    def attempt(number: int) -> str:
        releases, id = there(), f"20260105-000000-000{number}"
        start.wait()
        try:
            with releases.publishing(id) as building:
                assert all_lost.wait(60)
                building.lock.check()
                return id
        except ReleaseError as error:
            lost.append(str(error))
            if len(lost) == many - 1:
                all_lost.set()
            return ""

    with ThreadPoolExecutor(many) as pool:
        won = [id for id in pool.map(attempt, range(many)) if id]
    assert len(won) == 1
    assert all("another publish is under way here" in said for said in lost)


@pytest.fixture
def objects(s3: object) -> Objects:
    return Objects(f"s3://bucket/{uuid.uuid4().hex}")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE", 0.2)


def test_a_lock_that_was_taken_for_dead_is_lost_for_ever(objects: Objects, short: None) -> None:
    paused = LeaseLock(objects, "publish")
    paused._lease.stop.set()  # as if the process slept
    with leases.locked(objects, "publish", 30) as second:
        with pytest.raises(ReleaseError, match="this one was taken for dead"):
            paused.check()
        with pytest.raises(ReleaseError, match="this one was taken for dead"):
            paused._renew()
        paused.end()
        assert objects.children(".locks") == ["publish.000000002"]
        second._lease.stop.set()
    with leases.locked(objects, "publish", 30), pytest.raises(ReleaseError, match="this one was taken for dead"):
        second.check()


def test_the_lock_and_the_sign_of_life_are_renewed(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE", 2.0)
    used = use(objects, A)
    with leases.locked(objects, "publish", 0):
        names = [*(f".in-use/{A}/{name}" for name in objects.children(f".in-use/{A}")), ".locks/publish.000000001"]
        before = [leases._until(objects, name) for name in names]
        deadline = time.monotonic() + 60
        while not all(leases._until(objects, name) > then for name, then in zip(names, before, strict=True)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert is_used(objects, A)
    del used
    assert not is_used(objects, A)


def test_a_fork_that_ends_takes_no_sign_of_life_away(objects: Objects) -> None:
    lease = leases._Lease(objects, f".in-use/{A}/here")
    lease.renew()
    lease.process += 1  # what a child finds
    leases._leave(lease)
    assert is_used(objects, A)
    lease.process -= 1
    leases._leave(lease)
    assert not is_used(objects, A)


def test_a_server_that_may_not_write_is_warned_and_goes_on(
    objects: Objects, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbidden(self: Objects, name: str, content: bytes) -> None:
        raise ReleaseError("cannot be reached (Forbidden)", where=f"{self.url}/{name}")

    monkeypatch.setattr(Objects, "write", forbidden)
    used = use(objects, A)
    assert "others cannot see that 20260101-000000-aaaa is in use here" in caplog.text
    assert "Forbidden" in caplog.text
    del used


PUBLISHES = """
import shutil, sys
from pathlib import Path
from zhiyin.errors import ReleaseError
from zhiyin.places import leases
from zhiyin.releases import Releases
leases.LEASE = 1.5
with Releases(Path(sys.argv[1]), sys.argv[2]).publishing("20260103-000000-cccc") as building:
    shutil.copytree(sys.argv[3], building.folder, dirs_exist_ok=True)
    print("ready", flush=True)
    input()
    try:
        building.go_live()
        print("live")
    except ReleaseError as error:
        print(error)
"""


def test_one_that_was_stopped_while_another_published_does_not_go_live(
    there: There, add: Add, whole: Callable[[Path, str], None], tmp_path: Path
) -> None:
    """SIGSTOP: a machine that sleeps. A file's lock outlasts it; a lease does not, and the late one finds out."""
    releases = there()
    add(releases, A)
    whole(tmp_path / "built", C)
    words = [sys.executable, "-c", PUBLISHES, str(there().root), releases.url, str(tmp_path / "built")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as late:
        assert late.stdout is not None
        assert late.stdout.readline() == "ready\n"
        late.send_signal(signal.SIGSTOP)
        if releases.url:
            until(lambda: add(releases, B))
        else:
            with pytest.raises(ReleaseError, match="another publish is under way"):
                add(releases, B)
        late.send_signal(signal.SIGCONT)
        said, _ = late.communicate("\n")
    if releases.url:
        assert "another publish is under way here (this one was taken for dead)" in said
        assert (releases.ids(), releases.current()) == ([A, B], B)
        assert releases.place.read(f"{C}/index.bin") == b""  # what it had sent is gone again
    else:
        assert said == "live\n"
        assert (releases.ids(), releases.current()) == ([A, C], C)
