"""Downloads from a real server on this machine: streamed, resumed, verified, and never half there."""

import hashlib
import os
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zhiyin.data import datasets
from zhiyin.data.datasets import DataSet
from zhiyin.data.download import Http, Wheel, digest
from zhiyin.errors import DataError, Failure

BODY = bytes(range(256)) * 4096  # 1 MiB: several reads
SUM = "sha256:" + hashlib.sha256(BODY).hexdigest()
HELP = "Check the connection and try again, or name a folder or an archive that holds it with --data."


@dataclass
class Site:
    """What the server does, and what it was asked: (path, Range) of each request."""

    url: str
    body: bytes = BODY
    etag: str = '"v1"'
    status: int = 0
    ends_after: int = 0
    says_length: bool = True
    knows_ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked, known = self.headers.get("Range", ""), self.headers.get("If-Range", "")
            place.asked.append((self.path, asked))
            start = int(asked[6:-1]) if asked and place.knows_ranges and known == place.etag else 0
            if place.status or start > len(place.body) - 1:
                self.send_error(place.status or 416)
                return
            self.send_response(206 if start else 200)
            body = place.body[start:]
            if place.says_length:
                self.send_header("Content-Length", str(len(body)))
            if place.etag:
                self.send_header("ETag", place.etag)
            self.end_headers()
            self.wfile.write(body[: place.ends_after] if place.ends_after else body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    place = Site(f"http://127.0.0.1:{server.server_port}")
    yield place
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def fetched(download: Http | Wheel, folder: Path) -> tuple[Path, list[tuple[int, int | None]]]:
    told: list[tuple[int, int | None]] = []
    return download.fetch(folder, lambda done, total: told.append((done, total))), told


def refused(download: Http | Wheel, folder: Path) -> str:
    """The message; and the file is not there."""
    with pytest.raises(DataError) as caught:
        fetched(download, folder)
    assert not (folder / download.file).exists()
    return str(caught.value)


def test_a_file_is_fetched_verified_and_put_in_place(site: Site, tmp_path: Path) -> None:
    path, told = fetched(Http(f"{site.url}/a/file.zip", SUM), tmp_path / "cache" / "set")
    assert path == tmp_path / "cache" / "set" / "file.zip"
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path], "nothing else is left"
    assert told[0] == (0, len(BODY))
    assert told[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_second_time_nothing_is_asked(site: Site, tmp_path: Path) -> None:
    download = Http(f"{site.url}/file.zip", SUM)
    first, _ = fetched(download, tmp_path)
    second, told = fetched(download, tmp_path)
    assert first == second
    assert told == []
    assert len(site.asked) == 1


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_any_published_checksum_is_checked(site: Site, tmp_path: Path, algorithm: str) -> None:
    right = hashlib.new(algorithm, BODY).hexdigest()
    path, _ = fetched(Http(f"{site.url}/right", f"{algorithm}:{right}"), tmp_path)
    assert digest(path, algorithm) == right
    message = refused(Http(f"{site.url}/wrong", f"{algorithm}:{'0' * len(right)}"), tmp_path)
    assert message == (
        f"{site.url}/wrong: what came has the {algorithm} {right}; expected {'0' * len(right)}. "
        "Try again; if it stays so, get the data set elsewhere and name it with --data."
    )
    assert [file.name for file in tmp_path.iterdir()] == ["right"], "nothing unverified is left"


def test_a_file_without_a_checksum_is_taken_as_it_comes(site: Site, tmp_path: Path) -> None:
    site.says_length = False
    path, told = fetched(Http(f"{site.url}/file"), tmp_path)
    assert path.read_bytes() == BODY
    assert told[-1] == (len(BODY), None)


def test_an_interrupted_download_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    download = Http(f"{site.url}/file", SUM)
    site.ends_after = 300_000
    assert refused(download, tmp_path) == (
        f"{site.url}/file: the connection ended after 300,000 bytes; expected 1,048,576. "
        "Run it again: it goes on where it stopped, if the server can."
    )
    site.ends_after = 0
    path, told = fetched(download, tmp_path)
    assert site.asked == [("/file", ""), ("/file", "bytes=300000-")]
    assert told[0] == (300_000, len(BODY))
    assert path.read_bytes() == BODY
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("change", ["another version", "no ranges", "a weak tag"])
def test_a_download_starts_again_where_it_cannot_go_on(site: Site, tmp_path: Path, change: str) -> None:
    site.ends_after = 300_000
    if change == "a weak tag":
        site.etag = 'W/"v1"'
    site.body = b"old" * 300_000 if change == "another version" else BODY
    refused(Http(f"{site.url}/file"), tmp_path)
    site.ends_after, site.body = 0, BODY
    if change == "another version":
        site.etag = '"v2"'
    site.knows_ranges = change != "no ranges"
    path, _ = fetched(Http(f"{site.url}/file", SUM), tmp_path)
    assert path.read_bytes() == BODY
    assert site.asked[1] == ("/file", "" if change == "a weak tag" else f"bytes={300_000}-")


def test_a_part_that_is_longer_than_the_file_is_thrown_away(site: Site, tmp_path: Path) -> None:
    (tmp_path / ".file.part").write_bytes(BODY + b"more")
    (tmp_path / ".file.tag").write_text(site.etag)
    path, _ = fetched(Http(f"{site.url}/file", SUM), tmp_path)
    assert path.read_bytes() == BODY
    assert len(site.asked) == 2


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (503, "503 Service Unavailable")])
def test_a_server_that_has_it_not(site: Site, tmp_path: Path, status: int, words: str) -> None:
    site.status = status
    message = refused(Http(f"{site.url}/gone.zip", SUM), tmp_path)
    assert message == f"{site.url}/gone.zip: the server answers {words}. {HELP}"
    assert list(tmp_path.iterdir()) == []


