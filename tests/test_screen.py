"""What a person sees: whole numbers at 80 columns, whole sentences in a file, nothing that is not for them."""

import io
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from zhiyin import screen
from zhiyin.data.datasets import DATASETS
from zhiyin.evaluation.report import Report
from zhiyin.evaluation.saved import Comparison
from zhiyin.evaluation.significance import Difference
from zhiyin.evaluation.through import EndToEnd
from zhiyin.learning.fit import Progress
from zhiyin.release import Release

SCORERS = ("YouTubeDNN", "popularity", "popularity, 7 days", "item-kNN")
METRICS = [f"{name}@{k}" for name in ("recall", "ndcg", "hit", "mrr", "coverage") for k in (10, 50, 100)]


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, highlight=False)


def pipe(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, highlight=False)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_baseline_that_finds_more_is_named_with_the_figures_and_the_way_out() -> None:
    told = screen.behind_words(report())
    assert told.startswith("item-kNN finds more than YouTubeDNN: recall@50 0.4010 against 0.1010. `zhiyin sweep`")
    backwards = replace(report(), rows=dict(reversed(list(report().rows.items()))))
    assert screen.behind_words(backwards) == ""


def test_tables_that_changed_since_the_fit_are_named_in_brackets() -> None:
    console = pipe(300)
    screen.say(console, screen.outdated_words(["features", "model"], Path("r.toml")))
    assert shown(console).startswith("[features] and [model] changed since the last fit")
    assert shown(console).endswith("zhiyin fit r.toml --fresh\n")


def report() -> Report:
    """Every number is another; hits are recalls, as with one target a query."""
    rows = {s: {m: 0.1 + i / 10 + j / 1000 for j, m in enumerate(METRICS)} for i, s in enumerate(SCORERS)}
    for row in rows.values():
        row |= {f"hit@{k}": row[f"recall@{k}"] for k in (10, 50, 100)}
    return Report("words", 9, 0, 99, rows)


@pytest.mark.parametrize("console", [terminal(80), terminal(120), pipe(80)], ids=["80", "120", "pipe"])
def test_every_metric_can_be_read_at_80_columns(console: Console) -> None:
    found = report()
    console.print(found.table())
    lines = shown(console).splitlines()
    assert max(map(len, lines)) <= console.width
    numbers = {line.split()[0]: line.split()[1:] for line in lines if "@" in line}
    assert numbers == {m: [f"{found.value(s, m):.4f}" for s in SCORERS] for m in METRICS if not m.startswith("hit@")}
    assert "…" not in shown(console)


def test_many_scorers_lose_no_digit() -> None:
    names = [*SCORERS, "EASE", "implicit ALS", "another baseline"]
    console = terminal(80)
    console.print(Report("words", 9, 0, 99, {name: {"recall@50": 0.1234} for name in names}).table())
    assert shown(console).count("0.1234") == len(names)


def test_hits_that_differ_from_recalls_are_shown() -> None:
    found = report()
    rows = {s: {**row, "hit@10": 0.9} for s, row in found.rows.items()}
    console = pipe()
    console.print(Report("words", 9, 0, 99, rows).table())
    assert "hit@10" in shown(console)
    assert "hit@50" not in shown(console)


def test_a_comparison_and_slices_can_be_read_at_80_columns() -> None:
    sure = Difference(first=0.3, second=0.4, difference=0.1, low=0.05, high=0.15, p=0.0001)
    same = Difference(first=0.3, second=0.3, difference=0.0, low=-0.01, high=0.01, p=0.8)
    metrics = {"recall@50": sure, "ndcg@50": same, "hit@50": sure, "map@50": same, "hit@10": same, "recall@10": sure}
    console = terminal(80)
    console.print(screen.comparison_table(Comparison("a", "b", 9, metrics, ()), "first", "second"))
    lines = [line.split() for line in shown(console).splitlines() if "@" in line]
    assert [line[0] for line in lines] == ["recall@50", "ndcg@50", "hit@10", "recall@10"]
    assert lines[0][1:4] == ["0.3000", "0.4000", "+0.1000"]
    assert lines[0][-2:] == ["<", "0.001"]
    assert lines[1][-1] == "0.800"
    assert "a and b: 9 queries of test, paired; the" in screen.comparison_words(Comparison("a", "b", 9, {}, ()), "test")
    both = screen.comparison_words(Comparison("a", "a", 9, {}, (5, 20)), "test")
    assert both.startswith("9 queries of test, paired; not at k = 5, 20, which only one of them has; the")
    none = {"name": "de", "queries": 0, "scorers": {}}
    part = {"name": "fr", "queries": 1234, "scorers": {name: {"recall@50": [0.25, 0.2, 0.3]} for name in SCORERS}}
    slices = [
        {"name": "user's country", "k": 50, "parts": [part, none]},
        {"name": "user's history", "k": 50, "parts": [part]},
    ]
    console = terminal(80)
    console.print(screen.slices_table(slices, ["country"]))
    assert shown(console).count("0.2500") == len(SCORERS)
    assert "1,234" in shown(console)
    assert "history" not in shown(console)
    assert " de " not in shown(console)  # nobody asked from there


