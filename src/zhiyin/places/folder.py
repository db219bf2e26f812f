"""Releases in a folder: on a disk, or on storage that many machines mount."""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zhiyin.errors import ReleaseError
from zhiyin.places.base import MANIFEST, Checks, Hold, Lock
from zhiyin.places.locks import held, locked, unused

logger = logging.getLogger("zhiyin")


@dataclass(frozen=True, slots=True)
class Folder:
    """A release is a folder of its id's name, and comes and goes by a rename. It is in use while its manifest is
    locked."""

    root: Path

    @property
    def where(self) -> str:
        return str(self.root)

    def ids(self) -> list[str]:
        return sorted(path.parent.name for path in self.root.glob(f"[!.]*/{MANIFEST}"))

    def read(self, name: str) -> bytes:
        path = self.root / name
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return b""
        except OSError as error:
            raise ReleaseError(f"cannot be read ({error.strerror})", where=str(path)) from None

    def write(self, name: str, content: bytes) -> None:
        hidden = self.root / f".{name}.new"  # one at a time writes: what a killed one left is written over
        try:
            with hidden.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(self.root / name)
        finally:
            hidden.unlink(missing_ok=True)
        try:
            sync_folder(self.root)
        except OSError as error:  # it is done; only a power cut could bring the old content back
            logger.warning("%s: %s was replaced, but perhaps not on disk yet (%s)", self.root, name, error.strerror)

    def folder(self, id: str, checks: Checks) -> Path:
        return self.root / id

    def match(self, folder: Path, id: str) -> None:
        pass  # they are the same

    def forget(self, id: str) -> bool:
        return False

    def stage(self, built: Path, id: str, lock: Lock) -> None:
        for path in built.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        for path in (*(p for p in built.rglob("*") if p.is_dir()), built):
            sync_folder(path)

    def reveal(self, built: Path, id: str) -> None:
        built.rename(self.root / id)
        sync_folder(self.root)

    def withdraw(self, built: Path, id: str) -> None:
        if (self.root / id).exists():
            (self.root / id).rename(built)  # its builder clears it away

    def remove(self, id: str) -> bool:
        with unused(self.root / id / MANIFEST) as free:
            if free:
                self.drop(id)
            return free

    def drop(self, id: str) -> None:
        """`remove`, whoever holds it: on Linux and macOS what a process has open stays there for it."""
        hidden = self.root / f".pruned-{id}-{os.urandom(4).hex()}"
        (self.root / id).rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)  # what stays, `clear` removes

    def clear(self) -> None:
        for leftover in (*self.root.glob(".building-*"), *self.root.glob(".pruned-*")):
            shutil.rmtree(leftover, ignore_errors=True)

    def size(self, id: str) -> int:
        return sum(path.stat().st_size for path in (self.root / id).rglob("*") if path.is_file())

    def hold(self, id: str) -> Hold:
        try:
            return held(self.root / id / MANIFEST)
        except OSError as error:
            raise ReleaseError(f"cannot be read ({error.strerror})", where=str(self.root / id / MANIFEST)) from None

    def is_held(self, id: str) -> bool:
        try:
            with unused(self.root / id / MANIFEST) as free:
                return not free
        except FileNotFoundError:
            return False  # it was removed just now

    @contextmanager
    def lock(self, what: str, wait: float) -> Iterator[Lock]:
        with locked(self.root / f".{what}.lock", what, wait) as lock:
            yield lock


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a rename in it survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
