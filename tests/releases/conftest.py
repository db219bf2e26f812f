"""Releases without a publish: copies of the golden one under ids of their own. And a real S3-compatible server."""

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zhiyin import signing
from zhiyin.manifest import manifest_digest, signed_part, written
from zhiyin.places.base import MANIFEST
from zhiyin.release import Releases

GOLDEN = Path(__file__).parents[1] / "golden" / "format-2" / "20260101-000000-0001"

Add = Callable[[Releases, str], None]


def build(folder: Path, id: str, key: Path | None = None) -> None:
    """A whole release in an empty folder."""
    shutil.copytree(GOLDEN, folder, dirs_exist_ok=True)
    manifest = json.loads((folder / MANIFEST).read_text()) | {"id": id}
    if key:
        manifest["signature"] = signing.sign(signed_part(manifest), key)
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_bytes(written(manifest))


@pytest.fixture(scope="session")
def whole() -> Callable[[Path, str], None]:
    """whole(folder, id): a release there, whole and unsigned, which nobody published."""
    return build


@pytest.fixture(scope="session")
def add() -> Add:
    """add(releases, id): publish a release, signed with the key of `releases`."""

    def add(releases: Releases, id: str) -> None:
        with releases.publishing(id) as building:
            build(building.folder, id, releases.sign)
            building.go_live()

    return add


class S3:
    """A moto server of our own on a free loopback port, with an empty bucket."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when there is a bucket. A server that was killed has forgotten all."""
        import fsspec

        with (self.folder / "log").open("ab") as log:
            words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while True:
            try:
                fsspec.filesystem("s3", use_listings_cache=False).mkdir("bucket")
                return
            except Exception:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "moto does not answer"
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory, free_port: int) -> Iterator[S3]:
    """The server; s3fs finds it by the environment, as a user's would."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",
        }.items():
            patch.setitem(os.environ, name, value)
        server = S3(tmp_path_factory.mktemp("s3"), free_port)
        yield server
        server.kill()


@pytest.fixture(scope="session")
def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ours.key, ours.pub, theirs.key, theirs.pub; rsa.key, rsa.pub"""
    folder = tmp_path_factory.mktemp("keys")
    for name, kind in (("ours", "ed25519"), ("theirs", "ed25519"), ("rsa", "rsa")):
        for line in (f"genpkey -algorithm {kind} -out {name}.key", f"pkey -in {name}.key -pubout -out {name}.pub"):
            subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True)
    return folder


KINDS = ("folder", "memory", "s3")


@pytest.fixture(params=KINDS)
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Releases]:
    """there(): releases at one place of each kind; each call is another machine that shares it."""
    where = uuid.uuid4().hex
    if request.param == "folder":
        return lambda: Releases(tmp_path / "shared")
    if request.param == "s3":
        request.getfixturevalue("s3")
    base = {"memory": "memory://", "s3": "s3://bucket/"}[request.param]
    return lambda: Releases(tmp_path / uuid.uuid4().hex, url=f"{base}{where}/releases")
