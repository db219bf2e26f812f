"""The files of a data set, wherever they lie: in a folder, in a zip or tar archive, or as they are."""

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from zhiyin.errors import DataError


def find(path: Path, names: Collection[str], archives: Collection[str], work: Path) -> dict[str, Path]:
    """Where each of `names` lies, for those that are in `path`: a folder, an archive, or one of these files itself.

    A folder may hold the files at any depth, or the publisher's `archives`. A file that is named `NAME.gz` may be there
    unpacked as `NAME`. Only these files are unpacked, into `work`. Raises `DataError` for a path that is not there, or
    an archive that is broken.
    """
    if path.is_dir():
        found = _in_folder(path, names)
        for archive in archives:
            if (path / archive).is_file() and _packed(path / archive):
                found = _unpack(path / archive, names, work) | found
        return found
    if not path.exists():
        raise DataError("there is no such folder or archive", where=str(path), remedy="Give --data a path that exists.")
    if _packed(path):
        return _unpack(path, names, work)
    return {name: path for name in names if path.name in _spellings(name)}


def _packed(path: Path) -> bool:
    """Whether this is a zip or tar archive by its name: a broken one must be told as that, not passed over."""
    return path.name.lower().endswith((".zip", ".whl", ".tar", ".tar.gz", ".tgz"))


def _spellings(name: str) -> tuple[str, ...]:
    return (name, name.removesuffix(".gz")) if name.endswith(".gz") else (name,)


def _in_folder(folder: Path, names: Collection[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (len(p.parts), p))
    by_name: dict[str, Path] = {}
    for file in files:
        by_name.setdefault(file.name, file)
    for name in names:
        spelling = next((one for one in _spellings(name) if one in by_name), None)
        if spelling:
            found[name] = by_name[spelling]
    return found


def _unpack(archive: Path, names: Collection[str], work: Path) -> dict[str, Path]:
    wanted = {spelling: name for name in names for spelling in _spellings(name)}
    found: dict[str, Path] = {}
    with _telling(archive):
        for member, stream in _members(archive, wanted):
            name = PurePosixPath(member).name
            target = work / name
            with stream, target.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
            found[wanted[name]] = target
    return found


def _members(archive: Path, wanted: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Each wanted member of an archive, and its bytes."""

    def take(member: str) -> bool:
        path = PurePosixPath(member)
        return path.name in wanted and not path.name.startswith("._") and "__MACOSX" not in path.parts

    if archive.name.lower().endswith((".zip", ".whl")):
        with zipfile.ZipFile(archive) as opened:
            for member in opened.namelist():
                if take(member):
                    yield member, opened.open(member)
        return
    with tarfile.open(archive) as packed:
        for entry in packed:
            if entry.isfile() and take(entry.name):
                stream = packed.extractfile(entry)
                if stream is not None:
                    yield entry.name, stream
        while packed.fileobj is not None and packed.fileobj.read(1 << 20):
            pass  # a damaged header ends a tar file early; only at the very end does gzip check what came


@contextmanager
def _telling(archive: Path) -> Iterator[None]:
    broken = (zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError)
    try:
        yield
    except broken as error:
        raise DataError(
            f"the archive is broken ({error})",
            where=str(archive),
            expected="the file as its publisher ships it",
            remedy="Delete it and fetch it again.",
        ) from None
