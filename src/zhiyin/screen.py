"""What the command line and the demo show a person."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from zhiyin.learning.fit import Progress as Training
    from zhiyin.release import Release


@contextmanager
def training_bar(console: Console) -> Iterator[Callable[["Training"], None]]:
    """A progress bar that a `fit` can watch."""
    columns = (
        TextColumn("epoch {task.fields[epoch]:.1f}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} examples/s  {task.fields[recall]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None, epoch=0.0, loss=float("nan"), speed=0.0, recall="")

        def watch(training: "Training") -> None:
            recall = "" if training.recall is None else f"recall {training.recall:.4f} (best {training.best:.4f})"
            bar.update(
                task,
                total=training.steps,
                completed=training.step,
                epoch=training.epoch,
                loss=training.loss,
                speed=training.examples_per_second,
                recall=recall,
            )

        yield watch


def candidates_table(answer: dict[str, Any]) -> Table:
    """An answer of the service, for a person: rank, item, score, and its card."""
    names = list(dict.fromkeys(name for c in answer["candidates"] for name in (c.get("card") or {})))[:4]
    table = Table("", "item", "score", *names, box=None)
    for rank, candidate in enumerate(answer["candidates"], 1):
        card = candidate.get("card") or {}
        cells = [", ".join(map(str, v)) if isinstance(v := card.get(name, ""), list) else str(v) for name in names]
        table.add_row(str(rank), candidate["item_id"], f"{candidate['score']:.3f}", *map(escape, cells))
    return table


def release_words(release: "Release") -> str:
    """What a release has proved, in a sentence."""
    proof = release.manifest["proof"]
    return (
        f"release [bold]{release.id}[/] is live: {len(release.items):,} items, towers within {proof['parity']:.0e} of "
        f"the trained ones, index overlap@{proof['k']} {proof['overlap']:.4f}"
    )


def stored_words(loaded: Mapping[str, int]) -> str:
    """What was loaded into the store, in a sentence."""
    return "the store holds " + ", ".join(f"{count:,} {what}" for what, count in loaded.items())
