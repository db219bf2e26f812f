"""Write docs/scoreboard.md from the records in benchmarks/results/scoreboard: no figure of ours is typed.

python benchmarks/scoreboard/page.py
"""

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from scoreboard.models import SHOWN
from scoreboard.models import rows as rows_of
from scoreboard.records import RESULTS, Record
from scoreboard.sets import SETS, Bar, BenchmarkSet

PAGE = Path(__file__).parents[2] / "docs" / "scoreboard.md"
MODELS = RESULTS.parent / "models_movielens-1m.json"
SEEDS = 3
"""Fewer runs than these are no result yet."""

HEAD = """# Scoreboard

zhiyin's models on public data sets, by frozen protocols, beside figures that others published. This page is written by
`python benchmarks/scoreboard/page.py` from the records in `benchmarks/results/scoreboard`; a test holds the two
together. **Bar** is the best published figure of the kind, **goal** what is to be left behind; ours is the mean ±
standard deviation over seeds, on the test, which is measured once for each recorded run. Rows that fall short stand
here too.
"""

SMALL = """To measure a set anew: `python benchmarks/scoreboard/run.py SET --seeds 1 2 3 [--data PATH]`, then `page.py`
beside it. The recipes stand in `examples/recipes`; any of them is trained by `zhiyin fit`, too.
"""


def main() -> None:
    PAGE.write_text(page(records(RESULTS), models()))


def models() -> dict[str, Any]:
    """What models.py has recorded."""
    return dict(json.loads(MODELS.read_text())) if MODELS.exists() else {}


def records(folder: Path) -> dict[str, Record]:
    """The sets that were measured, by name."""
    return {name: Record.open(folder / f"{name}.json") for name in SETS if (folder / f"{name}.json").exists()}


def page(found: Mapping[str, Record], every: dict[str, Any]) -> str:
    """The whole page, from the sets' records and from that of every model."""
    lines = [row for one in SETS.values() for row in rows(one, found.get(one.name))]
    parts = [HEAD, table(("set", "metric", "bar", "goal", "ours", "seeds", ""), lines), SMALL]
    parts += [section(one, found.get(one.name)) for one in SETS.values()]
    parts += [all_models(every)] if every else []
    return "\n".join(parts)


def rows(one: BenchmarkSet, record: Record | None) -> Iterator[tuple[str, ...]]:
    """The set's lines of the first table."""
    for bar in one.bars:
        needed = targets(bar, record)
        values = [run["metrics"][bar.metric] for run in record.runs] if record else []
        shown = ("–", "–") if needed is None else tuple(f"{value:.4f}" for value in needed)
        yield (one.title, bar.metric, *shown, spread(values), str(len(values)), verdict(bar, needed, values, record))


def targets(bar: Bar, record: Record | None) -> tuple[float, float] | None:
    """The bar and the goal; None while they are to be measured and are not."""
    if not bar.above:
        return bar.bar, bar.goal
    if record is None or not record.baselines:
        return None
    best = max(told["metrics"][bar.metric] for told in record.baselines.values())
    return best, best * (1 + bar.above)


def verdict(bar: Bar, needed: tuple[float, float] | None, values: list[float], record: Record | None) -> str:
    """Passed or not, in words."""
    if needed is None or not values:
        return "not measured yet"
    mean, (least, goal) = statistics.mean(values), needed
    words = f"{mean / least - 1:+.1%} of the bar"
    if mean > goal and (not bar.above or apart(bar, record)):
        words = f"**goal passed**, {words}"
    elif mean > least:
        words = f"**bar passed**, {words}, {mean / goal - 1:+.1%} of the goal"
    else:
        words = f"falls short: {words}"
    return words + (f" ({len(values)} of {SEEDS} seeds)" if len(values) < SEEDS else "")


def apart(bar: Bar, record: Record | None) -> bool:
    """Whether every run's interval lies above that of the best baseline."""
    assert record is not None
    best = max(record.baselines.values(), key=lambda told: told["metrics"][bar.metric])
    return all(run["intervals"][bar.metric][0] > best["intervals"][bar.metric][1] for run in record.runs)


