"""Channels, merges and explanations over real HTTP, and what of them is refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from zhiyin.channels.base import Found, Neighbourhoods, Seeker
from zhiyin.channels.merge import Quota
from zhiyin.channels.online import Online
from zhiyin.data.prepared import Prepared
from zhiyin.release import Arrays, Release
from zhiyin.releases import Releases
from zhiyin.retriever import Request, Retriever
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.stores.base import Event, Store
from zhiyin.stores.memory import Memory

NOW = 1_800_000_000_000


@dataclass(frozen=True, slots=True)
class Broken:
    """A channel that fails."""

    def tables(self, data: Prepared, neighbourhoods: Neighbourhoods) -> Arrays:
        return {}

    def knows(self, release: Release, seeker: Seeker) -> bool:
        return True

    def find(self, release: Release, tables: Arrays, seekers: Sequence[Seeker]) -> list[Found]:
        raise RuntimeError("no luck")


ONLINE = Online(channels={"broken": Broken()})


@pytest.fixture(scope="module")
def store() -> Store:
    store = Memory().open()
    store.append([Event("u1", f"i{at}", NOW - 1000 + at) for at in range(5)])
    return store


@pytest.fixture(scope="module")
def client(release: Release, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = next(path for path in tmp_path_factory.getbasetemp().glob(f"releases*/{release.id}"))
    with (
        Live(Releases(folder.parent)) as live,
        running(create(live, store, Service(max_k=50), lambda: NOW, ONLINE)) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def test_an_answer_of_several_channels(client: httpx.Client, release: Release, store: Store) -> None:
    asked = {"user_id": "u1", "k": 6, "channels": ["deep", "popular", "broken"], "explain": True}
    answer = client.post("/v1/retrieve", json={**asked, "merge": {"by": "quota", "shares": {"deep": 2, "popular": 1}}})
    wanted = Retriever(store, online=ONLINE).retrieve(
        release,
        [
            Request(
                "u1", k=6, time=NOW, channels=("deep", "popular", "broken"), merge=Quota({"deep": 2, "popular": 1}),
                explain=True,
            )
        ],
    )[0]  # fmt: skip
    body = answer.json()
    assert body["channel"] == "deep+popular"
    assert body["dropped"] == [{"channel": "broken", "why": "it failed (RuntimeError); the service's log says more"}]
    assert wanted.sources is not None
    assert wanted.pulls is not None
    for at, candidate in enumerate(body["candidates"]):
        assert (candidate["item_id"], candidate["score"]) == (wanted.items[at], wanted.scores[at])
        assert candidate["sources"] == [
            {"channel": one.channel, "rank": one.rank, "score": one.score} for one in wanted.sources[at]
        ]
        found_by_tower = any(one.channel == "deep" for one in wanted.sources[at])
        assert candidate["explanation"] == {
            "history": [{"item_id": one.item, "similarity": one.similarity} for one in wanted.pulls[at]],
            "interest": 0 if found_by_tower else None,
        }


@pytest.mark.parametrize("by", [{"by": "rrf", "k": 5}, {"by": "rrf"}, {"by": "calibrated"}, {"by": "round_robin"}])
def test_every_merge_can_be_asked(client: httpx.Client, by: dict[str, Any]) -> None:
    asked = {"user_id": "u1", "k": 6, "channels": ["deep", "popular"], "merge": by}
    answer = client.post("/v1/retrieve", json=asked).json()
    assert answer["channel"] == "deep+popular"
    scores = [candidate["score"] for candidate in answer["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 6


def test_a_plain_answer_says_no_more_than_it_did(client: httpx.Client) -> None:
    answer = client.post("/v1/retrieve", json={"user_id": "u1", "k": 2}).json()
    assert set(answer) == {"release", "channel", "candidates", "history", "unknown_items", "took_ms"}
    assert [set(candidate) for candidate in answer["candidates"]] == [{"item_id", "score"}] * 2


@pytest.mark.parametrize(
    ("asked", "where", "said"),
    [
        ({"channels": ["deep", "popula"]}, "channels[1]", "there is no channel 'popula' (did you mean 'popular'?)"),
        ({"channels": ["deep", "deep"]}, "channels[1]", "stands here twice"),
        ({"channels": "deep"}, "channels", "str"),
        ({"channels": ["fresh"]}, "channels[0]", "was published without this channel"),
        ({"merge": {"by": "quota", "shares": {"deep": 0}}}, "merge.shares", "the shares add up to 0"),
        ({"merge": {"by": "quota", "shares": {"deep": -1}}}, "merge.shares[...]", "`float` >= 0.0"),
        ({"merge": {"by": "quota", "shares": {"popular": 1}}}, "merge.shares", "'popular' is not asked"),
        ({"merge": {"by": "quota"}}, "merge", "shares"),
        ({"merge": {"by": "magic"}}, "merge.by", "magic"),
        ({"merge": {"by": "rrf", "k": -1}}, "merge.k", ">= 0"),
        ({"merge": {"by": "rrf", "shares": {}}}, "merge", "shares"),
        ({"merge": "rrf"}, "merge", "str"),
        ({"deadline_ms": 0}, "deadline_ms", "> 0"),
        ({"deadline_ms": -5}, "deadline_ms", "> 0"),
        ({"explain": 1}, "explain", "int"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_field(
    client: httpx.Client, asked: dict[str, Any], where: str, said: str
) -> None:
    for body, place in (
        ({"user_id": "u1", "k": 3, **asked}, where),
        ({"requests": [{"k": 2}, {"user_id": "u1", "k": 3, **asked}]}, f"requests[1].{where}"),
    ):
        answer = client.post("/v1/retrieve", json=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["where"] in (place, place.replace("[1]", "[...]"))
        assert said in error["message"]


def test_when_no_channel_answers_the_service_says_try_again(client: httpx.Client) -> None:
    answer = client.post("/v1/retrieve", json={"user_id": "u1", "k": 3, "channels": ["broken"], "deadline_ms": 5000})
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].startswith("no channel answered: broken: it failed (RuntimeError)")


def test_the_description_tells_of_it(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert {"channels", "merge", "deadline_ms", "explain"} <= set(schemas["Retrieve"]["properties"])
    tags = {one["properties"]["by"]["enum"][0] for name, one in schemas.items() if name.startswith("By")}
    assert tags == {"rrf", "calibrated", "round_robin", "quota"}
    assert "ByRank or ByScore" in client.get("/docs").text
