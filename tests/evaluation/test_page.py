"""The page: valid, whole in itself, true to its JSON, and no wider than a phone; looked at by a real browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zhiyin.baselines.item_knn import ItemKNN
from zhiyin.baselines.popularity import Popularity
from zhiyin.data.splits import TimeCut
from zhiyin.data.worlds import tastes
from zhiyin.evaluation.analysis import analyse, training_events
from zhiyin.evaluation.embedding import embedding, titles
from zhiyin.evaluation.lists import one_hot
from zhiyin.evaluation.look import COLOURS, STYLE
from zhiyin.evaluation.page import page
from zhiyin.evaluation.plots import WIDTH, Axis, number
from zhiyin.evaluation.progress import progress
from zhiyin.evaluation.report import measure
from zhiyin.evaluation.through import EndToEnd

VOID = {"meta"}
"""What HTML leaves open; SVG closes its own."""

FILTER = 'price < 20 & <so> and category in ["one", "another", "a third one of these"] and not missing(colour)'

THROUGH = (
    EndToEnd("", 1.0, 1.0, 5, 120, 0.21, 0.22, 0.99, 0.5),
    EndToEnd("", 1.0, 1.0, 20, 120, 0.4567, 0.4678, 0.9876, 0.25),
    EndToEnd(FILTER, 0.125, 0.251, 20, 31, 0.5, 1.0, 0.75, 0.0123),
)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = tastes(users=120, items=90, groups=9, events_per_user=12, seed=0, interests=3).data
    split = TimeCut().split(data.events, True)
    names = ("kNN & <friends>", "recent item-kNN", "kNN with few neighbours", "kNN with much shrinkage")
    specs: tuple[Any, ...] = (
        ItemKNN(),
        ItemKNN(half_life=3),
        ItemKNN(neighbours=3),
        ItemKNN(shrinkage=99),
        Popularity(),
    )
    scorers = {name: spec.fit(data, split) for name, spec in zip((*names, "popularity"), specs, strict=True)}
    measured = measure(scorers, data, split.test, ks=(5, 20, 50), split_words="test of " + split.words)
    traits = one_hot(data.item_table["category"])
    found = analyse(measured, data, split, columns=("country", "category"), traits=traits)
    vectors = np.random.default_rng(0).normal(size=(90, 8)).astype(np.float32)
    called = [f"Film <{row}>" for row in range(90)]
    popularity = training_events(data, split)
    found["embedding"] = embedding(vectors, popularity, data.item_table["category"], "category", called)
    log = tmp_path_factory.mktemp("run") / "log.jsonl"
    log.write_text("".join(line + "\n" for line in training_log()))
    found["training"] = progress(log, "recall@50")
    points = [{"effort": e, "overlap": 1 - 1 / e, "milliseconds": e / 100} for e in (4, 8, 16)]
    found["index"] = {"name": "HNSW", "knob": "ef_search", "effort": 8, "k": 20, "queries": 99, "points": points}
    found["release"] = "20260101-<x>"
    found["through"] = [asdict(one) for one in THROUGH]
    plain: dict[str, Any] = json.loads(json.dumps(found, allow_nan=False))
    return plain


def training_log() -> Iterator[str]:
    for step in range(1, 1001):
        recall = None if step < 300 else 0.1 * (step // 300)
        yield json.dumps({"epoch": step / 300, "loss": 7 - step / 1000, "recall": recall})


@pytest.fixture(scope="module")
def html(document: dict[str, Any]) -> str:
    return page(document, "it & <its> friends")


class Reader(HTMLParser):
    """Every tag is closed in its turn; collects what the tables and tooltips say."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = [[]]
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th", "small"):
            self.rows[-1].append("")
        if tag == "title":
            self.titles.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th", "small"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] == "title":
            self.titles[-1] += data


@pytest.fixture(scope="module")
def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    return reader


def test_every_tag_is_closed_and_names_are_text(html: str, read: Reader) -> None:
    assert html.startswith("<!doctype html>")
    assert not read.open
    assert "<friends>" not in html
    assert "it &amp; &lt;its&gt; friends" in html


def test_nothing_is_fetched_and_nothing_runs(html: str, read: Reader) -> None:
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link|<iframe|\bon[a-z]+=", html)
    for _, attributes in read.tags:
        assert not {"src", "href", "xlink:href", "srcset", "action"} & set(attributes)


