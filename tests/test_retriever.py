"""The online path: what is answered, from what, and to whom."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch

from zhiyin import spec
from zhiyin.channels.base import Channel
from zhiyin.channels.deep import Deep
from zhiyin.channels.diversity import Diversity, diverse
from zhiyin.channels.fresh import Fresh
from zhiyin.channels.item_to_item import ItemToItem
from zhiyin.channels.listed import Listed
from zhiyin.channels.merge import RRF, Merge, Quota, RoundRobin
from zhiyin.channels.online import Online
from zhiyin.channels.popular import Popular
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import RequestError, SpecError
from zhiyin.learning.examples import Examples
from zhiyin.release import Release
from zhiyin.retriever import Request, Retriever
from zhiyin.stores.base import Card, Event, Store
from zhiyin.stores.memory import Memory

NOW = 1_800_000_000_000


@pytest.fixture
def store() -> Store:
    return Memory().open()


@pytest.fixture
def retriever(store: Store) -> Retriever:
    return Retriever(store)


def event(user: str, item: str, time: int = NOW, **values: float) -> Event:
    return Event(user, item, time, values)


def test_offline_equals_online(
    release: Release, retriever: Retriever, data: Prepared, split: Split, examples: Examples
) -> None:
    """The store holds what each user did before the held-out event; the answer is the offline one through the index."""
    log, k = data.events, 20
    for start in split.test.starts:
        user = f"u{log.users[start]}"
        past = range(log.offsets[log.users[start]], start)
        records = log.columns.records(past.start, past.stop)
        retriever.store.append(
            [Event(user, f"i{log.items[at]}", int(log.times[at]), records[at - past.start]) for at in past]
        )
        row = int(log.users[start])
        retriever.store.put_profiles({user: data.user_table.records(row, row + 1)[0]})
    queries = examples.queries(split.test.starts)
    inputs = {"history": queries.history.numpy(), **{name: c.numpy() for name, c in queries.columns.items()}}
    users = np.ascontiguousarray(release.user_tower(inputs)[:, 0])
    requests = [Request(user=f"u{log.users[s]}", k=k, time=int(log.times[s])) for s in split.test.starts]
    for at, (start, answer) in enumerate(zip(split.test.starts, retriever.retrieve(release, requests), strict=True)):
        hits = release.index.search(users[at : at + 1], len(data.items))
        seen = set(log.history(int(start)).tolist())
        wanted = [(f"i{r}", s) for r, s in zip(hits.rows[0], hits.scores[0], strict=True) if r not in seen][:k]
        assert answer.items == [item for item, _ in wanted]
        np.testing.assert_allclose(answer.scores, [score for _, score in wanted], atol=1e-4)
        assert answer.channel == "deep"


def test_one_request_is_answered_as_in_a_crowd(release: Release, retriever: Retriever) -> None:
    retriever.store.append([event(f"u{u}", f"i{i}", NOW + i) for u in range(6) for i in range(u, 40, u + 1)])
    requests = [Request(user=f"u{u}", k=5 + u, time=NOW) for u in range(6)] + [Request(k=3, time=NOW)]
    alone = [retriever.retrieve(release, [request])[0] for request in requests]
    assert retriever.retrieve(release, requests) == alone


def test_no_requests_have_no_answers(release: Release, retriever: Retriever) -> None:
    assert retriever.retrieve(release, []) == []


def test_seen_and_excluded_items_do_not_come_back_and_k_is_kept(release: Release, retriever: Retriever) -> None:
    retriever.store.append([event("u", f"i{i}", NOW + i) for i in range(30)])
    answer = retriever.retrieve(release, [Request(user="u", k=20, exclude=("i40", "i41", "no such item"))])[0]
    assert len(answer.items) == 20
    assert not {f"i{i}" for i in range(30)} & set(answer.items)
    assert not {"i40", "i41"} & set(answer.items)
    kept = retriever.retrieve(release, [Request(user="u", k=60, exclude_seen=False)])[0]
    assert len(kept.items) == 60


def test_when_almost_everything_was_seen_the_rest_comes(release: Release, retriever: Retriever) -> None:
    retriever.store.append([event("u", f"i{i}", NOW + i) for i in range(57)])
    answer = retriever.retrieve(release, [Request(user="u", k=20)])[0]
    assert sorted(answer.items) == ["i57", "i58", "i59"]
    assert all(np.isfinite(answer.scores))
    retriever.store.append([event("u", f"i{i}", NOW + i) for i in range(57, 60)])
    assert retriever.retrieve(release, [Request(user="u", k=20)])[0].items == []


def test_an_unknown_user_gets_the_popular_items(release: Release, retriever: Retriever) -> None:
    answer = retriever.retrieve(release, [Request(user="nobody", k=4, exclude=("i1",))])[0]
    assert answer.channel == "popular"
    assert answer.items == ["i0", "i2", "i3", "i4"]
    assert answer.scores == sorted(answer.scores, reverse=True)


def test_a_profile_alone_is_enough_for_the_towers(release: Release, retriever: Retriever) -> None:
    assert retriever.retrieve(release, [Request(k=4, profile={"country": "cn"})])[0].channel == "deep"
    assert retriever.retrieve(release, [Request(k=4, profile={"shoe size": 44})])[0].channel == "popular"
    retriever.store.put_profiles({"known": {"age": 30}})
    assert retriever.retrieve(release, [Request(user="known", k=4)])[0].channel == "deep"


def test_one_more_event_changes_the_answer_stored_or_inline(release: Release, retriever: Retriever) -> None:
    retriever.store.append([event("u", "i1")])
    before = retriever.retrieve(release, [Request(user="u", k=10)])[0]
    inline = retriever.retrieve(release, [Request(user="u", k=10, events=(event("u", "i2", NOW + 1),))])[0]
    retriever.store.append([event("u", "i2", NOW + 1)])
    stored = retriever.retrieve(release, [Request(user="u", k=10)])[0]
    assert inline == stored
    assert before.items != stored.items
    assert (before.history, stored.history) == (1, 2)


def test_inline_profile_values_replace_stored_ones(release: Release, retriever: Retriever) -> None:
    retriever.store.put_profiles({"u": {"country": "cn", "age": 30}})
    stored = retriever.retrieve(release, [Request(user="u", k=10)])[0]
    same = retriever.retrieve(release, [Request(user="u", k=10, profile={"country": "cn"})])[0]
    other = retriever.retrieve(release, [Request(user="u", k=10, profile={"country": "fr"})])[0]
    assert stored == same
    assert stored.scores != other.scores


def test_items_this_release_does_not_know_are_passed_over_and_named(release: Release, retriever: Retriever) -> None:
    known = retriever.retrieve(release, [Request(k=10, events=(event("", "i1"),))])[0]
    mixed = retriever.retrieve(release, [Request(k=10, events=(event("", "new film"), event("", "i1")))])[0]
    assert mixed.unknown_items == ["new film"]
    assert mixed.items == known.items


def test_only_the_newest_events_reach_the_tower(release: Release, retriever: Retriever) -> None:
    long = tuple(event("", f"i{i}", NOW + i) for i in range(30))
    wide = retriever.retrieve(release, [Request(k=10, events=long, exclude_seen=False)])[0]
    narrow = retriever.retrieve(release, [Request(k=10, events=long[-8:], exclude_seen=False)])[0]
    assert wide.items == narrow.items
    assert wide.history == narrow.history == 8


def test_cards_come_with_the_fields_asked_and_missing_ones_are_marked(release: Release, retriever: Retriever) -> None:
    retriever.store.put_cards({"i0": {"title": "zero", "cover": "0.png"}})
    request = Request(k=2, hydrate=("title", "price"))
    assert retriever.retrieve(release, [request])[0].cards == [{"title": "zero"}, None]
    assert retriever.retrieve(release, [replace(request, hydrate=("*",))])[0].cards == [
        {"title": "zero", "cover": "0.png"},
        None,
    ]
    assert retriever.retrieve(release, [replace(request, hydrate=())])[0].cards is None


def test_of_cards_only_what_some_request_needs_is_read_and_each_shows_its_own(
    release: Release, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_cards({f"i{at}": {"title": f"t{at}", "kind": at % 3, "cover": "c"} for at in range(60)})
    asked: list[tuple[str, ...] | None] = []
    read = store.cards

    def cards(items: Sequence[str], fields: tuple[str, ...] | None = None) -> list[Card | None]:
        asked.append(fields)
        return read(items, fields)

    monkeypatch.setattr(store, "cards", cards)
    title, cover, none = Request(k=2, hydrate=("title",)), Request(k=2, hydrate=("cover", "price")), Request(k=2)
    other = replace(title, diversity=Diversity(1.0, "kind"))
    for requests, fields in (
        ([title], ("title",)),
        ([title, none, cover], ("title", "cover", "price")),
        ([other], ("title", "kind")),
        ([title, replace(cover, hydrate=("*", "title"))], None),
    ):
        shown = [answer.cards for answer in Retriever(store).retrieve(release, requests)]
        assert asked.pop() == fields
        for request, of_it in zip(requests, shown, strict=True):
            names = {"title", "kind", "cover"} if "*" in request.hydrate else {*request.hydrate} - {"price"}
            assert of_it is None if not names else [set(card or ()) for card in of_it or ()] == [names] * 2


def test_diversity_is_chosen_among_four_times_as_many(release: Release, retriever: Retriever) -> None:
    """The greedy choice of `diverse` over the best 4k by score, with each item's own score, interest and card."""
    retriever.store.put_cards({f"i{i}": {"kind": f"kind {i % 3}"} for i in range(60) if i != 7})
    retriever.store.append([event("u", "i1")])
    plain = retriever.retrieve(release, [Request(user="u", k=20)])[0]
    kinds = np.array([int(item[1:]) % 3 if item != "i7" else UNKNOWN for item in plain.items], np.int32)
    for weight in (0.0, 0.4, 50.0):
        asked = Request(user="u", k=5, diversity=Diversity(weight, "kind"), hydrate=("kind",))
        answer = retriever.retrieve(release, [asked])[0]
        places = diverse(np.array(plain.scores, np.float32), kinds, 5, weight)
        assert answer.items == [plain.items[at] for at in places]
        assert answer.scores == [plain.scores[at] for at in places]
        assert answer.cards == [{"kind": f"kind {kinds[at]}"} if kinds[at] >= 0 else None for at in places]
    assert retriever.retrieve(release, [replace(asked, hydrate=())])[0].cards is None
    many = retriever.retrieve(release, [asked, Request(user="u", k=20)])
    assert many == [answer, plain]
    most = retriever.retrieve(release, [replace(asked, k=59)])[0]
    assert sorted(most.items) == sorted({f"i{i}" for i in range(60)} - {"i1"})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"user": 7}, r"user: 7; expected text, as all ids are"),
        ({"hydrate": "title"}, r"hydrate: 'title' is text; expected a tuple of texts: \('title',\)"),
        ({"exclude": "i3"}, r"exclude: 'i3' is text"),
        ({"channels": "deep"}, r"channels: 'deep' is text"),
    ],
)
def test_text_where_several_are_meant_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Request(**wrong)


