"""Fresh, replaced and deleted items over a release, against a plain dictionary of what should be there."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from zhiyin.data.prepared import Prepared
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.filters.bitmap import allowed
from zhiyin.indexes.base import Vectors
from zhiyin.indexes.exact import Exact
from zhiyin.indexes.ivf import IVFFlat
from zhiyin.learning.examples import Examples
from zhiyin.models.base import Items
from zhiyin.models.youtube_dnn import YouTubeDNN
from zhiyin.release import Release
from zhiyin.retriever import Request, Retriever
from zhiyin.service.overlay import Overlay, as_of, item_vectors
from zhiyin.stores.base import Change, Event
from zhiyin.stores.memory import Memory

Publisher = Callable[..., Release]

KNOWN = [f"i{row}" for row in range(60)]
NEW = ["n0", "n1", "\r\n", "a/b?*{}", "知"]
IDS = [*KNOWN[:6], *NEW]
values = st.fixed_dictionaries(
    {}, optional={"tags": st.lists(st.sampled_from("abcz"), max_size=3), "title": st.sampled_from(["t", "title 3", ""])}
)
PASSES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "": lambda told: True,
    'tags any ["a", "z"]': lambda told: bool({"a", "z"} & set(told.get("tags") or [])),
    'title == "t" or title == "title 3"': lambda told: told.get("title") in ("t", "title 3"),
    "not missing(tags)": lambda told: told.get("tags") is not None,
    'not title == "t"': lambda told: told.get("title") != "t",
}


def search(release: Release, query: Vectors, k: int, filter: str = "") -> list[tuple[str, float]]:
    hits = release.index.search(query, k, allowed(release, filter) if filter else None)
    rows = hits.rows[0][hits.rows[0] != UNKNOWN]
    return list(zip(release.items.ids(rows), hits.scores[0].tolist(), strict=False))


class OverlayMachine(RuleBasedStateMachine):
    """Each change is also made to a dictionary, item → what is known of it; the view must find just what is there."""

    release: Release
    data: Prepared

    @initialize(compact_at=st.integers(1, 6), own=st.sampled_from([Exact(), IVFFlat(nlist=2, nprobe=2)]))
    def start(self, compact_at: int, own: Any) -> None:
        self.overlay = Overlay(self.release, spec=own, compact_at=compact_at)
        self.original = dict(zip(KNOWN, self.data.item_table.records(0, 60), strict=True))
        self.model: dict[str, dict[str, Any]] = dict(self.original)
        self.changed: set[str] = set()
        self.blocked: set[str] = set()
        self.log: dict[str, Change] = {}
        self.blocks: dict[str, Change] = {}
        self.number = 0
        self.old = [(self.release, self.told(self.release))]

    def changes(self, items: list[str], time: int, told: list[dict[str, Any] | None]) -> list[Change]:
        made = []
        for item, one in zip(items, told, strict=True):
            self.number += 1
            made.append(Change(item, time, one, self.number))
            self.log.pop(item, None)
            self.log[item] = made[-1]
        return made

    @rule(items=st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True), told=st.lists(values, min_size=4))
    def put(self, items: list[str], told: list[dict[str, Any]]) -> None:
        self.overlay.apply(self.changes(items, self.late, list(told[: len(items)])))
        for item, one in zip(items, told, strict=False):
            self.model[item] = one
            self.changed.add(item)

    @rule(items=st.lists(st.sampled_from([*IDS, "never"]), min_size=1, max_size=4, unique=True))
    def delete(self, items: list[str]) -> None:
        self.overlay.apply(self.changes(items, 0, [None] * len(items)))
        for item in items:
            self.model.pop(item, None)

    @rule(items=st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True), told=values)
    def put_before_the_release_was_built(self, items: list[str], told: dict[str, Any]) -> None:
        self.overlay.apply(self.changes(items, self.early, [told] * len(items)))
        for item in items:
            self.model[item] = self.original.get(item, told)
            (self.changed.discard if item in self.original else self.changed.add)(item)

    @rule(items=st.lists(st.sampled_from([*IDS, "never"]), min_size=1, max_size=4, unique=True), told=values)
    def block(self, items: list[str], told: dict[str, Any]) -> None:
        """The last of them is put, too, in the same page."""
        self.overlay.apply(
            [*self.told_blocked(items, blocked=True), *self.changes(items[-1:], self.late, [told])]
            if items[-1] != "never"
            else self.told_blocked(items, blocked=True)
        )
        if items[-1] != "never":
            self.model[items[-1]] = told
            self.changed.add(items[-1])

    @rule(items=st.lists(st.sampled_from([*IDS, "never"]), min_size=1, max_size=8, unique=True))
    def unblock(self, items: list[str]) -> None:
        self.overlay.apply(self.told_blocked(items, blocked=False))

    def told_blocked(self, items: list[str], *, blocked: bool) -> list[Change]:
        self.blocked = self.blocked | set(items) if blocked else self.blocked - set(items)
        made = []
        for item in items:
            self.number += 1
            made.append(Change(item, 0, None, self.number, blocked))
            self.blocks[item] = made[-1]
        return made

    @property
    def there(self) -> dict[str, dict[str, Any]]:
        """What should be found."""
        return {item: told for item, told in self.model.items() if item not in self.blocked}

    @rule()
    def restart(self) -> None:
        """A new replica reads what the log still has, in pages."""
        self.overlay = Overlay(self.release, spec=Exact(), compact_at=4)
        log = sorted([*self.log.values(), *self.blocks.values()], key=lambda change: change.number)
        for at in range(0, len(log), 3):
            self.overlay.apply(log[at : at + 3])

    @rule()
    def keep_a_view(self) -> None:
        view = self.overlay.view()
        self.old = [*self.old[-2:], (view, self.told(view))]

    def told(self, view: Release) -> list[Any]:
        found = [search(view, self.query, 70, text) for text in PASSES]
        return [found, view.items.rows(IDS).tolist(), view.finds(IDS).tolist()]

    def expected(self) -> list[tuple[str, float]]:
        scores = []
        for item, told in self.there.items():
            if item in self.original and item not in self.changed:
                vector = self.release.vectors[KNOWN.index(item)]
            else:
                row = KNOWN.index(item) if item in self.original else UNKNOWN
                vector = item_vectors(self.release, np.array([row], np.int32), [told])[0]
            scores.append((item, float(vector @ self.query[0])))
        return sorted(scores, key=lambda one: -one[1])

    @invariant()
    def finds_what_is_there(self) -> None:
        if not hasattr(self, "overlay"):
            return
        view, wanted = self.overlay.view(), self.expected()
        if not self.blocked:
            assert (view is self.release) == (self.model == self.original and not self.changed)
        assert len(view.index) == len(self.there)
        assert view.blocks([*IDS, "never"]).tolist() == [
            one in self.blocked & set(self.model) for one in [*IDS, "never"]
        ]
        for text, passes in PASSES.items():
            found = search(view, self.query, 70, text)
            right = [(item, score) for item, score in wanted if passes(self.model[item])]
            assert {item for item, _ in found} == {item for item, _ in right}
            np.testing.assert_allclose([s for _, s in found], [s for _, s in right], atol=1e-5)
            if text:
                passing = view.items.ids(np.flatnonzero(allowed(view, text)))
                assert sorted(passing) == sorted(item for item, _ in right)
        assert view.items.ids(view.popular) == [item for item in KNOWN if item in self.there]
        assert view.finds([*IDS, "never"]).tolist() == [item in self.there for item in [*IDS, "never"]]

    @invariant()
    def the_last_put_of_the_fresh_stands_first(self) -> None:
        since = self.overlay.view().since if hasattr(self, "overlay") else None
        if since is not None:
            fresh = [item for item in reversed(self.log) if item in NEW and item in self.there]
            assert self.overlay.view().items.ids(since.fresh) == fresh

    @invariant()
    def a_view_that_was_taken_never_changes(self) -> None:
        for view, told in getattr(self, "old", []):
            assert self.told(view) == told

    @property
    def query(self) -> Vectors:
        return np.random.default_rng(7).standard_normal((1, 16)).astype(np.float32)

    @property
    def late(self) -> int:
        return int(as_of(self.release)) + 1

    @property
    def early(self) -> int:
        return int(as_of(self.release)) - 1


def test_a_view_is_its_model(release: Release, data: Prepared) -> None:
    Machine = type("Machine", (OverlayMachine,), {"release": release, "data": data})
    run_state_machine_as_test(Machine, settings=settings(max_examples=25, stateful_step_count=12, deadline=None))


def test_the_item_tower_gives_what_the_trained_model_gives(
    release: Release, data: Prepared, examples: Examples
) -> None:
    """Values that come as JSON are encoded by the features of training; a new item has the row of an unknown one."""
    torch.manual_seed(0)
    model = YouTubeDNN(dim=16, hidden=(32,)).build(examples.schema, len(data.items)).eval()
    records = data.item_table.records(0, 60)
    items = examples.items()
    for rows in (items.rows, torch.full_like(items.rows, UNKNOWN)):
        with torch.inference_mode():
            wanted = model.item_vectors(Items(rows, items.columns)).numpy()
        np.testing.assert_allclose(item_vectors(release, rows.numpy(), records), wanted, atol=1e-5)


def test_many_items_go_through_the_tower_in_parts_and_come_out_alike(release: Release) -> None:
    records = [{"tags": ["abc"[at % 3]]} for at in range(2500)]
    rows = np.full(2500, UNKNOWN, np.int32)
    vectors = item_vectors(release, rows, records)
    np.testing.assert_allclose(vectors[:3], item_vectors(release, rows[:3], records[:3]), atol=1e-6)
    assert (vectors == vectors[np.arange(2500) % 3]).all()


def test_what_cannot_be_placed_is_passed_over_and_the_others_are_shown(release: Release) -> None:
    """Such as what was put while another release was live: a number that this one's tower cannot hold."""

    def tower(inputs: Any) -> Vectors:
        vectors = release.item_tower(inputs)
        return np.where((inputs["tags"] == UNKNOWN).all(axis=1)[:, None], np.float32(np.inf), vectors)

    overlay = Overlay(replace(release, item_tower=tower))  # type: ignore[arg-type]
    overlay.apply([Change("n0", 2**60, {"tags": ["a"]}, 1), Change("n1", 2**60, {}, 2), Change("i3", 2**60, {}, 3)])
    assert overlay.view().finds(["n0", "n1", "i3", "i4"]).tolist() == [True, False, False, True]
    overlay.apply([Change("i3", 2**60, {"tags": ["b"]}, 4)])
    assert overlay.view().finds(["n0", "n1", "i3"]).tolist() == [True, False, True]