def test_the_tables_say_what_the_json_says(read: Reader, document: dict[str, Any]) -> None:
    lines = {row[0]: row[1:] for row in read.rows if row}
    scorers = list(document["metrics"])
    for name in ("recall@20", "ndcg@50", "map@5", "coverage@20"):
        figures = [document["intervals"][scorer].get(name) for scorer in scorers]
        if figures[0] is None:  # coverage is of all lists together and has no interval
            assert lines[name] == [number(document["lists"][scorer][name]) for scorer in scorers]
            continue
        expected = [[number(mean), f"{number(low)} – {number(high)}"] for mean, low, high in figures]
        assert lines[name] == [cell for pair in expected for cell in pair]
    added = document["increments"]
    assert lines["popularity"] == [number(added["alone"]["popularity"]), number(added["adds"]["popularity"])]
    assert lines["all together"][0] == number(added["union"])


def test_every_point_tells_its_number(read: Reader, document: dict[str, Any]) -> None:
    titles = set(read.titles)
    for scorer, curve in document["curves"].items():
        for k, (mean, low, high) in curve.items():
            assert f"{scorer}, k candidates {k}: {number(mean)} [{number(low)}, {number(high)}]" in titles
    for one in document["slices"]:
        for part in one["parts"]:
            for scorer, row in part["scorers"].items():
                mean, low, high = row["recall@20"]
                assert f"{part['name']} · {scorer}: {number(mean)} [{number(low)}, {number(high)}]" in titles
    for epoch, recall in document["training"]["validation"]:
        assert f"recall@50, epoch {number(epoch)}: {number(recall)}" in titles
    for name, (_, _, code) in zip(document["embedding"]["names"], document["embedding"]["points"], strict=True):
        assert f"{name}: {document['embedding']['categories'][code]}" in titles
    for point in document["index"]["points"]:
        assert f"HNSW, milliseconds a query {number(point['milliseconds'])}: {number(point['overlap'])}" in titles


def test_what_reaches_users_is_told_for_the_k_of_the_page_and_each_filter(read: Reader, html: str) -> None:
    assert "index of release 20260101-&lt;x&gt;, 20 candidates each" in html
    lines = [row for row in read.rows if row and row[0] in ("no filter", FILTER)]
    assert lines == [
        ["no filter", "0.4678", "0.4567", "0.9876", "100.0%", "100.0%", "120", "0.25"],
        [FILTER, "1.0000", "0.5000", "0.7500", "12.5%", "25.1%", "31", "0.0123"],
    ]


def test_more_scorers_than_colours_can_still_be_told_apart(document: dict[str, Any]) -> None:
    """The ninth has the first one's colour, dashed and hollow; nobody is drawn without a colour."""
    names = [f"scorer {number}" for number in range(COLOURS + 2)]
    many = json.loads(json.dumps(document))
    for part in (many, many["popularity"]):
        for key in {"metrics", "intervals", "curves", "lists", "scorers"} & set(part):
            one = next(iter(part[key].values()))
            part[key] = dict.fromkeys(names, one)
    for one in many["slices"]:
        for part in one["parts"]:
            part["scorers"] = (
                dict.fromkeys(names, next(iter(part["scorers"].values()), None)) if part["queries"] else {}
            )
    many["differences"] = dict.fromkeys(names, next(iter(many["differences"].values())))
    html = page(many)
    chips = re.findall(r'<li><i class="([^"]+)"></i>scorer (\d+)', html)
    assert {int(name): look for look, name in chips} == {
        **{at: f"s{at}" for at in range(COLOURS)},
        COLOURS: "s0 more",
        COLOURS + 1: "s1 more",
    }
    drawn = set(re.findall(r'class="(?:line|dot|band|whisker) ([^"]+)"', html))
    assert drawn == {look for look, _ in chips}
    assert all(f".line.s{at}" in STYLE and f".dot.more.s{at}" in STYLE for at in range(COLOURS))


def test_the_headline_and_the_protocol(html: str, document: dict[str, Any]) -> None:
    text = unescape(re.sub(r"<[^>]+>", "", html))
    mine = document["metrics"]["kNN & <friends>"]["recall@20"]
    assert f"Among 20 candidates, kNN & <friends> finds {mine:.1%} of what users did next." in text
    others = {name: row["recall@20"] for name, row in document["metrics"].items() if name != "kNN & <friends>"}
    best = max(others, key=lambda name: others[name])
    gap = document["differences"][best]["recall@20"]["difference"]
    assert f"{abs(gap) * 100:.1f} points {'more' if gap >= 0 else 'fewer'} than {best}" in text
    assert document["protocol"][1:] in text


def test_what_is_not_there_is_left_out(document: dict[str, Any]) -> None:
    bare = {name: part for name, part in document.items() if name not in ("training", "embedding", "index", "through")}
    html = page(bare)
    for title in ("Training", "Map of the items", "The index", "What reaches users"):
        assert f"<h2>{title}</h2>" not in html
        assert f"<h2>{title}</h2>" in page(document)


