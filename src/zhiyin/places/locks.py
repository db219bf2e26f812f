"""Locks on files: they die with their process, however it ends.

flock(2); on NFS the kernel makes a byte-range lock of it, which holds across machines.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from zhiyin.errors import ReleaseError
from zhiyin.places.base import Hold, busy

PATIENCE = 5.0
"""Seconds that one who wants to use a file waits for one who is just about to remove it."""


class FileLock:
    """An exclusive flock: only its process can lose it."""

    def check(self) -> None:
        pass


@contextmanager
def locked(path: Path, what: str, wait: float) -> Iterator[FileLock]:
    """An exclusive lock on `path`, which stays there. Raises `ReleaseError` where another has it after `wait` seconds,
    naming its process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _take(descriptor, fcntl.LOCK_EX, wait):
            raise busy(what, str(path.parent), os.pread(descriptor, 100, 0).decode(errors="replace").strip())
        with suppress(OSError):  # a full disk: the note is for people only
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode(), 0)
        yield FileLock()
    finally:
        os.close(descriptor)


def held(path: Path) -> Hold:
    """A shared lock on `path`. Raises `OSError` where it cannot be opened, `ReleaseError` where it is being removed."""
    descriptor = os.open(path, os.O_RDONLY)
    if not _take(descriptor, fcntl.LOCK_SH, PATIENCE):
        os.close(descriptor)
        raise ReleaseError("it is being removed", where=str(path.parent))
    return Hold(partial(os.close, descriptor))


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether nobody shares a lock on `path`; then nobody can until the end of the block."""
    try:
        descriptor = os.open(path, os.O_RDWR)  # NFS locks exclusively only what may be written
    except OSError:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        yield _take(descriptor, fcntl.LOCK_EX, 0.1)  # two that only look see each other for a moment
    finally:
        os.close(descriptor)


def _take(descriptor: int, kind: int, wait: float) -> bool:
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
