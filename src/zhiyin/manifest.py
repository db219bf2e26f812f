"""A release's manifest: its format, and the sha256 of every other file; and whether a folder is what it says."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from zhiyin.errors import ReleaseError
from zhiyin.places.base import MANIFEST

FORMAT = 2
"""1: the first. 2: ids by MurmurHash64A (`items/murmur.npy`), and the items' attributes for filters."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """A release's manifest. Raises `ReleaseError` where it is missing, damaged or of a newer format."""
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        content = b""
    except OSError as error:
        raise ReleaseError(f"cannot be read ({error.strerror})", where=str(path)) from None
    return parse_manifest(content, str(path))


def parse_manifest(content: bytes, where: str) -> dict[str, Any]:
    """The same, of a manifest that was read already; empty where there was none."""
    if not content:
        folder = where.removesuffix(f"/{MANIFEST}")
        raise ReleaseError("no release here", where=folder, remedy="Run `zhiyin publish recipe.toml`.")
    try:
        manifest = json.loads(content)
        newer = manifest["format"] > FORMAT
        files = dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"damaged: {error}", where=where, remedy="Roll back, or publish again.") from None
    if newer:
        raise ReleaseError(
            f"release format {manifest['format']}",
            where=where,
            expected=f"format {FORMAT} or older",
            remedy="Upgrade zhiyin, or roll back to an older release.",
        )
    if manifest.get("digest") != manifest_digest(manifest):
        raise ReleaseError("damaged: its own checksum differs", where=where, remedy="Roll back, or publish again.")
    if content != written(manifest):
        raise ReleaseError("damaged: not as it was written", where=where, remedy="Roll back, or publish again.")
    for name in map(PurePosixPath, files):
        if name.is_absolute() or ".." in name.parts:
            raise ReleaseError(f"it names the file '{name}', which lies outside", where=where)
    return dict(manifest)


def written(manifest: Mapping[str, Any]) -> bytes:
    """The file: this form and no other, so that no byte of it can change unnoticed."""
    return f"{json.dumps(manifest, indent=2)}\n".encode()


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest without its own digest."""
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def signed_part(manifest: Mapping[str, Any]) -> bytes:
    """What a signature in it signs: all but itself and the digest, which has it in it."""
    rest = {key: value for key, value in manifest.items() if key not in ("digest", "signature")}
    return json.dumps(rest, sort_keys=True).encode()


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file below `folder` but the manifest, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in files}


def verify(folder: Path, manifest: Mapping[str, Any], below: str = "") -> None:
    """Raises `ReleaseError` naming the first file that is missing, changed, or unknown to the manifest. `below`: only
    what lies in this folder of it, `items/`, is looked at."""
    for name, wanted in manifest["files"].items():
        if not name.startswith(below):
            continue
        path = folder / name
        if not path.is_file():
            raise ReleaseError("a file is missing", where=str(path), remedy="Roll back, or publish again.")
        found = _sha256(path)
        if found != wanted:
            raise ReleaseError(
                f"damaged: sha256 {found[:16]}…", where=str(path), expected=f"{wanted[:16]}…", remedy="Roll back."
            )
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    unknown = sorted(name for name in there - set(manifest["files"]) - {MANIFEST} if name.startswith(below))
    if unknown:
        raise ReleaseError("a file that is not in the manifest", where=str(folder / unknown[0]), remedy="Remove it.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