def test_one_scorer_alone_has_a_page_too(document: dict[str, Any]) -> None:
    alone = json.loads(json.dumps(document))
    parts = [alone[name] for name in ("metrics", "intervals", "curves", "lists")] + [alone["popularity"]["scorers"]]
    parts += [part["scorers"] for one in alone["slices"] for part in one["parts"]] + [alone["increments"]["adds"]]
    for part in parts:
        for name in [name for name in part if name != "kNN & <friends>"]:
            del part[name]
    alone["differences"] = {}
    assert "points more" not in page(alone)


def test_the_training_log_is_thinned_and_a_new_run_starts_over(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert progress(log, "recall@50") is None
    log.write_text('{"epoch": 0.5, "loss": 99.0, "recall": null}\n' + "".join(f"{line}\n" for line in training_log()))
    found = progress(log, "recall@50")
    assert found is not None
    assert len(found["loss"]) <= 300
    assert found["loss"][0] == [1 / 300, 7 - 1 / 1000]
    assert [round(recall, 1) for _, recall in found["validation"]] == [0.1, 0.2, 0.3]
    assert [round(epoch, 2) for epoch, _ in found["validation"]] == [1, 2, 3]


def test_the_map_is_the_plane_of_most_variance() -> None:
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(200, 6)) * [1, 9, 1, 5, 1, 1] + 3).astype(np.float32)
    found = embedding(vectors, np.arange(200), None, "", [f"item {row}" for row in range(200)])
    assert found["names"] == [f"item {row}" for row in range(199, -1, -1)]  # the most popular first, as the points
    order = np.arange(200)[::-1]
    points = np.array([[x, y] for x, y, _ in found["points"]])
    for axis, column in ((0, 1), (1, 3)):
        assert abs(np.corrcoef(points[:, axis], vectors[order, column])[0, 1]) > 0.95
    spread = np.linalg.eigvalsh(np.cov(vectors.T))[::-1]
    np.testing.assert_allclose(found["explained"], spread[:2] / spread.sum(), rtol=1e-4)
    kinds = np.array([f"c{min(row % 12, 9)}" for row in range(200)], object)
    named = embedding(vectors, np.arange(200), kinds, "kind", [""] * 200)
    assert named["categories"][0] == "c9"
    assert (len(named["categories"]), named["categories"][-1]) == (8, "other")
    for (_, _, code), row in zip(named["points"], order, strict=True):
        assert named["categories"][code] in (kinds[row], "other")


def test_items_are_called_by_a_text_that_tells_them_apart() -> None:
    ids = [f"i{row}" for row in range(20)]
    several = np.array([f"Film {row % 18}" for row in range(20)], object)  # 18 of 20: too often the same
    film = np.array([f"Film {row % 19}" for row in range(19)] + [None], object)
    numbers, tags = np.arange(20), np.array([["a", f"b{row}"] for row in range(20)] + [None], object)[:20]
    assert titles(ids, {"year": numbers, "tags": tags, "series": several, "title": film}) == [
        *(f"Film {row} (i{row})" for row in range(19)),
        "i19",
    ]
    assert titles(ids, {"year": numbers, "series": several}) == ids


@pytest.mark.parametrize(
    "axis",
    [
        Axis(0, 0.7, 0, 1),
        Axis(0, 1.02, 0, 1),
        Axis(3.1, 9.4, 0, 1),
        Axis(1, 100, 0, 1, log=True),
        Axis(1, 1000, 0, 1, log=True),
        Axis(0.05, 0.13, 0, 1, log=True),
        Axis(0, 0, 0, 1),
    ],
)
def test_ticks_are_round_and_inside(axis: Axis) -> None:
    ticks = axis.ticks()
    assert all(axis.low - 1e-9 <= tick <= axis.high + 1e-9 for tick in ticks)
    assert 2 <= len(ticks) <= 10 or axis.low == axis.high
    assert all(len(f"{tick:g}") <= 5 for tick in ticks)


def test_there_are_enough_ticks_to_read_a_value_by() -> None:
    assert Axis(0, 1.02, 0, 1).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert Axis(1, 500, 0, 1, log=True).ticks() == [1, 2, 5, 10, 20, 50, 100, 200, 500]
    assert Axis(1, 10**6, 0, 1, log=True).ticks() == [10**power for power in range(7)]
    assert len(Axis(0.05, 0.13, 0, 1, log=True).ticks()) > 2


def test_ticks_of_epochs_are_whole() -> None:
    for epochs in (8, 11, 12, 14, 20, 50):
        assert all(tick == int(tick) for tick in Axis(0, epochs, 0, 1).ticks())