def test_a_release_says_in_a_line_what_it_is(release: Release) -> None:
    named = replace(release, manifest={"model": {"use": "youtube_dnn:YouTubeDNN"}})
    assert repr(named) == "<release 20260101-000000-aaaa: 60 items by YouTubeDNN, 16 numbers each>"
    assert repr(release) == "<release 20260101-000000-aaaa: 60 items by a model, 16 numbers each>"


def test_diversity_by_what_no_card_has_is_refused_by_place(release: Release, retriever: Retriever) -> None:
    asked = Request(k=3, profile={"country": "cn"}, diversity=Diversity(1.0, "genre"))
    with pytest.raises(RequestError, match=r"^diversity\.by: no candidate's card has the field 'genre'"):
        retriever.retrieve(release, [asked])
    with pytest.raises(RequestError, match=r"^requests\[1\]\.diversity\.by: no candidate's card"):
        retriever.retrieve(release, [Request(k=3), asked])


@pytest.mark.parametrize("k", [0, -1, 61])
def test_a_k_that_cannot_be_is_refused(release: Release, retriever: Retriever, k: int) -> None:
    with pytest.raises(RequestError, match=rf"k: {k}; expected 1 to 60, the catalogue of release"):
        retriever.retrieve(release, [Request(k=k)])


