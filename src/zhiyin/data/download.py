"""Files from where their publishers keep them: streamed, resumed, verified, and put in place by a rename."""

import hashlib
import http.client
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError
from typing import IO, Protocol

from zhiyin.errors import DataError, Failure

Progress = Callable[[int, int | None], None]
"""Told how many bytes are there, and of how many (None where the server does not say)."""

WAIT = 60.0
"""Seconds without a byte after which a server is given up."""

_BLOCK = 1 << 18


class Download(Protocol):
    """One file of a data set. `checksum` is `algorithm:hex`, or "" where the publisher gives none."""

    @property
    def file(self) -> str: ...

    @property
    def url(self) -> str: ...

    @property
    def checksum(self) -> str: ...

    def fetch(self, folder: Path, progress: Progress) -> Path:
        """The file in `folder`; fetched when it is not there. Raises `DataError`, and `Failure` where it cannot be
        written; nothing unverified is left under its name."""
        ...


@dataclass(frozen=True, slots=True)
class Http:
    """A file at a URL."""

    url: str
    checksum: str = ""

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]

    def fetch(self, folder: Path, progress: Progress) -> Path:
        target = folder / self.file
        if target.exists():
            return target
        part, tag = folder / f".{self.file}.part", folder / f".{self.file}.tag"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _stream(self.url, part, tag, progress)
        except urllib.error.HTTPError as error:
            error.close()
            raise _unreachable(self.url, f"the server answers {error.code} {error.reason}") from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, SSLError) as error:
            raise _unreachable(self.url, f"it cannot be fetched ({getattr(error, 'reason', error)})") from None
        except OSError as error:
            raise Failure(
                f"it cannot be written ({error})", where=str(part), remedy="Check the disk, its space and its rights."
            ) from error
        tag.unlink(missing_ok=True)
        _verify(part, self.checksum, self.url)
        return part.rename(target)


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file of the Python package registry, fetched by this Python's pip: it comes wherever pip works."""

    requirement: str
    file: str
    checksum: str

    @property
    def url(self) -> str:
        return f"pip download --no-deps {self.requirement}"

    def fetch(self, folder: Path, progress: Progress) -> Path:
        target = folder / self.file
        if target.exists():
            return target
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".pip-", dir=folder) as work:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
            command += ["--no-deps", "--no-binary=:none:", "-d", work, self.requirement]
            ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 – our own words
            got = Path(work) / self.file
            if ran.returncode or not got.exists():
                said = [line for line in (ran.stderr + ran.stdout).strip().splitlines() if line.strip()]
                raise _unreachable(
                    self.url, f"pip could not fetch it ({said[-1].strip() if said else 'no reason given'})"
                )
            _verify(got, self.checksum, self.url)
            progress(got.stat().st_size, got.stat().st_size)
            return got.rename(target)


def digest(path: Path, algorithm: str) -> str:
    """A file's checksum in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _stream(url: str, part: Path, tag: Path, progress: Progress) -> None:
    """Write what `url` gives to `part`, going on where an earlier try stopped if the file there is still the same."""
    if not url.startswith(("http://", "https://")):
        raise DataError("not a web address", where=url, expected="http:// or https://")
    start, known = (part.stat().st_size, tag.read_text()) if part.exists() and tag.exists() else (0, "")
    headers = {"User-Agent": "zhiyin", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": known}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 – the scheme was checked
    try:
        answer = urllib.request.urlopen(request, timeout=WAIT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        part.unlink()
        return _stream(url, part, tag, progress)
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        start = start if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        tag.unlink(missing_ok=True)
        if mark := _mark(answer.headers):
            tag.write_text(mark)
        done = _copy(answer, file, start, total, progress)
    if total is not None and done < total:
        raise DataError(
            f"the connection ended after {done:,} bytes",
            where=url,
            expected=f"{total:,}",
            remedy="Run it again: it goes on where it stopped, if the server can.",
        )
    return None


def _mark(headers: http.client.HTTPMessage) -> str:
    """What tells this version of the file from another: its strong ETag, or when it was changed."""
    etag: str = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _copy(answer: IO[bytes], file: IO[bytes], done: int, total: int | None, progress: Progress) -> int:
    progress(done, total)
    while block := answer.read(_BLOCK):
        file.write(block)
        done += len(block)
        progress(done, total)
    return done


def _verify(path: Path, checksum: str, url: str) -> None:
    if not checksum:
        return
    algorithm, _, expected = checksum.partition(":")
    got = digest(path, algorithm)
    if got != expected:
        path.unlink()
        raise DataError(
            f"what came has the {algorithm} {got}",
            where=url,
            expected=expected,
            remedy="Try again; if it stays so, get the data set elsewhere and name it with --data.",
        )


def _unreachable(url: str, what: str) -> DataError:
    return DataError(
        what,
        where=url,
        remedy="Check the connection and try again, or name a folder or an archive that holds it with --data.",
    )
