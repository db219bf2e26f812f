"""The real service over real HTTP: every route, and everything it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest

from zhiyin.channels.diversity import Diversity
from zhiyin.errors import StoreError, UserError
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.retriever import Request, Retriever
from zhiyin.service import wire
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.stores.base import Event, Store
from zhiyin.stores.lmdb import LMDB
from zhiyin.stores.memory import Memory

NOW = 1_800_000_000_000
SECONDS = NOW / 1000


@pytest.fixture(scope="module")
def releases(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Releases:
    """The folder that the shared release lies in."""
    return Releases(next(path for path in tmp_path_factory.getbasetemp().glob(f"releases*/{release.id}")).parent)


@pytest.fixture(scope="module")
def store() -> Store:
    store = Memory().open()
    store.append([Event("u1", f"i{at}", NOW - 1000 + at) for at in range(5)])
    store.put_profiles({"u1": {"country": "cn", "age": 30}})
    store.put_cards({f"i{at}": {"title": f"title {at}", "price": at} for at in range(30)})
    return store


@pytest.fixture(scope="module")
def client(releases: Releases, store: Store) -> Iterator[httpx.Client]:
    settings = Service(max_k=50, max_batch=3, max_body_mb=0.01)
    with (
        Live(releases, store) as live,
        running(create(live, store, settings, lambda: NOW)) as url,
        httpx.Client(base_url=url) as client,
    ):
        yield client


def ask(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/retrieve", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [candidate["item_id"] for candidate in answer["candidates"]]


def test_one_user_gets_what_the_retriever_finds(client: httpx.Client, release: Release, store: Store) -> None:
    answer = ask(client, user_id="u1", k=7)
    wanted = Retriever(store).retrieve(release, [Request(user="u1", k=7, time=NOW)])[0]
    assert ids(answer) == wanted.items
    assert [candidate["score"] for candidate in answer["candidates"]] == wanted.scores
    assert {name: answer[name] for name in ("release", "channel", "history", "unknown_items")} == {
        "release": release.id,
        "channel": "deep",
        "history": 5,
        "unknown_items": [],
    }
    assert not {f"i{at}" for at in range(5)} & set(ids(answer))
    assert answer["took_ms"] > 0
    assert "card" not in answer["candidates"][0]


def test_many_users_are_answered_in_order_as_one_by_one(client: httpx.Client) -> None:
    requests = [{"user_id": "u1", "k": 3}, {"user_id": "nobody", "k": 4}, {"events": [{"item_id": "i9"}], "k": 5}]
    together = ask(client, requests=requests)["results"]
    alone = [ask(client, **request) for request in requests]
    assert [one["candidates"] for one in together] == [one["candidates"] for one in alone]
    assert [one["channel"] for one in together] == ["deep", "popular", "deep"]


def test_an_unknown_user_gets_the_popular_items_and_the_answer_says_so(client: httpx.Client) -> None:
    answer = ask(client, user_id="nobody", k=3)
    assert (answer["channel"], answer["history"], ids(answer)) == ("popular", 0, ["i0", "i1", "i2"])
    assert ids(ask(client, k=3)) == ["i0", "i1", "i2"]


def test_inline_events_and_profile_count_and_are_not_kept(client: httpx.Client, store: Store) -> None:
    plain = ask(client, user_id="u1", k=10)
    told = ask(client, user_id="u1", k=10, events=[{"item_id": "i20", "time": SECONDS}, {"item_id": "no such"}])
    assert (told["history"], told["unknown_items"]) == (6, ["no such"])
    assert "i20" not in ids(told)
    assert ids(told) != ids(plain)
    assert ask(client, user_id="u1", k=10, profile={"country": "fr"})["candidates"] != plain["candidates"]
    assert ask(client, user_id="u1", k=10)["candidates"] == plain["candidates"]
    assert len(store.read(["u1"], 100)[0].events) == 5


def test_an_event_that_is_stored_and_comes_along_counts_once(client: httpx.Client) -> None:
    again = [{"item_id": "i4", "time": (NOW - 1000 + 4) / 1000}]
    assert ask(client, user_id="u1", k=9, events=again)["history"] == 5
    assert ask(client, user_id="u1", k=9, events=[{"item_id": "i4", "time": SECONDS}])["history"] == 6


def test_the_time_of_the_request_reaches_the_towers(client: httpx.Client) -> None:
    """The release has an hour feature."""
    now = ask(client, user_id="u1", k=5)
    assert ask(client, user_id="u1", k=5, time=SECONDS)["candidates"] == now["candidates"]
    assert ask(client, user_id="u1", k=5, time=SECONDS - 6 * 3600)["candidates"] != now["candidates"]


def test_excluded_items_stay_out_and_seen_ones_come_back_when_asked(client: httpx.Client) -> None:
    first = ids(ask(client, user_id="u1", k=5))
    assert not set(first[:2]) & set(ids(ask(client, user_id="u1", k=5, exclude=[*first[:2], "no such"])))
    assert len(ids(ask(client, user_id="u1", k=50, exclude_seen=False))) == 50
    with_seen = ids(ask(client, user_id="u1", k=50, exclude_seen=False, exclude=[f"i{at}" for at in range(10, 60)]))
    assert set(with_seen) == {f"i{at}" for at in range(10)}


def test_cards_come_with_the_fields_asked_and_null_where_there_is_none(client: httpx.Client) -> None:
    answer = ask(client, k=50, hydrate=["title", "no such field"])
    cards = {candidate["item_id"]: candidate["card"] for candidate in answer["candidates"]}
    assert cards["i3"] == {"title": "title 3"}
    assert cards["i40"] is None
    assert ask(client, k=4, hydrate=["*"])["candidates"][3]["card"] == {"title": "title 3", "price": 3}


def test_k_left_out_is_a_hundred_or_as_many_as_there_can_be(client: httpx.Client) -> None:
    assert len(ids(ask(client, user_id="nobody"))) == 50


def test_events_are_kept_and_the_next_request_sees_them(client: httpx.Client, store: Store) -> None:
    events = [{"user_id": "new", "item_id": item, "values": {"stars": 4}} for item in ("i1", "i2", "unheard of")]
    answer = client.post("/v1/events", json={"events": [*events, events[0]]})
    assert answer.json() == {"accepted": 3, "duplicates": 1, "unknown_items": ["unheard of"]}
    assert store.read(["new"], 1)[0].events == (Event("new", "unheard of", NOW, {"stars": 4}),)
    before = ask(client, user_id="new", k=5)
    assert (before["channel"], before["history"]) == ("deep", 2)
    more = {"user_id": "new", "item_id": "i30", "time": SECONDS + 0.25, "event_id": "e1"}
    assert client.post("/v1/events", json={"events": [more]}).json()["accepted"] == 1
    assert client.post("/v1/events", json={"events": [{**more, "item_id": "i31"}]}).json()["duplicates"] == 1
    assert store.read(["new"], 1)[0].events[0].time == NOW + 250
    assert ids(ask(client, user_id="new", k=5)) != ids(before)


def test_items_and_their_cards(client: httpx.Client, store: Store) -> None:
    store.put_cards({"a/b?c": {"title": "odd"}, "\r\n": {}})
    told = client.get("/v1/items/i3").json()
    assert told == {"item_id": "i3", "card": {"title": "title 3", "price": 3}, "in_release": True, "blocked": False}
    assert client.get("/v1/items/i40").json() == {"item_id": "i40", "card": None, "in_release": True, "blocked": False}
    assert client.get("/v1/items/a%2Fb%3Fc").json() == {
        "item_id": "a/b?c",
        "card": {"title": "odd"},
        "in_release": False,
        "blocked": False,
    }
    assert client.get("/v1/items/%0D%0A").json()["card"] == {}
    gone = client.get("/v1/items/unheard")
    assert (gone.status_code, gone.json()["error"]["message"]) == (404, "there is no item 'unheard'")


def test_a_profile_is_set_whole_and_makes_a_user_known(client: httpx.Client, store: Store) -> None:
    assert client.put("/v1/users/p%2F1/profile", json={"country": "fr"}).json() == {"user_id": "p/1"}
    assert store.read(["p/1"], 1)[0].profile == {"country": "fr"}
    assert ask(client, user_id="p/1", k=2)["channel"] == "deep"
    refused = client.put("/v1/users/p/profile", json=["country"])
    assert refused.status_code == 400
    assert "Expected `object`, got `array`" in refused.json()["error"]["message"]
    refused = client.put("/v1/users/p/profile", content=b'{"age": 1e999}')
    assert refused.status_code == 400
    refused = client.put("/v1/users/p/profile", content=b'{"age": 99999999999999999999999}')
    assert refused.status_code == 400
    assert store.read(["p"], 1)[0].profile is None


def test_the_live_release_tells_its_proof_and_no_trouble(client: httpx.Client, release: Release) -> None:
    told = client.get("/v1/releases/live").json()
    assert (told["id"], told["items"], told["pending_error"]) == (release.id, 60, "")
    assert told["proof"]["overlap"] == 1.0
    assert client.get("/readyz").json() == {"status": "ready", "release": release.id}
    assert client.get("/healthz").json() == {"status": "alive"}


REFUSED: list[tuple[bytes, str, str, str]] = [
    (b"", "the body is not JSON", "", "a JSON object in UTF-8"),
    (b"{", "the body is not JSON", "", "a JSON object in UTF-8"),
    (b'{"k": 3,}', "the body is not JSON", "", "a JSON object in UTF-8"),
    (b'{"user_id": "\xff"}', "the body is not JSON", "", "a JSON object in UTF-8"),
    (b'{"user_id": "\\ud800"}', "the body is not JSON", "", "a JSON object in UTF-8"),
    (b'{"profile": {"a": ' + b"[" * 9000, "the body is not JSON", "", "a JSON object in UTF-8"),
    (b"[]", "found `array`", "", "`object`"),
    (
        b'{"user": "u1"}',
        "unknown field `user` (did you mean 'user_id'?)",
        "",
        "one of channels, context, deadline_ms, ",
    ),
    (b'{"events": [{"item_id": "i1", "stars": 3}]}', "`stars`", "events[0]", "one of item_id, time, values"),
    (
        b'{"requests": [{"events": [{"item": "i1"}]}]}',
        "(did you mean 'item_id'?)",
        "requests[0].events[0]",
        "one of it",
    ),
    (b'{"diversity": {"weigth": 1, "by": "title"}}', "(did you mean 'weight'?)", "diversity", "one of by, weight"),
    (b'{"merge": {"by": "quota", "share": {}}}', "unknown field `share`", "merge", "one of k, shares"),
    (b'{"user_id": 196}', "found `int`", "user_id", "`str`"),
    (b'{"k": "3"}', "found `str`", "k", "`int | null`"),
    (b'{"k": 3.5}', "found `float`", "k", "`int | null`"),
    (b'{"k": 0}', "`int` >= 1", "k", ""),
    (b'{"k": 51}', "51", "k", "at most 50, by the catalogue and service.max_k"),
    (b'{"events": [{"time": 3}]}', "missing required field `item_id`", "events[0]", ""),
    (b'{"events": [{"item_id": ""}]}', "length >= 1", "events[0].item_id", ""),
    (b'{"time": -1}', "-1 is before 1990-01-01", "time", "Unix time in seconds, from service.earliest_event on"),
    (b'{"time": 1800000}', "1800000.000 is before 1990-01-01", "time", "from service.earliest_event on"),
    (b'{"time": -1e300}', "-1e+300 is before 1990-01-01", "time", "from service.earliest_event on"),
    (b'{"events": [{"item_id": "i", "time": 0}]}', "0 is before 1990-01-01", "events[0].time", "Unix time in seconds"),
    (b'{"time": 1e308}', "1e+308 is in the future", "time", "Unix time in seconds"),
    (b'{"diversity": {"weight": -1, "by": "title"}}', "`float` >= 0", "diversity.weight", ""),
    (b'{"diversity": {"weight": 1, "by": "genre"}}', "no candidate's card has the field 'genre'", "diversity.by", ""),
    (b'{"requests": []}', "length >= 1", "requests", ""),
    (b'{"requests": [{}, {}, {}, {}]}', "4 requests", "requests", "at most 3"),
    (b'{"requests": [{"k": 1}, {"k": 51}]}', "51", "requests[1].k", "at most 50, by the catalogue and service.max_k"),
    (b'{"requests": [{"k": 1}, {"hydrate": "title"}]}', "found `str`", "requests[1].hydrate", "`array`"),
    (
        b'{"requests": [{"events": [{"item_id": "i", "time": 1e10}]}]}',
        "in the future",
        "requests[0].events[0].time",
        "",
    ),
]


def test_difference_counts_where_it_is_asked(client: httpx.Client, release: Release, store: Store) -> None:
    store.put_cards({f"i{at}": {"room": at % 2} for at in range(50, 60)})
    few = {"user_id": "u1", "k": 6, "exclude": [f"i{at}" for at in range(50)]}
    diversity = Diversity(100.0, "room")
    asked = Request(user="u1", k=6, time=NOW, exclude=tuple(few["exclude"]), diversity=diversity)  # type: ignore[arg-type]
    wanted = Retriever(store).retrieve(release, [asked])[0].items
    assert [int(item[1:]) % 2 for item in wanted[0::2]] != [int(item[1:]) % 2 for item in wanted[1::2]]
    assert ids(ask(client, **few, diversity={"weight": 100, "by": "room"})) == wanted
    plain = ids(ask(client, **few))
    assert wanted != plain
    assert ids(ask(client, **few, diversity={"weight": 0, "by": "room"})) == plain


@pytest.mark.parametrize(("body", "message", "where", "expected"), REFUSED, ids=lambda one: str(one)[:40])
def test_a_request_that_cannot_be_is_refused_by_its_path(
    client: httpx.Client, body: bytes, message: str, where: str, expected: str
) -> None:
    answer = client.post("/v1/retrieve", content=body)
    said = answer.json()["error"]
    assert answer.status_code == 400
    assert message in said["message"]
    assert said.get("where", "") == where
    assert expected in said.get("expected", "")


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (SECONDS + 301, ""),
        (NOW, "It looks like milliseconds: divide by 1,000."),
        (NOW * 1000, "It looks like microseconds: divide by 1,000,000."),
        (NOW * 1_000_000, "It looks like nanoseconds: divide by 1,000,000,000."),
        (-1, ""),
    ],
)
def test_an_event_in_the_future_is_refused_with_a_word_on_the_unit(
    client: httpx.Client, store: Store, time: float, said: str
) -> None:
    assert refusal_of_time(client, store, time).get("remedy", "") == said
    near = {"user_id": "near", "item_id": "i2", "time": SECONDS + 299}
    assert client.post("/v1/events", json={"events": [near]}).status_code == 200


def refusal_of_time(client: httpx.Client, store: Store, time: float) -> dict[str, Any]:
    """What is said of an event at this time beside one at a good time, neither of which is kept."""
    user = f"at {time}"
    events: list[dict[str, Any]] = [
        {"user_id": user, "item_id": "i1"},
        {"user_id": user, "item_id": "i2", "time": time},
    ]
    answer = client.post("/v1/events", json={"events": events})
    told = cast(dict[str, Any], answer.json()["error"])
    assert (answer.status_code, told["where"]) == (400, "events[1].time")
    assert not store.read([user], 1)[0].known
    return told


DAY_ONE = 631_152_000
"""1990-01-01, 0:00 UTC."""


@pytest.mark.parametrize(
    ("time", "said"),
    [
        (0, "It looks like a time that was never set: leave it out, and it is now."),
        (SECONDS / 1000, "It looks like seconds divided by 1,000: multiply by 1,000."),
        (SECONDS / 60, "It looks like minutes: multiply by 60."),
        (SECONDS // 3600, "It looks like hours: multiply by 3,600."),
        (SECONDS // 86_400, "It looks like days: multiply by 86,400."),
        (DAY_ONE - 0.001, ""),
        (-SECONDS, ""),
    ],
)
def test_an_event_before_there_were_any_is_refused_with_a_word_on_the_unit(
    client: httpx.Client, store: Store, time: float, said: str
) -> None:
    told = refusal_of_time(client, store, time)
    assert told.get("remedy", "") == said
    assert told["message"].endswith(" is before 1990-01-01")
    first = {"user_id": f"first, {time}", "item_id": "i2", "time": DAY_ONE}
    assert client.post("/v1/events", json={"events": [first]}).json()["accepted"] == 1
    assert [event.time for event in store.read([f"first, {time}"], 9)[0].events] == [1000 * DAY_ONE]


def test_a_value_of_an_event_that_no_store_can_hold_is_refused(client: httpx.Client, store: Store) -> None:
    body = {"events": [{"user_id": "big", "item_id": "i1", "values": {"n": [2**70]}}]}
    answer = client.post("/v1/events", json=body)
    assert (answer.status_code, answer.json()["error"]["where"]) == (400, "events[0].values.n[0]")
    assert not store.read(["big"], 1)[0].known


ODD: list[Any] = [None, True, -3, 2.5, "", "知", "\x00", [], ["a", None, 3, [1]], {"a": {}}, 10**400, 1e300, -1e300]


@pytest.mark.parametrize("value", ODD, ids=lambda one: str(one)[:20])
def test_no_value_of_a_profile_or_an_event_breaks_the_towers(client: httpx.Client, value: object) -> None:
    body = {
        "k": 5,
        "profile": {"country": value, "age": value},
        "context": {"device": value},
        "events": [{"item_id": "i1", "values": {"stars": value}}],
    }
    answer = client.post("/v1/retrieve", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["candidates"]) == 5


def test_a_body_that_is_too_large_is_413_and_the_connection_lives(client: httpx.Client) -> None:
    answer = client.post("/v1/retrieve", json={"user_id": "u1", "exclude": ["x" * 1000] * 2000})
    assert answer.status_code == 413
    assert answer.json()["error"]["message"] == "the body is larger than 0.01 MB"
    assert ask(client, user_id="u1", k=1)["candidates"]


def test_another_method_path_or_content_is_refused(client: httpx.Client) -> None:
    answer = client.get("/v1/retrieve")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["error"]["expected"] == "POST"
    assert answer.json()["error"]["where"] == "GET /v1/retrieve"
    nothing = client.post("/v1/nothing")
    assert (nothing.status_code, nothing.json()["error"]["where"]) == (404, "POST /v1/nothing")
    assert nothing.json()["error"]["remedy"] == "GET /docs shows every route."
    answer = client.post("/v1/events", content=b'{"events": []}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert answer.json()["error"]["message"] == "the content-type is 'text/plain', expected 'application/json'"
    utf8 = client.post("/v1/retrieve", content=b'{"k": 1}', headers={"content-type": "application/json; charset=utf-8"})
    assert utf8.status_code == 200


def test_a_port_in_use_is_a_sentence(client: httpx.Client, releases: Releases, store: Store) -> None:
    with (
        Live(releases) as live,
        pytest.raises(UserError, match=r"cannot listen on port \d+ \(Address already in use\).*--port 0"),
        running(create(live, store, Service()), port=client.base_url.port or 0),
    ):
        raise AssertionError("it listens")


def test_before_any_release_it_is_not_ready_and_events_are_kept_all_the_same(tmp_path: Path) -> None:
    store = Memory().open()
    store.put_cards({"i1": {"title": "one"}})
    with (
        Live(Releases(tmp_path)) as live,
        running(create(live, store, Service(), lambda: NOW)) as url,
        httpx.Client(base_url=url) as client,
    ):
        for answer in (client.get("/readyz"), client.post("/v1/retrieve", json={}), client.get("/v1/releases/live")):
            assert answer.status_code == 503
            assert "no release is live" in answer.json()["error"]["message"]
            assert "zhiyin publish" in answer.json()["error"]["remedy"]
        assert client.get("/healthz").status_code == 200
        kept = client.post("/v1/events", json={"events": [{"user_id": "u", "item_id": "i1"}]})
        assert kept.json() == {"accepted": 1, "duplicates": 0, "unknown_items": []}
        assert client.get("/v1/items/i1").json() == {
            "item_id": "i1",
            "card": {"title": "one"},
            "in_release": False,
            "blocked": False,
        }
        assert client.get("/docs").status_code == 200


class Broken:
    """A store that fails."""

    def read(self, users: object, limit: int) -> object:
        raise ZeroDivisionError("a secret of the inside")

    def append(self, events: object) -> int:
        raise StoreError("full: 64 GB", where="store", remedy="Raise store.map_gb.")


def test_what_fails_inside_is_500_or_503_and_tells_no_secret(releases: Releases) -> None:
    with (
        Live(releases) as live,
        running(create(live, Broken(), Service())) as url,  # type: ignore[arg-type]
        httpx.Client(base_url=url) as client,
    ):
        answer = client.post("/v1/retrieve", json={"user_id": "u", "k": 1})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "Log entry" in answer.json()["error"]["remedy"]
        full = client.post("/v1/events", json={"events": [{"user_id": "u", "item_id": "i"}]})
        assert (full.status_code, full.json()["error"]["message"]) == (503, "full: 64 GB")
        assert client.get("/healthz").status_code == 200


def test_a_full_store_refuses_the_events_and_answers_on(releases: Releases, tmp_path: Path) -> None:
    store = LMDB(tmp_path / "store", map_gb=0.001).open()
    with (
        Live(releases) as live,
        running(create(live, store, Service())) as url,
        httpx.Client(base_url=url) as client,
    ):
        pad = {"pad": "x" * 1000}
        events = [{"user_id": "u", "item_id": f"i{at}", "time": DAY_ONE + at, "values": pad} for at in range(900)]
        answer = client.post("/v1/events", json={"events": events})
        assert (answer.status_code, "store.map_gb" in answer.json()["error"]["remedy"]) == (503, True)
        assert ask(client, user_id="u", k=3)["channel"] == "popular"
    store.close()


def test_the_description_is_openapi_and_holds_every_wire_type(client: httpx.Client) -> None:
    described = client.get("/openapi.json").json()
    assert described["openapi"] == "3.1.0"
    assert {"title", "version"} <= set(described["info"])
    schemas = described["components"]["schemas"]
    for path, methods in described["paths"].items():
        assert path.startswith("/")
        named = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for method, operation in methods.items():
            assert method in ("get", "put", "post", "delete")
            parameters = operation.get("parameters", ())
            assert {one["name"] for one in parameters if one["in"] == "path"} == named
            assert all(one["required"] for one in parameters if one["in"] == "path")
            query = {one["name"]: "1" for one in parameters if one["in"] == "query"}
            assert not query or client.get(path, params=query).status_code == 200
            assert all(code.isdigit() or code in ("4XX", "5XX") for code in operation["responses"])
            assert all("description" in response for response in operation["responses"].values())
            example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            if example is not None:
                sent = client.request(method, path.replace("{user_id}", "example"), json=example)
                assert sent.status_code == 200, (path, sent.text)
    references = [line.split('"')[3] for line in json.dumps(described, indent=1).splitlines() if '"$ref"' in line]
    assert len(references) > 8
    assert {one.removeprefix("#/components/schemas/") for one in references} <= set(schemas)
    for name, schema in schemas.items():
        assert schema["title"] == name
        assert set(schema.get("required", ())) <= set(schema["properties"])
    assert set(schemas["Retrieve"]["properties"]) == {field.name for field in msgspec.structs.fields(wire.Retrieve)}


def test_the_page_shows_every_route(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    for path in client.get("/openapi.json").json()["paths"]:
        assert f'data-path="{path}"' in page.text
    assert "{{" not in page.text
    assert "http" not in page.text.replace("http-equiv", "")
