"""The releases there are: published, opened, swapped, rolled back, pinned, pruned; in a folder or at a URL.

One of them is live. What is published is built aside and appears at once; where that goes wrong, what was live stays
live.
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zhiyin import signing, spec
from zhiyin.errors import ReleaseError, SearchError, SpecError
from zhiyin.indexes.base import HostedSpec
from zhiyin.manifest import parse_manifest, read_manifest, signed_part, verify
from zhiyin.places.base import CURRENT, MANIFEST, PINNED, Lock, Place
from zhiyin.places.folder import Folder
from zhiyin.places.remote import Remote
from zhiyin.release import INDEX, Catalogue, Release

ID = re.compile(r"\w[\w.-]*")

PUBLISH, CHANGE = "publish", "change"
"""What one at a time may do."""

WAIT = 120.0
"""Seconds that a publish waits for a prune or a rollback before it goes live."""


@dataclass(frozen=True, slots=True)
class Releases:
    """The releases in one folder, oldest first by id; or those at `url` (anything fsspec speaks), of which the folder
    has copies.

    `sign`: the private key that signs what is published. `trust`: public keys; with any, only what one of their owners
    signed is opened or made live.
    """

    root: Path
    url: str = ""
    sign: Path | None = None
    trust: tuple[Path, ...] = ()

    @property
    def place(self) -> Place:
        return Remote(self.url, self.root) if self.url else Folder(self.root)

    @property
    def interval(self) -> float:
        """Seconds that a follower should let pass between two looks: a look at a URL is paid for."""
        return 2.0 if self.url else 0.5

    def ids(self) -> list[str]:
        """Every published release's id, oldest first."""
        return self.place.ids()

    def current(self) -> str:
        """The live release's id. Raises `ReleaseError` when there is none, with the way to one."""
        place = self.place
        id = place.read(CURRENT).decode(errors="replace").strip()
        if not id:
            there = place.ids()
            way = f"`zhiyin rollback RECIPE --to {there[-1]}` makes the newest live." if there else ""
            raise ReleaseError(
                "no release is live", where=place.where, remedy=way or "Run `zhiyin publish recipe.toml` first."
            )
        if not ID.fullmatch(id):
            raise ReleaseError(
                f"damaged: {id[:40]!r} is no id",
                where=f"{place.where}/{CURRENT}",
                remedy="`zhiyin rollback RECIPE --to ID` makes a release live.",
            )
        return id

    def live(self) -> str:
        """The live release's id; "" where none is."""
        try:
            return self.current()
        except ReleaseError:
            return ""

    def manifest(self, id: str) -> dict[str, Any]:
        """What a release says of itself. Raises `ReleaseError` where that is missing, damaged, too new, or not signed
        by one that is trusted."""
        where = f"{self.place.where}/{id}/{MANIFEST}"
        return self.check(parse_manifest(self.place.read(f"{id}/{MANIFEST}"), where), where)

    def check(self, manifest: dict[str, Any], where: str) -> dict[str, Any]:
        """A manifest that was read at `where`, as it is. Raises `ReleaseError` where none of those we trust signed it,
        `SpecError` for a key file that is none."""
        if not self.trust:
            return manifest
        keys = [signing.public_key(path) for path in self.trust]
        given = manifest.get("signature")
        if not signing.is_signed(signed_part(manifest), given, keys):
            raise ReleaseError(
                "it is signed by nobody" if given is None else "its signature is false, or by none of those we trust",
                where=where,
                expected=f"a signature by {' or '.join(map(signing.name, keys))}",
                remedy="Publish with the private key that belongs to one in [releases] trust.",
            )
        return manifest

    def refuse_keys(self) -> None:
        """Before anything is built: raises `SpecError` for keys that are none, and where nobody who trusts these would
        open what is signed here."""
        own = signing.name(signing.private_key(self.sign).public_key()) if self.sign else ""
        trusted = [signing.name(signing.public_key(path)) for path in self.trust]
        if trusted and own not in trusted:
            raise SpecError(
                f"what is published here would be signed by {own or 'nobody'}",
                where="[releases] sign",
                expected=f"the private key of {' or '.join(trusted)}",
            )

    def open(self, id: str = "") -> Release:
        """A release by id; the live one when none is named. For as long as it lives it is in use: no prune removes it.

        Raises like `Release.open`, and `ReleaseError` for one that is not signed by whom we trust, or whose folder was
        renamed: ids are what an answer is traced by.
        """
        name, place = id or self.current(), self.place
        try:
            return self._open(place, name)
        except ReleaseError:
            if not place.forget(name):
                raise
            return self._open(place, name)  # the copy on this machine was damaged: a new one

    def catalogue(self, id: str) -> Catalogue:
        """Which items a release has. Raises like `Catalogue.open`, and `ReleaseError` for one that is not signed by
        whom we trust."""
        folder = self.place.folder(id, _Checks(self))
        self.check(read_manifest(folder), str(folder / MANIFEST))
        return Catalogue.open(folder)

    def _open(self, place: Place, id: str) -> Release:
        folder = place.folder(id, _Checks(self))
        self.check(read_manifest(folder), str(folder / MANIFEST))
        hold = place.hold(id)
        release = replace(Release.open(folder), hold=hold)
        if release.id != id:
            raise ReleaseError(
                f"it says it is '{release.id}'", where=str(folder), remedy="Give the folder that name back."
            )
        return release

    def point(self, id: str) -> None:
        """Make a release live. Raises `ReleaseError` for an id that is not here, or a release that is damaged, too new
        or not trusted: what was live stays live then; and where another changes what is live just now."""
        self._known(id)
        with self.changing() as place:
            self._point(place, id)

    def swap(self, id: str) -> None:
        """`point`, for a release that has just proved itself."""
        self.place.write(CURRENT, f"{id}\n".encode())

    def follow(self, id: str) -> None:
        """Let the alias of an index that lives in a database follow what is live. Raises `ReleaseError` where it does
        not."""
        hosted = self._hosted(self.place, id)
        try:
            if hosted is not None:
                index, receipt = hosted
                index.went_live(receipt)
        except SearchError as error:
            raise ReleaseError(
                f"'{id}' is live, but the alias of its index did not follow ({error})",
                where=self.place.where,
                remedy=f"`zhiyin rollback RECIPE --to {id}` tries again. The service does not need the alias.",
            ) from None

    def roll_back(self) -> str:
        """Make the release before the live one live, and say which. Raises `ReleaseError` when it is the oldest, and
        like `point`."""
        self.current()
        with self.changing() as place:
            live = self.current()
            older = [id for id in place.ids() if id < live]
            if not older:
                raise ReleaseError(
                    f"'{live}' is the oldest release", where=place.where, remedy="There is none to go back to."
                )
            self._point(place, older[-1])
        return older[-1]

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` releases, the live one, those pinned and those in use; say which went. What
        a killed publish or prune left goes, too. Raises `SearchError`, and removes no more, where one cannot be taken
        from the server that its index lives in."""
        self.current()
        with self.changing() as place:
            stay = {self.current(), *self.pinned()}
            old = [id for id in place.ids()[: -keep or None] if id not in stay]
            gone = [id for id in old if _is_release(place.read(f"{id}/{MANIFEST}"), id) and self._remove(place, id)]
        with suppress(ReleaseError), place.lock(PUBLISH, 0):  # while something is built, what lies about may be its
            place.clear()
        return gone

    def pinned(self) -> list[str]:
        """The ids of releases that no prune removes."""
        return self.place.read(PINNED).decode().split()

    def pin(self, id: str) -> None:
        """Keep a release until it is unpinned. Raises `ReleaseError` for an id that is not here."""
        self._known(id)
        self._write_pins(lambda pins: {*pins, id})

    def unpin(self, id: str) -> None:
        """Raises `ReleaseError` for a release that is not pinned."""
        if id not in self.pinned():
            raise ReleaseError(f"'{id}' is not pinned{spec.nearest(id, self.pinned())}", where=self.place.where)
        self._write_pins(lambda pins: pins - {id})

    def is_used(self, id: str) -> bool:
        """Whether a process has it open."""
        return self.place.is_held(id)

    def size(self, id: str) -> int:
        """Bytes of a release."""
        return self.place.size(id)

    @contextmanager
    def publishing(self, id: str) -> Iterator["Building"]:
        """A folder to build a release in, which is gone at the end of the block unless it was made live. One at a time
        may publish: raises `ReleaseError` for the second, and where the id is taken or cannot be one."""
        place = self.place
        if not ID.fullmatch(id):
            raise ReleaseError(f"'{id}' can be no release's id", expected="letters, digits, '_', '.' and '-'")
        self.root.mkdir(parents=True, exist_ok=True)
        with place.lock(PUBLISH, 0) as lock:
            if id in place.ids():
                raise ReleaseError(f"the release '{id}' exists", where=place.where, remedy="Publish under another id.")
            place.clear()
            folder = self.root / f".building-{id}"
            try:
                folder.mkdir()
                yield Building(self, id, folder, lock)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def changing(self, wait: float = 0) -> Iterator[Place]:
        """One at a time may change which releases there are, and which is live."""
        place = self.place
        with place.lock(CHANGE, wait):
            yield place

    def _point(self, place: Place, id: str) -> None:
        folder = place.folder(id, _Checks(self))
        verify(folder, self.check(read_manifest(folder), str(folder / MANIFEST)))
        place.match(folder, id)
        self.swap(id)
        self.follow(id)

    def _remove(self, place: Place, id: str) -> bool:
        """A release that nobody holds, and first what its index has on a server: while that cannot be reached, the
        release stays, to be removed another time."""
        hosted = None if place.is_held(id) else self._hosted(place, id)
        if hosted is not None:
            index, receipt = hosted
            index.retire(receipt)
        return place.remove(id)

    def _hosted(self, place: Place, id: str) -> "tuple[HostedSpec, Path] | None":
        """The spec of a release's index and what it wrote, where the index lives in a server. None for a release that
        cannot be read."""
        try:
            manifest = parse_manifest(place.read(f"{id}/{MANIFEST}"), id)
            index = spec.used_build(manifest["index"], "zhiyin.indexes")
            return (index, place.folder(id, _Checks(self)) / INDEX) if isinstance(index, HostedSpec) else None
        except (ReleaseError, SpecError):
            return None

    def _known(self, id: str) -> None:
        there = self.ids()
        if id not in there:
            raise ReleaseError(
                f"there is no release '{id}'{spec.nearest(id, there)}",
                where=self.place.where,
                expected=f"one of {', '.join(there) or 'none: publish first'}",
            )

    def _write_pins(self, change: Callable[[set[str]], set[str]]) -> None:
        with self.changing(WAIT) as place:
            pins = change({id for id in self.pinned() if id in place.ids()})
            place.write(PINNED, "".join(f"{id}\n" for id in sorted(pins)).encode())


@dataclass(frozen=True, slots=True)
class Repository:
    """Where releases are published: `root`, a folder or a URL that fsspec knows; empty: in the recipe's home. `sign`
    and `trust`: see `Releases`."""

    root: str = ""
    sign: Path | None = None
    trust: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if "://" in self.root and not self.root.partition("://")[2].strip("/"):
            raise SpecError(f"{self.root!r}", where=".root", expected="a folder, or a URL such as s3://bucket/prefix")

    def open(self, folder: Path) -> Releases:
        """The releases; in `folder`, or with their copies there."""
        if "://" in self.root:
            return Releases(folder, self.root, self.sign, self.trust)
        return Releases(Path(self.root) if self.root else folder, "", self.sign, self.trust)


@dataclass(frozen=True, slots=True)
class Building:
    """A release that is being built in `folder`."""

    releases: Releases
    id: str
    folder: Path
    lock: Lock

    def go_live(self) -> None:
        """Publish what is in the folder, and make it live. Where that fails, what was live stays live. Raises
        `ReleaseError`, too, where it is live but the alias of its index in a database did not follow."""
        releases, place = self.releases, self.releases.place
        releases.check(read_manifest(self.folder), self.id)
        self._reveal(place)
        releases.follow(self.id)

    @property
    def is_live(self) -> bool:
        return self._went_live(self.releases.place)

    def _reveal(self, place: Place) -> None:
        releases = self.releases
        try:
            place.stage(self.folder, self.id, self.lock)
            with releases.changing(WAIT):
                self.lock.check()
                place.reveal(self.folder, self.id)
                releases.swap(self.id)
        except BaseException as error:
            if self._went_live(place) and isinstance(error, Exception):
                return  # an answer was lost, no more
            with suppress(ReleaseError):
                place.withdraw(self.folder, self.id)
            raise

    def _went_live(self, place: Place) -> bool:
        try:
            return place.read(CURRENT).decode().strip() == self.id
        except ReleaseError:
            return False


def _is_release(manifest: bytes, id: str) -> bool:
    """Whether a folder is one of ours to remove, damaged or not: others may have a `manifest.json`, too."""
    try:
        return bool(json.loads(manifest)["id"] == id)
    except (ValueError, KeyError, TypeError):
        return re.fullmatch(r"\d{8}-\d{6}-\w{4}", id) is not None


@dataclass(frozen=True, slots=True)
class _Checks:
    """What a copy must pass."""

    releases: Releases

    def names(self, manifest: bytes, where: str) -> list[str]:
        return list(self.releases.check(parse_manifest(manifest, where), where)["files"])

    def whole(self, folder: Path) -> None:
        verify(folder, read_manifest(folder))
