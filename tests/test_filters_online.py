"""Filters from the request to the answer: a published release, the retriever, and HTTP."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from zhiyin import spec
from zhiyin.channels.popular import Popular
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN, Vocabulary
from zhiyin.errors import RequestError
from zhiyin.features.bag import Bag
from zhiyin.features.schema import Schema
from zhiyin.filters.grammar import Expression, parse
from zhiyin.indexes.base import Allowed, Hits, IndexSpec, Searchable, Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.learning.examples import Examples
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.publish import publish
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.retriever import Request, Retriever
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.stores.base import Event
from zhiyin.stores.memory import Memory

ITEMS, SEEN, NOW = 600, 40, 1_800_000_000_000
GOLDEN = Path(__file__).parent / "golden" / "format-1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one release: 600 items of an untrained model, every tenth without a price."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(30), 4).astype(np.int32)
    items = random.integers(0, ITEMS, len(users)).astype(np.int32)
    data = Prepared(
        users=Vocabulary.of(f"u{row}" for row in range(30)),
        items=Vocabulary.of(f"i{row}" for row in range(ITEMS)),
        events=EventLog.of(users, items, NOW - 1000 + np.arange(len(users)), user_count=30),
        user_table=Table.of({}, 30),
        item_table=Table.of(
            {
                "n": np.arange(ITEMS),
                "price": [None if row % 10 == 0 else float(row % 50) for row in range(ITEMS)],
                "adult": [row % 3 == 0 for row in range(ITEMS)],
                "region": [("CN", "FR", "DE")[row % 3] for row in range(ITEMS)],
                "tags": [("a| b", "b", "")[row % 3] for row in range(ITEMS)],
                "cover": random.normal(size=(ITEMS, 4)).astype(np.float32),
            }
        ),
    )
    split = LeaveLastOut().split(data.events, data.clock)
    schema = Schema(item=(Bag("genres", column="tags", dim=4, length=3),), history_length=8).fit(data, split)
    examples = Examples(data, schema, end=split.end, device=torch.device("cpu"))
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("filtered")
    publish(
        YouTubeDNN(dim=16, hidden=(32,)).build(schema, ITEMS),
        schema,
        data,
        sample=examples.queries(split.test.starts),
        popular=np.arange(ITEMS, dtype=np.int32),
        index=Exact(),
        root=folder,
        id="20260101-000000-ffff",
        facts={"created": "2026-01-01T00:00:00+00:00"},
    )
    return folder


@pytest.fixture(scope="module")
def release(root: Path) -> Release:
    return Releases(root).open()


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    """One user has seen the first 40 items."""
    store = Memory().open()
    store.append([Event("u", f"i{at}", NOW - 1000 + at) for at in range(SEEN)])
    return Retriever(store)


INDEXES = [one for one in spec.examples("zhiyin.indexes") if isinstance(one, IndexSpec)]


@pytest.fixture(params=INDEXES, ids=lambda one: type(one).__name__)
def indexed(request: pytest.FixtureRequest, release: Release, hosted: Callable[[IndexSpec], IndexSpec]) -> Release:
    """The release with each kind of index."""
    return replace(release, index=hosted(request.param).build(np.array(release.vectors)))


def oracle(release: Release, request: Request, rows: list[int]) -> list[str]:
    """The exact answer: the whole catalogue ranked, then what passes and was not seen."""
    everything = replace(request, k=ITEMS, filter="", exclude_seen=False)
    exact = replace(release, index=Exact().build(np.array(release.vectors)))
    ranked = Retriever(Memory().open()).retrieve(exact, [replace(everything, user="", events=request.events)])[0].items
    seen = {event.item for event in request.events} if request.exclude_seen else set()
    wanted = {f"i{row}" for row in rows} - seen - set(request.exclude)
    return [item for item in ranked if item in wanted][: request.k]


HISTORY = tuple(Event("", f"i{at}", NOW - 1000 + at) for at in range(SEEN))


@pytest.mark.parametrize("count", [600, 300, 100, 50, 41, 40, 39, 5, 1, 0])
@pytest.mark.parametrize("k", [1, 20, 600])
def test_k_true_answers_at_every_selectivity(release: Release, retriever: Retriever, count: int, k: int) -> None:
    """The first `count` items pass, and the first 40 were seen: as many come as there are."""
    request = Request(events=HISTORY, k=k, time=NOW, filter=f"n < {count}")
    stored = retriever.retrieve(release, [replace(request, user="u", events=())])[0]
    answer = retriever.retrieve(release, [request])[0]
    assert answer.items == stored.items == oracle(release, request, list(range(count)))
    assert len(answer.items) == min(k, max(0, count - SEEN))
    assert answer.channel == "deep"
    kept = retriever.retrieve(release, [replace(request, exclude_seen=False)])[0].items
    assert kept == oracle(release, replace(request, exclude_seen=False), list(range(count)))
    assert len(kept) == min(k, count)


@pytest.mark.parametrize("count", [600, 300, 45, 12, 3, 0])
def test_every_index_gives_k_true_answers(indexed: Release, retriever: Retriever, count: int) -> None:
    request = Request(user="u", k=30, time=NOW, filter=f"n >= {ITEMS - count}")
    answer = retriever.retrieve(indexed, [request])[0]
    assert len(set(answer.items)) == len(answer.items) == min(30, count if count <= ITEMS - SEEN else ITEMS - SEEN)
    assert all(int(item[1:]) >= max(SEEN, ITEMS - count) for item in answer.items)
    assert answer.scores == sorted(answer.scores, reverse=True)


class Short:
    """An index that loses the last `lost` of what it was asked for, once, and counts how often it is asked."""

    def __init__(self, index: Searchable, lost: int) -> None:
        self._index, self._lost, self.allowed = index, lost, list[int]()

    def __len__(self) -> int:
        return len(self._index)

    def search(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> Hits:
        found = self._index.search(queries, k, allowed)
        if not self.allowed:
            there = int((found.rows[0] != UNKNOWN).sum())
            found.rows[:, there - self._lost : there] = UNKNOWN
        self.allowed.append(-1 if allowed is None else int(allowed.sum()))
        return found

    def save(self, path: Path) -> None:
        raise AssertionError("it is not saved")


@pytest.mark.parametrize(("lost", "asked"), [(0, [300]), (10, [300, 300])])
def test_the_index_is_asked_for_what_passes_and_again_only_when_it_left_an_answer_short(
    release: Release, retriever: Retriever, lost: int, asked: list[int]
) -> None:
    short = Short(release.index, lost)
    request = Request(user="u", k=300, time=NOW, filter="n >= 300")
    answer = retriever.retrieve(replace(release, index=short), [request])
    assert answer == retriever.retrieve(release, [request])
    assert (len(answer[0].items), short.allowed) == (300, asked)


def test_many_filters_in_one_call_are_answered_as_one_by_one(indexed: Release, retriever: Retriever) -> None:
    filters: dict[str, Callable[[int], bool]] = {
        "n < 300": lambda row: row < 300,
        "": lambda row: True,
        "adult": lambda row: row % 3 == 0,
        " n<300": lambda row: row < 300,
        "n < 0": lambda row: False,
        "price < 5 and tags any ['a']": lambda row: row % 50 in range(1, 5) and row % 3 == 0,
        "not adult": lambda row: row % 3 != 0,
        "n == 599": lambda row: row == 599,
    }
    asked = [("u", 10), ("u", 200), ("nobody", 10)]
    requests = [Request(user=user, k=k, time=NOW, filter=said) for said in filters for user, k in asked]
    alone = [retriever.retrieve(indexed, [request])[0] for request in requests]
    assert retriever.retrieve(indexed, requests) == alone
    for request, answer in zip(requests, alone, strict=True):
        seen = SEEN if request.user == "u" else 0
        passing = [row for row in range(seen, ITEMS) if filters[request.filter](row)]
        assert len(answer.items) == min(request.k, len(passing))
        assert set(answer.items) <= {f"i{row}" for row in passing}


def test_the_attributes_are_the_item_tables_and_a_bag_is_parted(release: Release, retriever: Retriever) -> None:
    assert release.manifest["attributes"] == {
        "n": "number",
        "price": "number",
        "adult": "true or false",
        "region": "text",
        "tags": "list of text",
    }
    assert "attributes.arrow" in release.manifest["files"]
    said = "region == 'CN' and adult and not price < 20 and tags all ['a', 'b'] and (n > 100 or missing(price))"
    rows = [r for r in range(ITEMS) if r % 3 == 0 and not (r % 10 and r % 50 < 20) and (r > 100 or r % 10 == 0)]
    answer = retriever.retrieve(release, [Request(events=HISTORY, k=ITEMS, time=NOW, filter=said)])[0]
    assert sorted(answer.items) == sorted(f"i{row}" for row in rows if row >= SEEN)


def test_a_new_user_gets_the_popular_among_what_passes(release: Release, retriever: Retriever) -> None:
    answer = retriever.retrieve(release, [Request(k=3, filter="region == 'FR'", exclude=("i4",))])[0]
    assert (answer.channel, answer.items) == ("popular", ["i1", "i7", "i10"])
    assert retriever.retrieve(release, [Request(k=3, filter="n < 0")])[0].items == []


def test_the_popular_channel_goes_on_beyond_what_it_ranks(release: Release, retriever: Retriever) -> None:
    few = replace(release, popular=np.array([9, 3, 7], np.int32))
    answer = retriever.retrieve(few, [Request(k=4, filter="n >= 3 and n < 9")])[0]
    assert answer.items == ["i3", "i7", "i4", "i5"]
    np.testing.assert_allclose(answer.scores, [1 / 2, 1 / 3, 1 / 4, 1 / 5], atol=1e-5)
    everything = retriever.retrieve(few, [Request(k=ITEMS, exclude=("i9", "i0"))])[0]
    assert everything.items == ["i3", "i7", *(f"i{row}" for row in range(1, ITEMS) if row not in (3, 7, 9))]
    assert Popular().find(few, {}, []) == []


def test_a_filter_that_repeats_is_compiled_once_and_goes_with_its_release(
    release: Release, retriever: Retriever, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def counting(text: str) -> Expression:
        parsed.append(text)
        return parse(text)

    monkeypatch.setattr("zhiyin.filters.bitmap.parse", counting)
    requests = [Request(k=3, filter="n < 77"), Request(k=3, filter="n < 78"), Request(k=3, filter="n < 77")]
    with ThreadPoolExecutor(4) as pool:
        retriever.retrieve(release, requests)
        list(pool.map(lambda _: retriever.retrieve(release, requests), range(20)))
    assert parsed == ["n < 77", "n < 78"]
    retriever.retrieve(Releases(root).open(), requests[:1])
    assert parsed == ["n < 77", "n < 78", "n < 77"]


def test_a_release_from_before_there_were_filters_says_so(retriever: Retriever) -> None:
    old = Releases(GOLDEN).open()
    assert len(retriever.retrieve(old, [Request(k=3)])[0].items) == 3
    with pytest.raises(RequestError, match=r"^filter: .* was published without attributes, .*\. Publish again"):
        retriever.retrieve(old, [Request(k=3, filter="price < 3")])


def test_a_filter_that_cannot_be_is_refused_by_its_path(release: Release, retriever: Retriever) -> None:
    with pytest.raises(RequestError, match=r"^filter: character 1: no attribute 'prize' \(did you mean 'price'\?\)"):
        retriever.retrieve(release, [Request(filter="prize < 3")])
    with pytest.raises(RequestError, match=r"^requests\[1\]\.filter: character 8: the filter ends"):
        retriever.retrieve(release, [Request(filter="price < 3"), Request(filter="price <")])
    with pytest.raises(RequestError, match="no attribute 'cover'"):
        retriever.retrieve(release, [Request(filter="missing(cover)")])


@pytest.fixture(scope="module")
def client(root: Path, retriever: Retriever) -> Iterator[httpx.Client]:
    with (
        Live(Releases(root)) as live,
        running(create(live, retriever.store, Service(max_k=50), lambda: NOW)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client


def test_over_http_candidates_are_what_the_filter_says(client: httpx.Client) -> None:
    body: dict[str, Any] = {"user_id": "u", "k": 50, "filter": 'region == "CN" and not price >= 20 and tags any ["b"]'}
    answer = client.post("/v1/retrieve", json=body)
    assert answer.status_code == 200, answer.text
    rows = [int(one["item_id"][1:]) for one in answer.json()["candidates"]]
    assert len(rows) == 50
    assert all(row % 3 == 0 and (row % 50 < 20 or row % 10 == 0) and row >= SEEN for row in rows)
    many = client.post("/v1/retrieve", json={"requests": [body, {**body, "filter": "n < 0"}, {**body, "filter": ""}]})
    first, none, plain = (one["candidates"] for one in many.json()["results"])
    assert (first, none) == (answer.json()["candidates"], [])
    assert plain != first
    assert client.get("/v1/releases/live").json()["attributes"]["tags"] == "list of text"
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["Retrieve"]["properties"]["filter"] == {"type": "string", "default": ""}


@pytest.mark.parametrize(
    ("said", "message", "expected"),
    [
        (7, "found `int`", "`str`"),
        (None, "found `null`", "`str`"),
        ("price <", "character 8: the filter ends", "a value"),
        ("prize < 3", "character 1: no attribute 'prize' (did you mean 'price'?)", "one of n, price, adult"),
        ("price < 'CN'", "character 1: price is a number, and 'CN' is none of its values", "a number"),
        ("(" * 1000 + "adult" + ")" * 1000, "character 33: nested 33 deep", "at most 32"),
        ("adult or " * 11_500 + "adult", "103,505 characters", "at most 65,536"),
        ('region == "CN\r\n*{}"; FLUSHALL', "character 20: ';' begins nothing", ""),
    ],
    ids=lambda one: ascii(one)[:30],
)
def test_over_http_what_cannot_be_is_a_400_that_names_the_field(
    client: httpx.Client, said: object, message: str, expected: str
) -> None:
    for body, where in (
        ({"filter": said, "k": 1}, "filter"),
        ({"requests": [{"k": 1}, {"filter": said, "k": 1}]}, "requests[1].filter"),
    ):
        answer = client.post("/v1/retrieve", json=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (message in error["message"], error["where"]) == (True, where), error
        assert expected in error.get("expected", "")