class Counting:
    """A store that counts its round trips."""

    def __init__(self, store: Store) -> None:
        self.store, self.trips = store, 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        self.trips += 1
        method: Callable[..., object] = getattr(self.store, name)
        return method


def test_a_request_makes_at_most_two_round_trips(release: Release, store: Store) -> None:
    counting = Counting(store)
    Retriever(counting).retrieve(release, [Request(user=f"u{i}", k=5, hydrate=("title",)) for i in range(4)])  # type: ignore[arg-type]
    assert counting.trips == 2
    store.put_cards({"i3": {"title": "three"}})
    counting.trips = 0
    diversity = Diversity(1.0, "title")
    Retriever(counting).retrieve(release, [Request(user="u1", k=20, hydrate=("title",), diversity=diversity)])  # type: ignore[arg-type]
    assert counting.trips == 2


@pytest.fixture
def full(release: Release, data: Prepared) -> Release:
    """The release with the tables of the channels that can be published without a baseline."""
    found = {
        name: one.tables(data, lambda baseline, keep: {}) for name, one in (("fresh", Fresh()), ("recent", RECENT))
    }
    return replace(release, tables=found)


RECENT = Popular(days=0.2, segment="country")
EVERYTHING = Online(channels={"recent": RECENT, "welcome": Listed(("i44", "i33")), "last": ItemToItem(1)})
ALL = ("deep", "popular", "item_to_item", "fresh", "recent", "welcome", "last")


