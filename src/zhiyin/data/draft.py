"""A recipe in TOML from what was guessed, with a comment on every guess."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zhiyin.data.proposals import Proposal
from zhiyin.data.sources import Source

WHOLE_CATALOGUE = 20_000
"""Up to this many items, a positive is compared with all of them."""

SWEEP = """[sweep]   # what `zhiyin sweep` tries, judged on validation; nothing else looks at it
model.dim = [32, 64, 128]
model.dropout = { low = 0.0, high = 0.5, step = 0.1 }
optimizer.lr = { low = 5e-4, high = 1e-2, log = true }
optimizer.table_lr = { low = 1e-3, high = 3e-2, log = true }"""
"""Ranges that every model has."""

_COLUMNS = ("user", "item", "time", "time_unit")

EXACT_INDEX = 50_000
"""Up to this many items, a search compares with every vector."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What a log's clock tells: whether it tells `hours` (events are not all of one hour of the day, as dates are), how
    many `days` it spans, and whether most users come in `bursts`, all their events within a twentieth of that."""

    hours: bool
    days: float
    bursts: bool


@dataclass(frozen=True, slots=True)
class Guess:
    """A source, and `why` its "user", "item", "time" and "time_unit" are what they are; what columns could be.

    `user`, `item`: columns of the tables; `context`: columns of the log that are known when a request comes; `left`:
    its other columns. `items`, `events`: about how many there are. `clock`: None where times are only positions.
    """

    source: Source
    why: dict[str, str]
    user: tuple[Proposal, ...]
    item: tuple[Proposal, ...]
    context: tuple[Proposal, ...]
    left: tuple[Proposal, ...]
    items: int
    events: int
    clock: Clock | None


def recipe_text(guess: Guess, home: str, folder: Path | None = None) -> str:
    """The recipe. `home`: where zhiyin will put what it makes; `folder`: where the recipe will be, so that files inside
    it are named relative to it (all others, and all without it, absolutely)."""
    blocks = [
        f"# A first recipe, guessed from your files: about {guess.events:,} events with {guess.items:,} items.\n"
        "# Read the comments, change what is wrong, then run:  zhiyin fit RECIPE",
        "# The folder for everything zhiyin makes (prepared data, training, releases), beside this file.\n"
        f"home = {_toml(home)}",
        _data(guess, folder),
        *_features(guess),
        _split(guess.clock),
        *_training(guess),
        SWEEP,
        *_serving(guess),
    ]
    return "\n\n".join(blocks) + "\n"


def _data(guess: Guess, folder: Path | None) -> str:
    source = guess.source
    lines = [
        "[data]",
        f"events = {_path(source.events, folder)}   # the log: one row for each time a user chose an item",
    ]
    if source.items:
        lines.append(f"items = {_path(source.items, folder)}   # one row an item; all of them can become candidates")
    if source.users:
        lines.append(f"users = {_path(source.users, folder)}   # one row a user")
    told = {name: (_toml(getattr(source, name)), _comment(guess.why[name])) for name in _COLUMNS}
    lines += [f"{name} = {value}   # {why}" for name, (value, why) in told.items()]
    for name, side in (("item_id", source.item), ("user_id", source.user)):
        if column := getattr(source, name):
            lines.append(f"{name} = {_toml(column)}   # that table's column with the log's '{_comment(side)}'")
    if source.columns:
        lines.append(f"columns = {_toml(list(source.columns))}   # more of the log, for the context features below")
    lines.append('duplicates = "drop"   # the same user, item and time again: "drop" it, or "keep" it')
    if guess.left:
        lines.append("# Not used: it may be known only after an item was chosen, and must not help to predict it.")
        lines += [f"#   {_comment(p.column)}: {_comment(p.why)}" for p in guess.left]
    return "\n".join(lines)


def _features(guess: Guess) -> list[str]:
    taken = {"history", "rows"}
    time = _time_features(guess.clock)
    return [
        "[features]   # what the model sees of users and items\n"
        "history_length = 50   # how many of the user's last items; the most important feature there is",
        *_side("user", guess.user, "What is known of a user before any request.", taken),
        *_side("context", (*time, *guess.context), "What is known when a request comes.", taken),
        *_side("item", guess.item, "What is known of an item: lets new items be found, too.", {"history", "rows"}),
    ]


def _time_features(clock: Clock | None) -> list[Proposal]:
    if clock is None:
        return []
    found = [
        Proposal("example_age", "time:ExampleAge", (), "how old a training example is; keeps fresh items in reach")
    ]
    if clock.hours and clock.days >= 2:
        found.append(
            Proposal("hour", "time:Hour", (("dim", 4),), "the hour of the request (UTC; utc_offset shifts it)")
        )
    if clock.days >= 14:
        found.append(Proposal("weekday", "time:Weekday", (("dim", 4),), "the day of the week of the request"))
    return found


def _side(side: str, proposals: Iterable[Proposal], title: str, taken: set[str]) -> list[str]:
    blocks, skipped = [], []
    for proposal in proposals:
        if proposal.use:
            blocks.append(_feature(side, proposal, taken))
        else:
            skipped.append(f"# {_comment(proposal.column)} is left out: {_comment(proposal.why)}")
    if blocks:
        blocks[0] = f"# {title}\n{blocks[0]}"
    return blocks + (["\n".join(skipped)] if skipped else [])


def _feature(side: str, proposal: Proposal, taken: set[str]) -> str:
    name = _name(proposal.column, side, taken)
    taken.add(name)
    lines = [f"[[features.{side}]]   # {_comment(proposal.why)}", f'use = "{proposal.use}"', f"name = {_toml(name)}"]
    if name != proposal.column and not proposal.use.startswith("time:"):
        lines.append(f"column = {_toml(proposal.column)}")
    lines += [f"{setting} = {_toml(value)}" for setting, value in proposal.settings]
    return "\n".join(lines)


def _name(column: str, side: str, taken: set[str]) -> str:
    """A name of letters, digits and _ that no other feature has."""
    name = "".join(c if f"_{c}".isidentifier() else "_" for c in column)
    name = name if name.isidentifier() else f"{side}_{name}"
    while name in taken:
        name = f"{side}_{name}"
    return name


def _split(clock: Clock | None) -> str:
    if clock and not clock.bursts:
        return (
            "[split]   # what is held out, to measure the model on what it has not seen\n"
            'use = "splits:TimeCut"   # train on the past, test on the newest: as it will be used\n'
            "validation = 0.1   # share of the events, before those of the test, that say when to stop training\n"
            "test = 0.1   # share of the events, the newest, that `zhiyin evaluate` measures on"
        )
    why = (
        "users come in one burst each, so a cut in time would find few"
        if clock
        else "there are no clock times to cut at"
    )
    return (
        "[split]   # what is held out, to measure the model on what it has not seen\n"
        f'use = "splits:LeaveLastOut"   # each user\'s last event is the test; {why}'
    )


def _training(guess: Guess) -> list[str]:
    if guess.items <= WHOLE_CATALOGUE:
        negatives = '"negatives:WholeCatalogue"   # few enough items to compare each choice with all of them'
    else:
        negatives = '"negatives:Mixed"   # popular and random items: comparing with all would take long'
    size = next((size for most, size in ((1_000_000, 512), (10_000_000, 2048)) if guess.events <= most), 8192)
    return [
        '[model]\nuse = "youtube_dnn:YouTubeDNN"   # mean of the last items and the features, through a small network\n'
        "dim = 64   # numbers in each vector; more can tell more apart, and cost time and memory\n"
        "# dropout = 0.3   # to be set where validation is best after an epoch or two, and falls from there",
        f"[negatives]   # the items that a chosen one is compared with in training\nuse = {negatives}",
        '[loss]\nuse = "losses:SampledSoftmax"   # the chosen item should score above the others',
        "[training]\nepochs = 20   # at most; it stops when validation no longer improves\n"
        f"batch_size = {size}   # examples a step; larger is faster an epoch, but takes more memory",
    ]


def _serving(guess: Guess) -> list[str]:
    if guess.items <= EXACT_INDEX:
        index = '"exact:Exact"   # compares with every item: exact, and quick enough for so few'
    else:
        index = '"hnsw:HNSW"   # a graph over the items: nearly exact, and much quicker for so many'
    return [
        f"[index]   # how the nearest items are found\nuse = {index}",
        '[store]   # profiles, recent events and item cards, kept in the home folder\nuse = "lmdb:LMDB"',
        '[service]\nhost = "127.0.0.1"   # only this machine; "0.0.0.0" lets others in\nport = 8000',
    ]


def _path(path: Path, folder: Path | None) -> str:
    whole = path.absolute()
    inside = folder is not None and whole.is_relative_to(folder.absolute())
    return _toml(str(whole.relative_to(folder.absolute()) if inside and folder else whole))


def _toml(value: object) -> str:
    """JSON is TOML for numbers, strings and lists of them, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
