"""Signatures: who made a release. Ed25519 (RFC 8032), by the package `cryptography`.

openssl genpkey -algorithm ed25519 -out release.key
openssl pkey -in release.key -pubout -out release.pub
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zhiyin.errors import SpecError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


def sign(message: bytes, key: Path) -> dict[str, str]:
    """The signature of a message by a private key, and the name of its public one. Raises `SpecError` for a file that
    is no such key."""
    private = private_key(key)
    return {"key": name(private.public_key()), "ed25519": private.sign(message).hex()}


def is_signed(message: bytes, signature: object, keys: Sequence["Ed25519PublicKey"]) -> bool:
    """Whether `signature` is what the owner of one of these keys gives by `sign`."""
    from cryptography.exceptions import InvalidSignature

    try:
        given = bytes.fromhex(signature["ed25519"])  # type: ignore[index]
    except (TypeError, KeyError, ValueError):
        return False
    for key in keys:
        try:
            key.verify(given, message)
            return True
        except InvalidSignature:
            continue
    return False


def name(key: "Ed25519PublicKey") -> str:
    """A public key's: the first half of its sha256, in hex."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:32]


def private_key(path: Path) -> "Ed25519PrivateKey":
    """From a PEM file without a passphrase. Raises `SpecError` for anything else."""
    with _reading(path, "private", "openssl genpkey -algorithm ed25519 -out"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError
    return key


def public_key(path: Path) -> "Ed25519PublicKey":
    """From a PEM file. Raises `SpecError` for anything else."""
    with _reading(path, "public", "openssl pkey -in release.key -pubout -out"):
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        key = load_pem_public_key(path.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise TypeError
    return key


@contextmanager
def _reading(path: Path, kind: str, command: str) -> Iterator[None]:
    from importlib.util import find_spec

    if find_spec("cryptography") is None:
        raise SpecError("signatures need the package 'cryptography'", remedy="pip install 'zhiyin[sign]'")
    try:
        yield
    except OSError as error:
        raise SpecError(f"the {kind} key cannot be read ({error.strerror})", where=str(path)) from None
    except (ValueError, TypeError):
        raise SpecError(
            f"no {kind} key",
            where=str(path),
            expected="an Ed25519 key as PEM, without a passphrase",
            remedy=f"One is made by `{command} {path.name}`.",
        ) from None