@pytest.fixture
def everything(store: Store) -> Retriever:
    store.append([event("u", f"i{i}", NOW + i) for i in (3, 30, 13, 31)])
    store.put_profiles({"u": {"country": "cn"}})
    store.put_cards({f"i{i}": {"title": f"title {i}", "kind": i % 3} for i in range(60)})
    return Retriever(store, online=EVERYTHING)


def test_two_round_trips_with_everything_on_and_many_requests(full: Release, everything: Retriever) -> None:
    counting = Counting(everything.store)
    asked = Request(
        user="u", k=9, channels=ALL, merge=Quota({"fresh": 1, "deep": 2}), deadline_ms=60_000, explain=True,
        hydrate=("title",), diversity=Diversity(0.5, "kind"), filter="title != 'title 9'", exclude=("i8",),
    )  # fmt: skip
    many = replace(everything, store=counting)  # type: ignore[arg-type]
    for requests in ([asked], [asked, replace(asked, user="stranger"), replace(asked, channels=(), merge=None)]):
        counting.trips = 0
        answers = many.retrieve(full, requests)
        assert counting.trips == 2
        assert [len(answer.items) for answer in answers] == [9] * len(requests)


SETS = ((), *((name,) for name in ALL), *combinations(ALL, 2), ALL)


@pytest.mark.parametrize("user", ["u", "seen only", "stranger", ""], ids=lambda user: user or "nobody")
def test_at_most_two_round_trips_whatever_is_asked_of_whom(full: Release, everything: Retriever, user: str) -> None:
    """One for users and one for cards, where they are wanted: for every set of channels, whoever stands in, with and
    without cards, explanation and diversity."""
    everything.store.append([event("seen only", "never heard of")])
    counting = Counting(everything.store)
    many = replace(everything, store=counting)  # type: ignore[arg-type]
    stood_in = 0
    for channels, hydrate, explain, diversity in product(
        SETS, ((), ("title",)), (False, True), (None, Diversity(0.5, "kind"))
    ):
        counting.trips = 0
        asked = Request(user, k=3, channels=channels, hydrate=hydrate, explain=explain, diversity=diversity)
        (answer,) = many.retrieve(full, [asked])
        assert counting.trips == bool(user) + bool(hydrate or diversity), asked
        assert len(answer.items) == 3
        stood_in += "popular" in answer.channel and "popular" not in channels
    assert (stood_in > 0) == (user != "u")


