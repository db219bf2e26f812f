"""Releases on an object store, copied to this machine when they are opened.

URL/CURRENT  URL/PINNED          small objects, written at once
URL/ID/…                         a release: its manifest goes up last, so a half-sent one is none
URL/.locks/  URL/.in-use/        leases, see `leases`

COPIES/ID/…                      a whole copy, checked before it got this name
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zhiyin.errors import ReleaseError
from zhiyin.places import leases, locks
from zhiyin.places.base import CURRENT, MANIFEST, PINNED, Checks, Hold, Lock
from zhiyin.places.folder import Folder
from zhiyin.places.objects import Objects

UNFINISHED = ".unfinished"

COPIES = 2
"""Copies that stay on this machine beside those in use: the newest used."""

FETCH_WAIT = 600.0
"""Seconds to wait for another process of this machine that is fetching."""


class Remote:
    """`copies`: the folder on this machine; processes may share it."""

    def __init__(self, url: str, copies: Path) -> None:
        self._objects, self._copies = Objects(url), Folder(copies)

    @property
    def where(self) -> str:
        return self._objects.url

    def ids(self) -> list[str]:
        names = (name for name in self._objects.children("") if not name.startswith("."))
        return [name for name in names if name not in (CURRENT, PINNED) and self._is_whole(name)]

    def read(self, name: str) -> bytes:
        return self._objects.read(name)

    def write(self, name: str, content: bytes) -> None:
        self._objects.write(name, content)

    def folder(self, id: str, checks: Checks) -> Path:
        copy = self._copies.root / id
        if not (copy / MANIFEST).is_file():
            self._copies.root.mkdir(parents=True, exist_ok=True)
            with locks.locked(self._copies.root / ".fetch.lock", "download", FETCH_WAIT):
                if not (copy / MANIFEST).is_file():
                    self._make_room()
                    self._fetch(id, copy, checks)
        with suppress(OSError):
            copy.touch()  # the newest used
        return copy

    def match(self, folder: Path, id: str) -> None:
        there = self._objects.sizes(id)
        for name, path in _files(folder).items():
            size = path.stat().st_size
            if there.get(name) != size and name != MANIFEST:
                raise ReleaseError(
                    f"{there[name]:,} bytes" if name in there else "a file is missing",
                    where=f"{self.where}/{id}/{name}",
                    expected=f"{size:,} bytes",
                )

    def forget(self, id: str) -> bool:
        if not (self._copies.root / id / MANIFEST).is_file():
            return False
        with suppress(FileNotFoundError):  # another process does the same
            self._copies.drop(id)
        return True

    def stage(self, built: Path, id: str, lock: Lock) -> None:
        files = {f"{id}/{name}": path for name, path in _files(built).items() if name != MANIFEST}
        self._objects.write(f"{UNFINISHED}/{id}", b"")
        self._objects.send(files)
        self.match(built, id)
        lock.check()

    def reveal(self, built: Path, id: str) -> None:
        self._objects.write(f"{id}/{MANIFEST}", (built / MANIFEST).read_bytes())
        self._objects.delete([f"{UNFINISHED}/{id}"])
        with suppress(OSError):  # a copy saves this machine the download, no more
            built.rename(self._copies.root / id)

    def withdraw(self, built: Path, id: str) -> None:
        if not self._is_whole(id):  # else the pointer to it may still be on its way
            self._delete(id)

    def remove(self, id: str) -> bool:
        if self.is_held(id):
            return False
        self._objects.write(f"{UNFINISHED}/{id}", b"")
        self._objects.delete([f"{id}/{MANIFEST}"])  # first: without it, it is no release
        self._delete(id)
        return True

    def clear(self) -> None:
        for leftover in self._copies.root.glob(".building-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for id in self._objects.children(UNFINISHED):
            if not self._is_whole(id):
                self._delete(id)
        leases.forget_dead(self._objects)

    def size(self, id: str) -> int:
        return sum(self._objects.sizes(id).values())

    def hold(self, id: str) -> Hold:
        return Hold([self._copies.hold(id), leases.use(self._objects, id)].clear)

    def is_held(self, id: str) -> bool:
        return leases.is_used(self._objects, id)

    @contextmanager
    def lock(self, what: str, wait: float) -> Iterator[Lock]:
        with leases.locked(self._objects, what, wait) as lock:
            yield lock

    def _is_whole(self, id: str) -> bool:
        return self._objects.exists(f"{id}/{MANIFEST}")

    def _delete(self, id: str) -> None:
        self._objects.delete(f"{id}/{name}" for name in self._objects.sizes(id))
        self._objects.delete([f"{UNFINISHED}/{id}"])

    def _make_room(self) -> None:
        """Remove what killed downloads left, and copies that were not used lately."""
        root = self._copies.root
        for leftover in (*root.glob(".fetching-*"), *root.glob(".pruned-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        copies = sorted(self._copies.ids(), key=lambda id: (root / id).stat().st_mtime)
        for id in copies[: -(COPIES - 1) or None]:
            self._copies.remove(id)

    def _fetch(self, id: str, copy: Path, checks: Checks) -> None:
        hidden, there = copy.with_name(f".fetching-{id}"), f"{self.where}/{id}"
        try:
            manifest = self._objects.read(f"{id}/{MANIFEST}")
            names = checks.names(manifest, f"{there}/{MANIFEST}")
            self._objects.fetch({f"{id}/{name}": hidden / name for name in names})
            (hidden / MANIFEST).write_bytes(manifest)
            checks.whole(hidden)
            hidden.rename(copy)
        except ReleaseError as error:
            where = error.where.replace(str(hidden), there)
            raise ReleaseError(error.what, where=where, expected=error.expected, remedy=error.remedy) from error
        except OSError as error:
            raise ReleaseError(f"no copy of '{id}' could be made ({error.strerror})", where=str(copy.parent)) from error
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _files(folder: Path) -> dict[str, Path]:
    """Every file anywhere below a folder, by its name there."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