def test_the_look_that_chose_the_step_is_ringed(document: dict[str, Any]) -> None:
    found = dict(document["training"], validation=[[1, 0.1], [2, 0.43], [3, 0.2]])
    html = page({**document, "training": found})
    rings = re.findall(r'<circle class="chosen" cx="([\d.]+)" cy="([\d.]+)" r="6"/><text[^>]*>([^<]+)<', html)
    (x, y, told), (index_x, index_y, effort) = rings
    assert f'cx="{x}" cy="{y}" r="2.6"><title>recall@50, epoch 2: 0.4300</title>' in html
    assert told == "0.4300"
    assert f'cx="{index_x}" cy="{index_y}" r="2.6"><title>HNSW, milliseconds a query 0.0800: 0.8750</title>' in html
    assert effort == "ef_search 8"


def test_the_words_of_a_ring_stay_inside_and_off_the_line(document: dict[str, Any]) -> None:
    for looks in ([[1, 0.5], [2, 0.4]], [[1, 0.1], [20, 0.5]], [[1, 0.1], [10, 0.5], [20, 0.4]]):
        html = page({**document, "training": dict(document["training"], validation=looks, loss=[[20, 1.0]])})
        ring = re.search(
            r'class="chosen" cx="([\d.]+)" cy="([\d.]+)" r="6"/><text class="label" x="([\d.]+)" y="([\d.]+)"', html
        )
        assert ring is not None
        _, y, at, base = map(float, ring.groups())
        assert 30 <= at <= WIDTH - 30
        assert 10 < base < y  # above the highest point there is no line


def test_the_digits_of_a_line_are_alike(document: dict[str, Any]) -> None:
    lists = {
        name: {**row, "popularity lift@20": at * 0.4 + 0.5} for at, (name, row) in enumerate(document["lists"].items())
    }
    reader = Reader()
    reader.feed(page({**document, "lists": lists}))
    lifts = next(row[1:] for row in reader.rows if row and row[0] == "popularity lift@20")
    assert lifts == [f"{row['popularity lift@20']:.2f}" for row in lists.values()]


def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    assert found, "this test needs a browser: apt-get install chromium"
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_finds_nothing_wider_than_the_screen(html: str, scheme: str, tmp_path: Path) -> None:
    """Laid out at 1280 and at 400 pixels, the page scrolls down only, and its text can be read on its ground."""
    frames = "".join(
        f'<iframe width="{width}" height="600" srcdoc="{_quoted(html)}"></iframe>' for width in (1280, 400)
    )
    script = """<script>addEventListener("load", () => { const frames = [...document.querySelectorAll("iframe")];
      const told = frames.map(f => {
      const d = f.contentDocument, w = f.contentWindow, s = w.getComputedStyle(d.documentElement);
      const wide = [...d.querySelectorAll("section, h1, svg, .big, .key, dl")].filter(
        e => e.getBoundingClientRect().right > w.innerWidth + 1).length;
      const hiding = [...d.querySelectorAll("table")].filter(  // the first column stays while the others scroll
        t => t.querySelector("td").offsetWidth > t.parentElement.clientWidth / 2).length;
      return [w.innerWidth, d.documentElement.scrollWidth, wide, hiding, d.querySelectorAll("svg").length, s.color,
        s.backgroundColor].join(";"); });
      document.body.innerHTML = "<pre>" + told.join("\\n") + "</pre>"; });</script>"""
    wrapper = tmp_path / "frames.html"
    wrapper.write_text(f"<!doctype html><meta charset=utf-8><body>{frames}{script}</body>")
    quiet = ("background-networking", "component-update", "sync", "gpu", "dev-shm-usage")
    command = [browser(), "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
    command += [
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme == 'light':d}",
    ]
    done = subprocess.run(
        [*command, "--dump-dom", wrapper.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    told = re.search(r"<pre>(.+?)</pre>", done.stdout, re.S)
    assert told, done.stderr
    lines = [line.split(";") for line in told[1].splitlines()]
    assert [int(line[0]) for line in lines] == [1280, 400]
    for width, scrolled, wide, hiding, drawings, ink, paper in lines:
        assert int(scrolled) <= int(width)
        assert (int(wide), int(hiding)) == (0, 0)
        assert int(drawings) == html.count("<svg")
        assert contrast(ink, paper) > 7
        assert (int(re.findall(r"\d+", paper)[0]) < 128) == (scheme == "dark")


def _quoted(html: str) -> str:
    return html.replace("&", "&amp;").replace('"', "&quot;")


def contrast(one: str, other: str) -> float:
    """WCAG 2: (lighter + 0.05) / (darker + 0.05) of relative luminance."""

    def luminance(colour: str) -> float:
        channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)