def test_every_channel_and_merge_keeps_out_what_is_seen_excluded_or_filtered(
    full: Release, everything: Retriever
) -> None:
    request = Request(user="u", k=30, exclude=("i44", "i50"), filter="title != 'title 51'")
    out = {"i3", "i30", "i13", "i31", "i44", "i50", "i51"}
    merges = [one for one in spec.examples("zhiyin.channels") if isinstance(one, Merge)]
    asked = [replace(request, channels=(name,)) for name in ALL]
    asked += [replace(request, channels=ALL, merge=how) for how in merges]
    for answer in everything.retrieve(full, asked):
        assert len(answer.items) == 30, answer.channel
        assert not out & set(answer.items)


def test_several_channels_are_one_list_and_each_candidate_says_where_it_came_from(
    full: Release, everything: Retriever
) -> None:
    alone = {name: everything.retrieve(full, [Request(user="u", k=12, channels=(name,))])[0] for name in ALL}
    answer = everything.retrieve(full, [Request(user="u", k=12, channels=ALL, merge=RRF(9))])[0]
    worth = {
        item: sum(1 / (9 + one.items.index(item) + 1) for one in alone.values() if item in one.items)
        for one in alone.values() for item in one.items
    }  # fmt: skip
    assert answer.channel == "+".join(ALL)
    np.testing.assert_allclose(answer.scores, sorted(worth.values(), reverse=True)[:12], atol=1e-5)
    assert answer.sources is not None
    for item, sources in zip(answer.items, answer.sources, strict=True):
        assert [one.channel for one in sources] == [name for name in ALL if item in alone[name].items]
        for one in sources:
            assert alone[one.channel].items[one.rank - 1] == item
            assert alone[one.channel].scores[one.rank - 1] == one.score
    assert everything.retrieve(full, [Request(user="u", k=12)])[0].sources is None


def test_diversity_is_chosen_among_what_was_merged(full: Release, everything: Retriever) -> None:
    request = Request(user="u", k=5, channels=("deep", "fresh"), merge=RoundRobin())
    pool = everything.retrieve(full, [replace(request, k=20)])[0]
    kinds = np.array([int(item[1:]) % 3 for item in pool.items], np.int32)
    answer = everything.retrieve(full, [replace(request, diversity=Diversity(0.2, "kind"), explain=True)])[0]
    places = diverse(np.array(pool.scores, np.float32), kinds, 5, 0.2)
    assert places.tolist() != [0, 1, 2, 3, 4]
    assert answer.items == [pool.items[at] for at in places]
    assert pool.sources is not None
    assert answer.sources == [pool.sources[at] for at in places]
    told = everything.retrieve(full, [replace(request, k=20, explain=True)])[0].pulls
    assert told is not None
    assert answer.pulls == [told[at] for at in places]


def test_the_service_says_what_is_asked_by_default(full: Release, everything: Retriever) -> None:
    chosen = replace(EVERYTHING, ask=("deep", "fresh"), merge=Quota({"deep": 1, "fresh": 1}))
    asked = Request(user="u", k=8)
    named = replace(asked, channels=("deep", "fresh"), merge=Quota({"deep": 1, "fresh": 1}))
    assert replace(everything, online=chosen).retrieve(full, [asked]) == everything.retrieve(full, [named])


def test_whom_a_channel_does_not_know_the_cold_channel_serves(full: Release, everything: Retriever) -> None:
    """In the place of each that knows nothing, once."""
    cold = replace(everything, online=replace(EVERYTHING, cold="welcome"))
    assert cold.retrieve(full, [Request(k=3)])[0].items == ["i44", "i33", "i0"]
    answer = cold.retrieve(full, [Request(k=4, channels=("deep", "item_to_item", "fresh"), merge=RoundRobin())])[0]
    assert answer.channel == "welcome+fresh"
    assert answer.items[::2] == ["i44", "i33"]
    shares = Quota({"deep": 3, "fresh": 1})
    answer = cold.retrieve(full, [Request(k=4, channels=("deep", "fresh"), merge=shares)])[0]
    assert answer.sources is not None
    assert [own[0].channel for own in answer.sources] == ["welcome", "welcome", "fresh", "welcome"]
    told = Request(k=4, profile={"country": "cn"}, channels=("deep", "item_to_item"))
    assert cold.retrieve(full, [told])[0].channel == "deep+welcome", "a profile is enough for the towers alone"
    towers = replace(everything, online=replace(EVERYTHING, cold="deep"))
    assert towers.retrieve(full, [Request(k=3)])[0].channel == "deep"