def test_a_release_without_item_features_shows_no_item_that_it_does_not_know(release: Release) -> None:
    """Every one of them would have the same vector."""

    def tower(inputs: Any) -> Vectors:
        return np.ones((len(inputs["rows"]), 16), np.float32)

    bare = replace(release, schema=replace(release.schema, item=()), item_tower=tower)  # type: ignore[arg-type]
    overlay = Overlay(bare)
    overlay.apply([Change("n0", 2**60, {"title": "t"}, 1)])
    assert overlay.view() is bare
    overlay.apply([Change("i3", 2**60, {"title": "t"}, 2)])
    assert overlay.view().finds(["n0", "i3"]).tolist() == [False, True]


def test_a_release_says_as_of_when_it_knows(release: Release) -> None:
    said = replace(release, manifest={"created": "2026-01-02T00:00:00+00:00", "prepared": "2026-01-01T00:00:00+00:00"})
    assert as_of(said) == 1_767_225_600_000
    assert as_of(replace(release, manifest={"created": "2026-01-02T00:00:00+00:00"})) == 1_767_312_000_000
    overlay = Overlay(replace(release, manifest={}))
    overlay.apply([Change("i3", 0, {"title": "kept"}, 1)])
    assert overlay.view().since is not None


def test_vectors_of_any_rows(release: Release) -> None:
    overlay = Overlay(release, spec=Exact(), compact_at=2)
    told = {"tags": ["a"]}
    overlay.apply([Change(item, 2**60, told, at + 1) for at, item in enumerate(["n0", "i3", "n1", "n2"])])
    overlay.apply([Change("i5", 0, None, 9), Change("n2", 0, None, 10)])
    view = overlay.view()
    rows = view.items.rows(["i2", "i3", "n0", "n1", "n2", "i5"])
    vectors = view.vectors_of(rows)
    new, replaced = item_vectors(release, np.array([UNKNOWN, 3], np.int32), [told, told])
    np.testing.assert_allclose(vectors, [release.vectors[2], replaced, new, new, 0 * new, 0 * new], atol=1e-6)
    np.testing.assert_array_equal(release.vectors_of(rows[:2]), release.vectors[2:4])