def test_no_connection(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_port
    message = refused(Http(f"http://127.0.0.1:{port}/file", SUM), tmp_path)
    assert message.startswith(f"http://127.0.0.1:{port}/file: it cannot be fetched ([Errno ")
    assert message.endswith(f"] Connection refused). {HELP}")


def test_an_address_of_another_kind_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    message = refused(Http(f"file://{tmp_path}/secret"), tmp_path / "cache")
    assert message == f"file://{tmp_path}/secret: not a web address; expected http:// or https://"


def test_a_folder_that_cannot_be_written_is_a_failure(site: Site, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(Failure) as caught:
        fetched(Http(f"{site.url}/file"), tmp_path / "cache")
    assert str(caught.value).startswith(f"{tmp_path}/cache/.file.part: it cannot be written ([Errno ")
    assert str(caught.value).endswith("Check the disk, its space and its rights.")


# wheels: pip looks for them in a folder, as on a machine without the internet


def wheel(folder: Path, files: dict[str, str]) -> Wheel:
    """A wheel of the package `zhiyin-fake-set` in `folder`, and how to fetch it."""
    folder.mkdir()
    path = folder / "zhiyin_fake_set-1.0-py3-none-any.whl"
    info = "zhiyin_fake_set-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: zhiyin-fake-set\nVersion: 1.0\nRequires-Dist: not-there-at-all\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return Wheel("zhiyin-fake-set==1.0", path.name, f"sha256:{digest(path, 'sha256')}")


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    return tmp_path / "shelf"


RECBOLE = {
    "recbole/dataset_example/ml-100k/ml-100k.inter": (
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t5\t881250950\n"
    ),
    "recbole/dataset_example/ml-100k/ml-100k.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "242\tKolya\t1996\tComedy\n302\tL.A. Confidential\t1997\tCrime Film-Noir Mystery\n1\tUnseen\t1995\tDrama\n"
    ),
    "recbole/dataset_example/ml-100k/ml-100k.user": (
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        "196\t49\tM\twriter\t55105\n186\t39\tF\texecutive\t00000\n"
    ),
}


def test_a_data_set_comes_out_of_a_wheel_once(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    download = wheel(shelf, RECBOLE)
    named = datasets.named("movielens-100k")
    fake = DataSet(named.about, named.page, named.licence, named.citation, (download,), named.forms)
    monkeypatch.setitem(datasets.DATASETS, "movielens-100k", fake)
    told: list[tuple[int, int | None]] = []
    source = datasets.load(
        "movielens-100k",
        data=None,
        cache=tmp_path / "cache",
        out=tmp_path / "out",
        progress=lambda done, total: told.append((done, total)),
    )
    size = (shelf / download.file).stat().st_size
    assert told == [(size, size)]
    assert source.events == tmp_path / "out" / "events.parquet"
    assert [file.name for file in (tmp_path / "cache" / "movielens-100k").iterdir()] == [download.file]
    (shelf / download.file).unlink()
    datasets.load("movielens-100k", data=None, cache=tmp_path / "cache", out=tmp_path / "again")
    assert (tmp_path / "again" / "events.parquet").read_bytes() == source.events.read_bytes()


def test_a_wheel_that_is_not_the_one_or_not_there(shelf: Path, tmp_path: Path) -> None:
    download = wheel(shelf, {})
    message = refused(Wheel(download.requirement, download.file, "sha256:00"), tmp_path / "cache")
    assert message.startswith("pip download --no-deps zhiyin-fake-set==1.0: what came has the sha256 ")
    message = refused(Wheel("zhiyin-fake-set==2.0", "zhiyin_fake_set-2.0-py3-none-any.whl", ""), tmp_path / "cache")
    assert message.startswith("pip download --no-deps zhiyin-fake-set==2.0: pip could not fetch it (ERROR: ")
    assert message.endswith(HELP)
    assert list((tmp_path / "cache").iterdir()) == []


# names


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("movielens-100", "there is no data set 'movielens-100' (did you mean 'movielens-100k'?); expected one of "),
        ("Gowalla", "there is no data set 'Gowalla' (did you mean 'gowalla'?); expected one of movielens-100k, "),
        (
            "amazon-2014:Beuty",
            "amazon-2014:Beuty: there is no category 'Beuty' (did you mean 'Beauty'?); expected one of Amazon_Instant_",
        ),
        ("amazon-2018:CATEGORY", "amazon-2018:CATEGORY: there is no category 'CATEGORY'; expected one of AMAZON_"),
        ("amazon-2015:Books", "there is no data set 'amazon-2015:Books'"),
        ("../movielens-1m", "there is no data set '../movielens-1m' (did you mean 'movielens-1m'?)"),
    ],
)
def test_an_unknown_name_gives_the_nearest(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(DataError) as caught:
        datasets.load(name, data=None, cache=tmp_path / "cache", out=tmp_path / "out")
    assert str(caught.value).startswith(words)
    assert list(tmp_path.iterdir()) == []


def test_every_data_set_says_where_it_is_from() -> None:
    known = [*datasets.DATASETS.values(), datasets.named("amazon-2014:Books"), datasets.named("amazon-2023:Books")]
    for one in known:
        assert one.about
        assert one.citation
        assert one.licence
        assert one.page.startswith("https://")
        assert one.forms
        files = {file.name for form in one.forms for file in form.files.values()}
        for download in one.downloads:
            assert download.url.startswith(("https://", "pip download"))
            packed = download.file.endswith((".zip", ".tar.gz", ".whl")) and not download.file.endswith(".json.gz")
            assert packed or download.file in files, "what is fetched is what is read"
            if download.checksum:
                algorithm, _, hexadecimal = download.checksum.partition(":")
                assert len(hexadecimal) == 2 * hashlib.new(algorithm).digest_size
    assert datasets.named("movielens-1m").verified
    assert not datasets.named("gowalla").verified


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert datasets.default_cache() == tmp_path / "zhiyin"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.default_cache() == tmp_path / ".cache" / "zhiyin"
