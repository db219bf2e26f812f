"""The objects below one URL of anything fsspec speaks: S3, Google Cloud Storage, Azure, HDFS, memory."""

import errno
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zhiyin.errors import ReleaseError, SpecError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What this machine's own disk says."""


class Objects:
    """Names are relative to the URL. Where it cannot be reached, or forbids, every method raises `ReleaseError`."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            import fsspec

            self._fs, base = fsspec.core.url_to_fs(self.url, use_listings_cache=False)  # others write there, too
        except ImportError as error:
            package = "s3fs" if self.url.startswith("s3") else error.name or str(error)
            extra = "pip install 'zhiyin[s3]'" if package == "s3fs" else "Install it."
            raise SpecError(f"needs the package {package}", where=self.url, remedy=extra) from None
        except ValueError as error:
            raise SpecError(
                f"no such kind of storage ({error})", where=url, expected="a URL such as s3://bucket/prefix"
            ) from None
        self._base = base.rstrip("/")

    def read(self, name: str) -> bytes:
        """One object; empty where there is none."""
        with self._reaching(name):
            try:
                content: bytes = self._fs.cat_file(self._path(name))
            except FileNotFoundError:
                content = b""
            return content

    def write(self, name: str, content: bytes) -> None:
        """One object, replaced at once."""
        with self._reaching(name):
            self._fs.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """The same, unless it exists: one of several that try is told True. On S3 by `If-None-Match`, on Google Cloud
        Storage by its generation; where a backend has no such thing, two may be told so."""
        with self._reaching(name):
            try:
                self._fs.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                return False
            return True

    def exists(self, name: str) -> bool:
        with self._reaching(name):
            try:
                self._fs.info(self._path(name))
            except FileNotFoundError:
                return False
            return True

    def children(self, folder: str) -> list[str]:
        """The last part of every name directly below a folder, in order."""
        with self._reaching(folder):
            try:
                found = self._fs.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                found = []
            paths = {path.rstrip("/") for path in found} - {self._path(folder)}  # some stores list the folder itself
            return sorted(path.rpartition("/")[2] for path in paths)

    def sizes(self, folder: str) -> dict[str, int]:
        """Every object anywhere below a folder, by its name there, with its bytes."""
        with self._reaching(folder):
            start = len(self._path(folder)) + 1
            found: Mapping[str, Any] = self._fs.find(self._path(folder), detail=True)
            return {path[start:]: info["size"] for path, info in found.items()}

    def delete(self, names: Iterable[str]) -> None:
        """Those of them that are there."""
        paths = [self._path(name) for name in names]
        with self._reaching(""), suppress(FileNotFoundError):
            if paths:
                self._fs.rm(paths)

    def send(self, files: Mapping[str, Path]) -> None:
        """Files of this machine, by the name that each gets."""
        with self._reaching(""):
            self._fs.put([str(path) for path in files.values()], [self._path(name) for name in files])

    def fetch(self, files: Mapping[str, Path]) -> None:
        """Objects, by name, into these files. Raises `ReleaseError` naming one that is not there."""
        for path in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._reaching(""):
            try:
                self._fs.get([self._path(name) for name in files], [str(path) for path in files.values()])
            except FileNotFoundError as error:
                name = next((name for name in files if not self.exists(name)), None)
                if name is None:
                    raise
                raise ReleaseError(
                    "a file is missing", where=f"{self.url}/{name}", remedy="Roll back, or publish again."
                ) from error

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}" if name else self._base

    @contextmanager
    def _reaching(self, name: str) -> Iterator[None]:
        try:
            yield
        except ReleaseError:
            raise
        except Exception as error:  # the backends' exceptions share no base but this
            if isinstance(error, OSError) and error.errno in FULL:
                raise
            where = f"{self.url}/{name}" if name else self.url
            said = str(error) or type(error).__name__
            raise ReleaseError(f"cannot be reached ({said})", where=where) from error