def test_an_event_with_a_fresh_item_is_seen_but_not_by_the_tower(release: Release) -> None:
    """The tower has no vector for it; an item that is gone is still part of the history."""
    store = Memory().open()
    store.append([Event("u", item, at) for at, item in enumerate(["i1", "n0", "i2", "i3"])])
    store.append([Event("only", "n0", 1)])
    overlay = Overlay(release)
    overlay.apply([Change("n0", 2**60, {"tags": ["a"]}, 1), Change("n1", 2**60, {"tags": ["a"]}, 2)])
    overlay.apply([Change("i3", 2**60, None, 3), Change("i7", 2**60, None, 4)])
    view, retriever = overlay.view(), Retriever(store)
    before = retriever.retrieve(release, [Request(user="u", k=57)])[0]
    after = retriever.retrieve(view, [Request(user="u", k=57)])[0]
    assert after.history == before.history == 3
    assert (set(after.items) - set(before.items), set(before.items) - set(after.items)) == ({"n1"}, {"i7"})
    old = dict(zip(before.items, before.scores, strict=True))
    np.testing.assert_allclose(
        [score for item, score in zip(after.items, after.scores, strict=True) if item != "n1"],
        [old[item] for item in after.items if item != "n1"],
        atol=1e-5,
    )
    assert len(retriever.retrieve(view, [Request(user="u", k=60)])[0].items) == 57
    assert len(retriever.retrieve(view, [Request(user="u", k=60, exclude_seen=False)])[0].items) == 60
    only = retriever.retrieve(view, [Request(user="only", k=62)])[0]
    assert (only.channel, len(only.items), "n1" in only.items, "n0" in only.items) == ("popular", 59, True, False)
    assert not {"i3", "i7"} & set(only.items)
    assert (
        "n0"
        not in retriever.retrieve(view, [Request(user="u", exclude=("n1",), exclude_seen=False, k=62)])[0].unknown_items
    )


def test_many_fresh_items_are_compacted_and_found_as_before(release: Release) -> None:
    overlay = Overlay(release, spec=IVFFlat(nlist=4, nprobe=4), compact_at=300)
    random = np.random.default_rng(1)
    tags = [[str(tag) for tag in random.choice(list("abc"), 2)] for _ in range(400)]
    told = [Change(f"n{at}", 2**60, {"tags": tags[at]}, at + 1) for at in range(400)]
    for at in range(0, 400, 50):
        overlay.apply(told[at : at + 50])
    query = np.random.default_rng(7).standard_normal((1, 16)).astype(np.float32)
    before = [score for _, score in search(overlay.view(), query, 40)]
    overlay._delta.compact().result(20)
    stale = overlay.stale
    view = overlay.view()
    assert (stale, overlay.stale) == (True, False)
    assert overlay._delta.generation >= 1
    np.testing.assert_allclose([score for _, score in search(view, query, 40)], before, atol=1e-5)