def test_a_filter_is_named_in_the_first_of_its_lines() -> None:
    figures = (120, 0.25, 0.5, 0.75, 0.0123)
    found = [EndToEnd(words, 0.125, 0.3, k, *figures) for words in ("", "tag any ['a']") for k in (10, 1000)]
    console = terminal(80)
    console.print(screen.through_table(found))
    lines = [line.split() for line in shown(console).splitlines()[1:]]
    assert [line[: line.index("120")] for line in lines] == [
        ["none", "12.5%"],
        [],
        ["tag", "any", "['a']", "12.5%"],
        [],
    ]
    assert lines[1] == ["120", "1,000", "0.2500", "0.5000", "0.7500", "0.0123"]


SENTENCE = "a sentence of many words that does not fit into a line of forty columns"


def test_a_sentence_is_one_line_in_a_pipe_and_wrapped_on_a_terminal() -> None:
    piped, narrow = pipe(40), terminal(40)
    screen.say(piped, SENTENCE)
    screen.say(narrow, SENTENCE)
    assert shown(piped) == SENTENCE + "\n"
    lines = shown(narrow).splitlines()
    assert " ".join(line.strip() for line in lines) == SENTENCE
    assert all(len(line) <= 40 for line in lines)


def progress(step: int, recall: float | None) -> Progress:
    return Progress(step / 10, step, 200, 5.4321, 123_456.0, recall, recall or -1.0, False, {})


def test_training_is_one_line_an_epoch_in_a_pipe() -> None:
    console = pipe()
    with screen.training_bar(console) as watch:
        for step, recall in ((5, None), (10, 0.25), (15, 0.25), (20, 0.25), (30, 0.5)):
            watch(progress(step, recall))
    lines = shown(console).splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1.0", "epoch 2.0", "epoch 3.0"]
    assert lines[0] == "epoch 1.0: loss 5.432, validation recall 0.2500, best 0.2500, 123,456 examples/s"


@pytest.mark.parametrize("width", [80, 120])
def test_the_training_bar_fits_its_terminal(width: int) -> None:
    console = terminal(width)
    with screen.training_bar(console) as watch:
        watch(progress(110, 0.5398))
    last = [line for line in re.split(r"[\r\n]", shown(console)) if "epoch" in line][-1]
    line = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", last).rstrip()
    assert len(line) <= width
    for part in ("epoch 11.0", "loss 5.432", "123,456/s", "recall 0.5398", "left"):
        assert part in line
    assert "…" not in line


def test_a_run_that_was_finished_before_leaves_no_bar() -> None:
    console = terminal(80)
    with screen.training_bar(console):
        pass
    erased, left = shown(console).rsplit("\x1b[2K", 1)
    assert "starting" in erased
    assert "starting" not in left


def test_candidates_name_item_and_score_whatever_their_titles() -> None:
    console = terminal(80)
    card = {"title": "[Rec] " + "a long title " * 8, "tags": ["a", "b"], "price": 3.0000000001}
    answer = {"candidates": [{"item_id": "1234567890", "score": 5.4321, "card": card}]}
    console.print(screen.candidates_table(answer))
    for part in ("1234567890", "5.432", "[Rec]", "a, b"):
        assert part in shown(console)
    assert "3.00000" not in shown(console)


def test_a_profile_is_sorted_and_adds_up() -> None:
    console = terminal(80)
    looked = screen.Looked(lambda training: None)
    looked(replace(progress(50, 0.1), seconds={"user tower": 1.0, "backward": 3.0}))
    assert looked.last is not None
    console.print(screen.profile_table(looked.last))
    rows = [line.split() for line in shown(console).splitlines()[1:]]
    assert rows == [["backward", "3.00", "75%", "60.00"], ["user", "tower", "1.00", "25%", "20.00"]]


@pytest.mark.parametrize("width", [80, 120])
def test_data_sets_and_releases_are_whole(width: int, release: Release) -> None:
    console = terminal(width)
    console.print(screen.data_sets_table(DATASETS))
    one = {**release.manifest, "live": False, "pinned": True, "in_use": True, "bytes": 123_456}
    console.print(screen.releases_table([one, {**one, "id": "other", "live": True, "pinned": False}]))
    text = shown(console)
    assert "…" not in text
    assert [name for name in DATASETS if name not in text] == []
    assert f"  {release.id}" in text
    assert "● other" in text
    assert "123.5 kB" in text
    assert text.count("in use") == 2
    assert text.count("pinned") == 1


def test_a_pipe_has_room_unless_columns_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert screen.screen().width == screen.PIPE_WIDTH
    monkeypatch.setenv("COLUMNS", "50")
    assert screen.screen().width == 50


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


def test_publishing_does_not_tell_of_packages_that_are_not_needed(
    published: Callable[..., Release], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exporter, heard = logging.getLogger("torch.onnx._internal.exporter._registration"), Heard()
    exporter.addHandler(heard)
    level = exporter.level
    try:
        published(tmp_path / "releases", "20260101-000000-aaaa")
    finally:
        exporter.removeHandler(heard)
    assert heard.words == []
    assert exporter.level == level
    assert capsys.readouterr() == ("", "")