def section(one: BenchmarkSet, record: Record | None) -> str:
    """What a set's figures must be read beside."""
    parts = [f"## {one.title}", one.protocol]
    if record:
        parts += [
            text
            for text in (ours(one, record), beside(one, record), settings(record), looks(record), words(record))
            if text
        ]
    if one.published:
        metrics = [bar.metric for bar in one.bars]
        lines = [(line.who, *(f"{line.figures[m]:.4f}" for m in metrics), line.source) for line in one.published]
        parts.append("Published:\n\n" + table(("", *metrics, "source"), lines).rstrip())
    return "\n\n".join(parts) + "\n"


def ours(one: BenchmarkSet, record: Record) -> str:
    """A line for each seed."""
    if not record.runs:
        return ""
    metrics = [bar.metric for bar in one.bars]
    further = [f"recall@{k}" for k in one.ks if k != one.k]
    lines = [
        (
            str(run["seed"]),
            *(interval(run, metric) for metric in metrics),
            *(f"{run['metrics'][metric]:.4f}" for metric in further),
            f"{run['metrics'][f'coverage@{one.k}']:.3f}",
            *(f"{run['with seen items kept'][metric]:.4f}" for metric in metrics),
            ", ".join(f"{name} {value:.4f}" for name, value in run["validation"].items()),
            f"{run['training seconds']:,.0f}",
        )
        for run in record.runs
    ]
    kept = [f"{metric}, seen kept" for metric in metrics]
    head = ("seed", *metrics, *further, f"coverage@{one.k}", *kept, "validation", "seconds of training")
    model = record.runs[0]["model"]
    return f"{model}, each run (in brackets 95 % bootstrap intervals over users):\n\n" + table(head, lines).rstrip()


def beside(one: BenchmarkSet, record: Record) -> str:
    """The baselines' figures."""
    metrics = [bar.metric for bar in one.bars]
    lines = [
        (f"{name}", *(interval(told, metric) for metric in metrics), f"`{told['settings']}`")
        for name, told in record.baselines.items()
    ]
    return (
        "Baselines, which learned from all that is not the test:\n\n" + table(("", *metrics, ""), lines).rstrip()
        if lines
        else ""
    )


def settings(record: Record) -> str:
    """The recipe's settings, in one line a table."""
    lines = "\n".join(f"{name}: {said(told)}" for name, told in record.settings.items())
    return f"Settings (defaults left out):\n\n```text\n{lines}\n```"


def said(value: object) -> str:
    """A recipe's value as TOML writes it in a line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {said(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(said(inner) for inner in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def looks(record: Record) -> str:
    """How often the test was looked at."""
    runs = sum(len(one["runs"]) for one in record.earlier)
    many = f"The test was measured {_times(len(record.runs))} with these settings"
    return many + (f", and {_times(runs)} with earlier ones, which the record keeps." if runs else ".")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def words(record: Record) -> str:
    """The protocol as the evaluation states it, and the machine."""
    if not record.runs:
        return ""
    run = record.runs[0]
    told = run["machine"]
    where = f"{told['device']}, {told['cores']} cores, {told['memory GiB']} GiB, {told['threads']} threads"
    return f"As the evaluation states it: {run['measured']}. Run on {where}, torch {told['torch']}, {run['date']}."


EVERY = """## Every model on MovieLens-1M

Leave-last-out, the whole catalogue, seen films removed; settings stand in `benchmarks/scoreboard/models.toml`.
Baselines learned from all that is not the test. torch-rechub's models learned from the same events, in its own
environment, as `benchmarks/scoreboard/peers.py` says, within the limits that stand in their line. Written by
`python benchmarks/scoreboard/models.py`.
"""


def all_models(told: dict[str, Any]) -> str:
    """The table of models.py, and the machine."""
    lines = [tuple(line.values()) for line in rows_of(told)]
    machine = told["machine"]
    where = f"{machine['device']}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}"
    return "\n".join([EVERY, table(("", *SHOWN, "seconds of training", "seeds"), lines), f"Run on {where}.\n"])


def interval(told: Mapping[str, Any], metric: str) -> str:
    low, high = told["intervals"][metric]
    return f"{told['metrics'][metric]:.4f} ({low:.4f} … {high:.4f})"


def spread(values: list[float]) -> str:
    """Mean ± standard deviation (of the sample)."""
    if not values:
        return "–"
    return f"{statistics.mean(values):.4f}" + (f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else "")


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = list(head)
    told = [f"| {' | '.join(names)} |", "|" + "---|" * len(names), *(f"| {' | '.join(line)} |" for line in lines)]
    return "\n".join(told) + "\n"


if __name__ == "__main__":
    main()