def test_an_explanation_names_the_nearest_of_the_history(full: Release, everything: Retriever) -> None:
    answer = everything.retrieve(full, [Request(user="u", k=6, explain=True, exclude_seen=False)])[0]
    vectors = np.asarray(full.vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert answer.pulls is not None
    for item, pulls in zip(answer.items, answer.pulls, strict=True):
        near = {f"i{row}": float(unit[int(item[1:])] @ unit[row]) for row in (31, 13, 30, 3) if item != f"i{row}"}
        wanted = sorted(near, key=lambda one: -near[one])[:3]
        assert [pull.item for pull in pulls] == wanted
        np.testing.assert_allclose([pull.similarity for pull in pulls], [near[one] for one in wanted], atol=1e-4)
    assert answer.interests == [0] * 6
    stranger = everything.retrieve(full, [Request(k=3, explain=True)])[0]
    assert (stranger.pulls, stranger.interests) == ([[], [], []], [UNKNOWN] * 3)
    assert everything.retrieve(full, [Request(user="u", k=6)])[0].pulls is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"channels": ("deep", "deap")},
            r"channels\[1\]: there is no channel 'deap' \(did you mean 'deep'\?\); expected",
        ),
        ({"channels": ("deep", "deep")}, r"channels\[1\]: 'deep' stands here twice"),
        ({"deadline_ms": 0.0}, r"deadline_ms: 0; expected a number above 0"),
        ({"deadline_ms": float("nan")}, r"deadline_ms: nan"),
        ({"merge": Quota({"fresh": 1})}, r"merge\.shares: 'fresh' is not asked; expected one of deep"),
    ],
)
def test_what_cannot_be_asked_of_channels_is_refused_by_its_place(
    full: Release, everything: Retriever, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=f"^{said}"):
        everything.retrieve(full, [Request(user="u", k=3, **changes)])
    with pytest.raises(RequestError, match=rf"^requests\[1\]\.{said}"):
        everything.retrieve(full, [Request(user="u", k=3), Request(user="u", k=3, **changes)])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ask": ()}, r"^\.ask: \[\]; expected channels, at least one, each once"),
        ({"ask": ("deep", "deep")}, r"^\.ask: \['deep', 'deep'\]"),
        ({"ask": ("deep", "frsh")}, r"^\.ask\[1\]: there is no channel 'frsh' \(did you mean 'fresh'\?\)"),
        ({"cold": "nothing"}, r"^\.cold: there is no channel 'nothing'"),
        ({"merge": Quota({"deap": 1})}, r"^\.merge\.shares: there is no channel 'deap'"),
        ({"deadline_ms": -1.0}, r"^\.deadline_ms: -1; expected milliseconds"),
        ({"channels": {"../up": Deep()}}, r"^\.channels: '\.\./up'; expected letters, digits"),
    ],
)
def test_what_cannot_be_in_online_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Online(**changes)


def test_a_channel_may_take_a_built_in_ones_name() -> None:
    mine: Channel = Popular(days=1)
    assert Online(channels={"popular": mine}).channel("popular") is mine


def test_a_release_gives_the_trained_models_vectors(release: Release, examples: Examples, split: Split) -> None:
    assert torch.equal(torch.from_numpy(np.array(release.popular)), torch.arange(60, dtype=torch.int32))
    assert release.vectors.shape == (60, 16)


def test_a_request_is_of_age_0_and_of_its_own_time_whatever_its_context_says(
    release: Release, retriever: Retriever
) -> None:
    request = Request(events=(event("", "i3"),), k=10, time=NOW)
    plain = retriever.retrieve(release, [request])
    assert retriever.retrieve(release, [replace(request, context={"age": 10**12, "time": 0})]) == plain
    assert retriever.retrieve(release, [replace(request, time=NOW + 6 * 3_600_000)]) != plain, "the hour has an effect"
