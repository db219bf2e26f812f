"""Who made a release: with keys that openssl made, as the guide says."""

import importlib.util
import json
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from zhiyin import signing
from zhiyin.errors import ReleaseError, SpecError
from zhiyin.manifest import manifest_digest, written
from zhiyin.places.base import MANIFEST
from zhiyin.releases import Releases
from zhiyin.service.live import Live

A, B = "20260101-000000-aaaa", "20260102-000000-bbbb"

Add = Callable[[Releases, str], None]


@pytest.fixture
def signed(tmp_path: Path, keys: Path) -> Releases:
    return Releases(tmp_path / "releases", sign=keys / "ours.key", trust=(keys / "ours.pub",))


def test_what_was_signed_is_opened_by_those_who_trust_its_key(signed: Releases, keys: Path, add: Add) -> None:
    add(signed, A)
    assert signed.open().id == A
    assert replace(signed, trust=(keys / "theirs.pub", keys / "ours.pub")).open().id == A
    assert Releases(signed.root).open().id == A  # who asks for no signature needs none
    assert signed.manifest(A)["signature"]["key"] == signing.name(signing.public_key(keys / "ours.pub"))


def test_unsigned_and_wrongly_signed_releases_are_refused(signed: Releases, keys: Path, add: Add) -> None:
    add(signed, A)
    live = Live(signed)
    name = signing.name(signing.public_key(keys / "ours.pub"))
    for releases, said in (
        (Releases(signed.root), "it is signed by nobody"),
        (Releases(signed.root, sign=keys / "theirs.key"), "its signature is false, or by none of those we trust"),
    ):
        add(releases, B)
        for refuse in (signed.open, lambda: signed.point(B), lambda: signed.manifest(B)):
            with pytest.raises(ReleaseError, match=rf"{B}/manifest\.json: {said}; expected a signature by {name}"):
                refuse()
        for _ in range(3):  # an id that was refused is left alone for a while
            live.look()
        assert (live.release.id, said in live.trouble) == (A, True)
        signed.roll_back()
        assert signed.prune(0) == [B]


def test_a_manifest_that_was_changed_has_no_signature(signed: Releases, add: Add) -> None:
    """By somebody who knows how the digest is made."""
    add(signed, A)
    path = signed.root / A / MANIFEST
    manifest = json.loads(path.read_text())
    for change in (
        {"files": {**manifest["files"], "vectors.npy": "0" * 64}},
        {"signature": {"key": manifest["signature"]["key"], "ed25519": "00" * 64}},
        {"signature": "by me"},
        {"signature": {"ed25519": "no hex"}},
    ):
        changed = manifest | change
        path.write_bytes(written(changed | {"digest": manifest_digest(changed)}))
        with pytest.raises(ReleaseError, match="its signature is false"):
            signed.open()
    path.write_bytes(written(manifest))
    assert signed.open().id == A


def test_nothing_of_what_is_not_trusted_is_fetched(tmp_path: Path, keys: Path, add: Add) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    add(Releases(tmp_path / "writer", url), A)
    reader = Releases(tmp_path / "reader", url, trust=(keys / "ours.pub",))
    with pytest.raises(ReleaseError, match=rf"{url}/{A}/manifest\.json: it is signed by nobody"):
        reader.open()
    assert [path.name for path in reader.root.iterdir()] == [".fetch.lock"]


@pytest.mark.parametrize(
    ("sign", "trust", "said"),
    [
        ("theirs.key", "ours.pub", r"\[releases\] sign: what is published here would be signed by [0-9a-f]{32}; exp"),
        ("", "ours.pub", r"\[releases\] sign: what is published here would be signed by nobody; expected the private"),
        ("ours.pub", "", r"ours\.pub: no private key; expected an Ed25519 key as PEM.*openssl genpkey -algorithm ed25"),
        ("rsa.key", "", r"rsa\.key: no private key"),
        ("ours.key", "ours.key", r"ours\.key: no public key; expected an Ed25519 key as PEM.*openssl pkey"),
        ("ours.key", "rsa.pub", r"rsa\.pub: no public key"),
        ("none.key", "", r"none\.key: the private key cannot be read \(No such file or directory\)"),
        ("ours.key", "none.pub", r"none\.pub: the public key cannot be read \(No such file or directory\)"),
    ],
)
def test_a_publish_with_keys_that_do_not_fit_is_refused_before_anything_is_built(
    sign: str, trust: str, said: str, keys: Path, tmp_path: Path
) -> None:
    releases = Releases(
        tmp_path / "releases", sign=keys / sign if sign else None, trust=(keys / trust,) if trust else ()
    )
    with pytest.raises(SpecError, match=said):
        releases.refuse_keys()
    assert not releases.root.exists()


def test_the_package_is_named_where_it_is_missing(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError, match=r"signatures need the package 'cryptography'.*pip install 'zhiyin\[sign\]'"):
        signing.public_key(keys / "ours.pub")
