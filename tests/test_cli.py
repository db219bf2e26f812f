"""Every verb through the real entry point, on a tiny log: what it prints, what it leaves, and how it ends."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zhiyin import cli, client, loading, pipeline
from zhiyin.channels.online import STANDARD
from zhiyin.data.prepared import Prepared
from zhiyin.indexes import tune
from zhiyin.indexes.base import IndexSpec
from zhiyin.indexes.tune import Tuned
from zhiyin.places.locks import locked
from zhiyin.recipe import Recipe
from zhiyin.releases import Releases
from zhiyin.service.app import Service, create, running
from zhiyin.service.live import Live
from zhiyin.stores.base import Change

VERBS = [
    "demo",
    "init",
    "data",
    "prepare",
    "fit",
    "sweep",
    "evaluate",
    "compare",
    "tune",
    "publish",
    "load",
    "releases",
    "rollback",
    "serve",
    "consume",
    "ask",
]
"""As `zhiyin --help` lists them."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def zhiyin(*arguments: object) -> Done:
    """The entry point, in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["zhiyin", *map(str, arguments)]
    code = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = before
    said = re.sub(r"\x1b\[[0-9;]*m", "", err.getvalue())
    assert "Traceback" not in said
    assert "a bug" not in said, said
    return Done(code, out.getvalue(), said)


def refused(done: Done, code: int, *words: str) -> None:
    said = " ".join(done.err.split())
    assert (done.code, done.out) == (code, ""), said
    assert all(word in said for word in words), said


def write_log(folder: Path, users: int = 30, items: int = 40, events: int = 8) -> Path:
    random = np.random.default_rng(0)
    rows = [
        f"u{user},i{item},{1_700_000_000 + int(random.integers(5_000_000))}"
        for user in range(users)
        for item in random.permutation(items)[:events]
    ]
    (folder / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    titles = [f"i{item},Film {item},c{item % 4}" for item in range(items)]
    (folder / "items.csv").write_text("\n".join(["item,title,category", *titles]) + "\n")
    (folder / "users.csv").write_text("\n".join(["user,country", *(f"u{u},c{u % 3}" for u in range(users))]) + "\n")
    return folder / "log.csv"


def shortened(recipe: Path) -> None:
    """One epoch, and no early stop: the tests are about the verbs."""
    recipe.write_text(recipe.read_text().replace("epochs = 20", "epochs = 1"))


class Broken:
    """A channel that fails."""

    def tables(self, data: object, neighbourhoods: object) -> dict[str, Any]:
        return {}

    def knows(self, release: object, seeker: object) -> bool:
        return True

    def find(self, release: object, tables: object, seekers: list[Any]) -> list[Any]:
        raise ValueError("broken")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """init → fit → evaluate → publish, each by its verb; the recipe. Publishing took a store and a release."""
    folder = tmp_path_factory.mktemp("cli")
    log, recipe = write_log(folder), folder / "recipe.toml"
    done = zhiyin(
        "init", log, "--items", folder / "items.csv", "--users", folder / "users.csv", "--out", recipe, "--json"
    )
    assert (done.code, done.json) == (0, {"recipe": str(recipe)})
    shortened(recipe)
    fitted = zhiyin("fit", recipe, "--json")
    assert fitted.code == 0, fitted.err
    assert set(fitted.json) == {"step", "validation recall@50", "run"}
    report = zhiyin("evaluate", recipe, "--json")
    assert report.code == 0
    assert {"YouTubeDNN", "popularity", "item-kNN"} <= set(report.json["metrics"])
    published = zhiyin("publish", recipe, "--json")
    assert published.code == 0, published.err
    assert published.json["loaded"] == {"items": 40, "newer": 0, "profiles": 30, "events": 240}
    assert published.json["proof"]["overlap"] >= 0.95
    assert Releases(folder / "recipe" / "releases").current() == published.json["release"]
    return recipe


@pytest.fixture
def recipe(made: Path, tmp_path: Path) -> Path:
    """A copy, with everything that was made, for one test."""
    return Path(shutil.copytree(made.parent, tmp_path / "copy")) / made.name


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_that_says_what_it_does_and_its_arguments(verb: str) -> None:
    done = zhiyin(verb, "--help")
    assert done.code == 0
    assert re.search(rf"Usage: .*zhiyin {verb} \[OPTIONS\]", done.out)
    assert len(done.out.splitlines()) > 8
    described = [line for line in done.out.splitlines() if "│ " in line and " --" in line]
    assert all(re.search(r"[A-Za-z]{3,}.*[a-z]", line) for line in described)


def test_help_lists_every_verb() -> None:
    done = subprocess.run([sys.executable, "-m", "zhiyin.cli", "--help"], capture_output=True, text=True, check=True)
    assert re.findall(r"^│ ([a-z]+) ", done.stdout, re.MULTILINE) == VERBS


def test_a_verb_or_an_option_that_is_none_is_a_user_error() -> None:
    assert zhiyin("pubish").code == 2
    assert "No such option" in zhiyin("serve", "r.toml", "--prot", "1").err
    assert zhiyin("fit").code == 2


def test_init_tells_what_comes_next_and_never_replaces_a_recipe(tmp_path: Path) -> None:
    log, out = write_log(tmp_path), tmp_path / "mine.toml"
    done = zhiyin("init", log, "--out", out)
    assert (done.code, done.out) == (0, "")
    assert f"zhiyin fit {out}" in " ".join(done.err.split()).replace(" /", "/").replace("fit/", "fit /")
    out.write_text("# mine")
    refused(zhiyin("init", log, "--out", out), 2, "a recipe is there already", "--force")
    assert out.read_text() == "# mine"
    assert zhiyin("init", log, "--out", out, "--force").code == 0
    assert "home =" in out.read_text()
    assert 'events = "log.csv" ' in out.read_text(), "below the recipe: a folder that can be moved"
    (tmp_path / "recipes").mkdir()
    assert zhiyin("init", log, "--out", tmp_path / "recipes" / "a.toml").code == 0
    assert f'events = "{log}" ' in (tmp_path / "recipes" / "a.toml").read_text()
    refused(zhiyin("init", tmp_path / "no.csv", "--out", tmp_path / "b.toml"), 2, "no.csv")
    refused(zhiyin("init", log, "--out", tmp_path / "no" / "b.toml"), 1, "b.toml: No such file or directory")


def test_prepare_says_what_was_read(recipe: Path) -> None:
    done = zhiyin("prepare", recipe, "--json")
    assert {name: done.json[name] for name in ("users", "items", "events")} == {"users": 30, "items": 40, "events": 240}
    assert "30 users, 40 items, 240 events" in zhiyin("prepare", recipe).err


def test_data_lists_the_named_sets_with_their_licences() -> None:
    listed = zhiyin("data", "--json").json
    assert "movielens-100k" in listed
    assert all(one["licence"] and one["page"].startswith("https://") for one in listed.values())
    refused(zhiyin("data", "movielens-100"), 2, "did you mean 'movielens-100k'?")


def test_a_run_that_is_complete_is_not_run_again_and_fresh_begins_anew(recipe: Path) -> None:
    again = zhiyin("fit", recipe, "--json")
    assert again.code == 0
    text = recipe.read_text()
    recipe.write_text(text.replace("dim = 64", "dim = 32"))
    refused(zhiyin("fit", recipe, "--json"), 1, "another run was interrupted or finished here", "--fresh")
    assert zhiyin("fit", recipe, "--fresh", "--json").json["step"] == again.json["step"]


def test_fit_goes_on_from_the_weights_that_are_there_when_files_were_appended(recipe: Path) -> None:
    more = [f"u{user},i{item},{1_710_000_000 + item}" for user in range(28, 33) for item in range(36, 44)]
    (recipe.parent / "more.csv").write_text("\n".join(["user,item,time", *more]) + "\n")
    assert zhiyin("prepare", recipe, "--append", recipe.parent / "more.csv", "--json").json["items"] == 44
    refused(zhiyin("publish", recipe), 1, "trained with 40 items, and there are 44 now", "--from RECIPE")
    refused(zhiyin("fit", recipe), 1, "other data", "--from RECIPE")
    assert zhiyin("fit", recipe, "--from", recipe, "--json").code == 0
    release = zhiyin("publish", recipe, "--no-load", "--json").json["release"]
    assert len(Releases(recipe.parent / "recipe" / "releases").open(release).items) == 44


def test_fit_says_when_the_recipe_is_not_what_was_prepared(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace('duplicates = "drop"', 'duplicates = "keep"'))
    refused(zhiyin("fit", recipe), 2, "[data] was changed since the log was prepared: duplicates was left out")


def test_load_fills_an_empty_store_and_again_changes_nothing(recipe: Path) -> None:
    shutil.rmtree(recipe.parent / "recipe" / "store")
    done = zhiyin("load", recipe, "--json")
    assert done.json == {"items": 40, "newer": 0, "profiles": 30, "events": 240}
    assert "240 events" in zhiyin("load", recipe).err
    store = Recipe.read(recipe).store.open()
    state = store.read(["u3"], 100)[0]
    assert (state.profile, len(state.events)) == ({"country": "c0"}, 8)
    assert list(state.events) == sorted(state.events, key=lambda event: event.time)
    assert store.cards(["i7"]) == [{"title": "Film 7", "category": "c3"}]
    store.close()
    recipe.write_text(recipe.read_text().replace('use = "lmdb:LMDB"', 'use = "memory:Memory"'))
    refused(zhiyin("load", recipe), 2, "a store in memory is gone when this command ends", "lmdb:LMDB")


def test_load_gives_each_users_newest_and_every_repeat_in_many_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"u{at % 3},i{at % 2},{1_700_000_000 + at // 12}" for at in range(60)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        '[data]\nevents = "log.csv"\nduplicates = "keep"\n[store]\nuse = "lmdb:LMDB"\nkeep = 15\nmap_gb = 0.1\n'
    )
    assert zhiyin("prepare", recipe).code == 0
    monkeypatch.setattr(loading, "CHUNK", 16)
    seen: list[tuple[str, int, int]] = []
    read = Recipe.read(recipe)
    store = read.store.open()
    for _ in range(2):
        told = pipeline.load(read, store, lambda *progress: seen.append(progress))
        assert told == {"items": 2, "newer": 0, "profiles": 0, "events": 45}
    assert [one for one in seen if one[0] == "events"][:3] == [("events", n, 45) for n in (15, 30, 45)]
    for user in range(3):
        kept = store.read([f"u{user}"], 100)[0].events
        wanted = [row.split(",") for row in rows if row.startswith(f"u{user},")][-15:]
        assert [event.time // 1000 for event in kept] == [int(time) for _, _, time in wanted]
        assert [event.item for event in kept] == [item for _, item, _ in wanted]
    store.close()


def test_tune_prints_the_table_that_a_recipe_takes(recipe: Path) -> None:
    done = zhiyin("tune", recipe, "--overlap", 0.9, "-k", 5, "--seconds", 20)
    assert done.code == 0, done.err
    assert "overlap@5" in done.err
    assert "of the exact top 5" in done.err
    found = tomllib.loads(done.out)
    assert list(found) == ["index"]
    tables = tomllib.loads(recipe.read_text()) | found
    assert isinstance(Recipe.of(tables, recipe).index, IndexSpec)
    assert Recipe.of(tables, recipe).index != Recipe.read(recipe).index


def test_tune_takes_the_recipes_goal_where_no_option_says_otherwise(recipe: Path) -> None:
    goal = '[index]\nuse = "auto:Auto"\nk = 7\noverlap = 0.8\nseconds = 20\n'
    recipe.write_text(re.sub(r"(?m)^\[index\].*\nuse = .*\n", goal, recipe.read_text()))
    done = zhiyin("tune", recipe, "--overlap", 0.9, "--json")
    assert done.code == 0, done.err
    assert done.json["target"] == {"overlap": 0.9, "k": 7, "threads": 1, "seed": 0}
    assert done.json["chosen"]["held_out_overlap"] >= 0.85
    assert tomllib.loads(done.json["recipe"])["index"] == done.json["chosen"]["index"]
    refused(zhiyin("tune", recipe, "--overlap", 2), 2, "overlap = 2.0", "at most 1")


def test_tune_of_a_release_needs_no_run_and_sees_histories_in_the_releases_rows(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def search(vectors: Any, users: Any, goal: Any, watch: Any) -> Tuned:
        seen.append((np.array(vectors), np.array(users), goal))
        return tuning(vectors, users, replace(goal, seconds=20), watch)

    tuning = tune.tune
    monkeypatch.setattr(tune, "tune", search)
    assert zhiyin("tune", recipe, "-k", 5, "--json").code == 0
    shutil.rmtree(recipe.parent / "recipe" / "run")
    assert zhiyin("tune", recipe, "-k", 5, "--release", "live", "--json").code == 0
    releases = Releases(recipe.parent / "recipe" / "releases")
    with (recipe.parent / "items.csv").open("a") as file:
        file.write("a0,New,c0\na1,New,c1\n")
    recipe.write_text(re.sub(r'"[^"]*/(log|items|users)\.csv"', r'"\1.csv"', recipe.read_text()))
    assert zhiyin("prepare", recipe).code == 0
    there, here = releases.open().items, Prepared.open(Recipe.read(recipe).prepared).items
    assert (there.rows(["i0", "i1"]) != here.rows(["i0", "i1"])).all()
    assert zhiyin("tune", recipe, "-k", 5, "--release", releases.current()).code == 0
    (items, users, goal), (its_items, its_users, _), (_, others, _) = seen
    np.testing.assert_allclose(its_items, items, atol=1e-4)
    np.testing.assert_allclose(its_users, users, atol=1e-4)
    np.testing.assert_allclose(others, users, atol=1e-4)
    assert goal.seconds == 120
    refused(zhiyin("tune", recipe), 1, "no trained model")


def test_an_interrupted_tune_ends_quietly(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "tune", interrupted)
    before = sorted(recipe.parent.rglob("*"))
    done = zhiyin("tune", recipe)
    assert done.code != 0
    assert done.out == ""
    assert sorted(recipe.parent.rglob("*")) == before


def test_releases_are_listed_rolled_back_and_pruned(recipe: Path) -> None:
    root = recipe.parent / "recipe" / "releases"
    first = Releases(root).current()
    second = zhiyin("publish", recipe, "--no-load", "--json").json
    assert second["loaded"] == {}
    listed = zhiyin("releases", recipe, "--json").json
    assert [(one["id"], one["live"]) for one in listed] == [(first, False), (second["release"], True)]
    assert "●" in zhiyin("releases", recipe).err
    assert zhiyin("rollback", recipe, "--json").json == {"live": first, "was": second["release"]}
    refused(zhiyin("rollback", recipe), 1, "is the oldest release")
    refused(zhiyin("rollback", recipe, "--to", second["release"][:-1]), 1, f"did you mean '{second['release']}'?")
    broken = root / second["release"] / "vectors.npy"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-1])
    refused(zhiyin("rollback", recipe, "--to", second["release"]), 1, "vectors.npy: damaged")
    assert Releases(root).current() == first
    broken.write_bytes(whole)
    assert zhiyin("rollback", recipe, "--to", second["release"]).code == 0
    pinned, other = zhiyin("releases", recipe, "--pin", first, "--prune", "1", "--json").json
    assert (pinned["pinned"], pinned["in_use"], other["pinned"]) == (True, False, False)
    assert pinned["bytes"] == sum(path.stat().st_size for path in (root / first).rglob("*") if path.is_file())
    refused(zhiyin("releases", recipe, "--unpin", first[:-1]), 1, f"did you mean '{first}'?")
    used = Releases(root).open(first)
    assert zhiyin("releases", recipe, "--unpin", first, "--prune", "1", "--json").json[0]["in_use"]
    del used
    (root / first / "manifest.json").write_text("{")
    assert "damaged" in zhiyin("releases", recipe).err
    assert zhiyin("releases", recipe, "--prune", "1", "--json").json[0]["id"] == second["release"]
    assert Releases(root).ids() == [second["release"]]
    assert zhiyin("releases", recipe, "--prune", "-1").code == 2


@pytest.fixture
def server(recipe: Path) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """`zhiyin serve` in a process of its own: its URL, and the process."""
    process, said = serving(recipe)
    assert re.search(r"release \S+ is live", said)
    yield address(said), process
    process.kill()
    process.communicate()


def serving(recipe: Path) -> tuple["subprocess.Popen[str]", str]:
    """`zhiyin serve`, and what it says until it says where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "zhiyin.cli", "serve", str(recipe), "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = ""
    while "http://" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    return process, said


def address(said: str) -> str:
    found = re.search(r"http://\S+", said)
    assert found
    return found[0]


def test_serve_and_ask(server: tuple[str, "subprocess.Popen[str]"], recipe: Path) -> None:
    url, process = server
    known = zhiyin("ask", "u3", "--url", url, "-k", "4", "--json").json
    assert (known["channel"], known["history"], len(known["candidates"])) == ("deep", 8, 4)
    assert set(known["candidates"][0]["card"]) == {"title", "category"}
    shown = zhiyin("ask", "--url", url, "--event", "i3", "--event", "unheard", "-k", "3")
    assert (shown.code, shown.out) == (0, "")
    assert "Film" in shown.err
    assert "passed over: unheard" in shown.err
    asked_with_all_that_a_request_can_say(url)
    refused(zhiyin("ask", "--url", url, "-k", "41"), 2, "k: 41; expected at most 40")
    refused(zhiyin("ask", "--url", url, "-k", "0"), 2, "k: ", ">= 1")
    port = url.rpartition(":")[2]
    refused(zhiyin("serve", recipe, "--port", port), 2, f"cannot listen on port {port} (Address already in use)")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 0, said
    refused(zhiyin("ask", "u3", "--url", url), 1, "no answer", "Is `zhiyin serve` running there?")
    refused(zhiyin("ask", "u3", "--url", "localhost:1"), 2, "'localhost:1/v1/retrieve' is no address")


def asked_with_all_that_a_request_can_say(url: str) -> None:
    def items(*words: str) -> list[str]:
        answer = zhiyin("ask", "u3", "--url", url, "--json", *words).json
        return [candidate["item_id"] for candidate in answer["candidates"]]

    some = items("-k", "40", "--filter", "category == 'c1'")
    assert some
    assert all(int(item[1:]) % 4 == 1 for item in some)
    assert set(items("-k", "40", "--seen")) == {f"i{at}" for at in range(40)}
    assert set(items("-k", "40", "--seen", "--exclude", "i3", "--exclude", "i4")) == {
        f"i{at}" for at in range(40) if at not in (3, 4)
    }
    spread = items("-k", "8", "--diverse", "category=100")  # among 32, all that u3 has not seen
    assert sorted(int(item[1:]) % 4 for item in spread[:4]) == [0, 1, 2, 3]
    (one,) = zhiyin("ask", "u3", "--url", url, "--json", "-k", "1", "--field", "title").json["candidates"]
    assert list(one["card"]) == ["title"]
    told = zhiyin("ask", "u3", "--url", url, "--json", "-k", "2", "--channel", "popular", "--explain").json
    assert (told["channel"], len(told["candidates"][0]["explanation"]["history"])) == ("popular", 3)
    shown = zhiyin("ask", "u3", "--url", url, "-k", "2", "--channel", "popular", "--explain").err
    assert shown.split("\n")[0].split() == ["item", "score", "title", "category", "near", "channels"]
    near = [one["item_id"] for one in told["candidates"][0]["explanation"]["history"]]
    assert f"{', '.join(near)}  popular" in shown
    refused(zhiyin("ask", "--url", url, "--channel", "no such"), 2, "channels[0]")
    asked = ("ask", "nobody", "--url", url, "--json")
    assert zhiyin(*asked).json["channel"] == "popular"
    assert zhiyin(*asked, "--profile", "country=c1", "--context", "device=tv").json["channel"] == "deep"
    refused(zhiyin(*asked, "--profile", "country"), 2, "--profile: 'country'; expected NAME=VALUE")
    refused(zhiyin(*asked, "--diverse", "title=much"), 2, "diversity.weight: found `str`; expected `float`")
    refused(zhiyin(*asked, "--filter", "categori == 3"), 2, "no attribute 'categori'")


def test_an_answer_says_which_channels_it_lacks_who_stood_in_and_how_many_are_missing(recipe: Path) -> None:
    served = pipeline.serving(Recipe.read(recipe))
    broken: Any = Broken()
    online = replace(STANDARD, channels={"broken": broken})
    with Live(served.releases) as live, running(create(live, served.store, Service(), online=online)) as url:
        failed = zhiyin("ask", "u3", "--url", url, "-k", "2", "--channel", "deep", "--channel", "broken")
        assert "without the channel broken: it failed (ValueError); the service's log says more" in failed.err
        assert "knows nothing" not in failed.err
        stranger = zhiyin("ask", "nobody", "--url", url, "-k", "2")
        assert "of this user deep knows nothing: popular answered" in stranger.err
        beside = zhiyin("ask", "nobody", "--url", url, "-k", "2", "--channel", "item_to_item")
        assert "of this user item_to_item knows nothing: popular answered" in beside.err
        assert "knows nothing" not in zhiyin("ask", "nobody", "--url", url, "--channel", "popular").err
        few = zhiyin("ask", "u3", "--url", url, "-k", "20", "--filter", "title == 'Film 9'", "--seen")
        assert "1 of 20 candidates: no more were found" in few.err
        assert "no more were found" not in zhiyin("ask", "u3", "--url", url, "-k", "2").err
    served.store.close()


def test_pruning_releases_prunes_the_changes_that_they_have_absorbed(recipe: Path) -> None:
    read, late = Recipe.read(recipe), 4_000_000_000_000
    store = read.store.open()
    absorbed = [Change("i1", 0, {"title": "old"}), Change("gone", 0, None)]
    needed = [Change("i2", 0, None), Change("i3", late, {"title": "newer"}), Change("new", 0, {"title": "new"})]
    store.put_changes([*absorbed, *needed])
    store.close()
    assert "removed from the store: 2 of 5 changes of items" in zhiyin("releases", recipe, "--prune", "9").err
    store = read.store.open()
    assert [change.item for change in store.changes(0, 9).changes] == ["i2", "i3", "new"]
    store.put_changes([Change("i4", 0, {"title": "old"})])
    store.close()
    assert "changes of items" not in zhiyin("releases", recipe).err
    root = recipe.parent / "recipe" / "releases"
    for name in ("vectors.npy", "items/utf8.npy"):
        file = next(root.glob(f"*/{name}"))
        file.write_bytes(file.read_bytes()[:-4])
        done = zhiyin("releases", recipe, "--prune", "9")
        assert done.code == 0
        store = read.store.open()
        if name == "vectors.npy":
            assert "removed from the store: 1 of " in done.err, "of a release, no more than its items is read"
            store.put_changes([Change("i4", 0, {"title": "old"})])
        else:
            assert "the changes of items are all kept: " in done.err
            assert "utf8.npy: damaged" in " ".join(done.err.split()).replace(" /", "/")
            assert len(store.changes(0, 9).changes) == 4
            store.prune_changes(store.changes(0, 9).changes)
        store.close()
    assert "are all kept" not in zhiyin("releases", recipe, "--prune", "9").err, "nothing to forget, nothing is read"


def test_while_the_store_is_down_an_answer_says_what_it_lacks(recipe: Path) -> None:
    served = pipeline.serving(Recipe.read(recipe))
    with Live(served.releases) as live, running(create(live, served.store, Service())) as url:
        assert "the store" not in zhiyin("ask", "u3", "--url", url).err
        served.store.close()
        done = zhiyin("ask", "u3", "--url", url, "-k", "2")
    assert done.code == 0
    assert "channel popular, history 0" in done.err
    assert "the store does not answer; without it: user, cards" in done.err


@pytest.mark.parametrize("use", ["milvus:Milvus", "qdrant:Qdrant"])
def test_an_index_in_a_vector_database_is_published_and_served(
    use: str, recipe: Path, milvus_server: Any, qdrant_server: Any
) -> None:
    there = milvus_server if use.startswith("milvus") else qdrant_server
    table = f'use = "{use}"\nuri = "{there.uri}"\nname = "cli"\ntimeout = 20.0\n'
    recipe.write_text(re.sub(r"(?<=items are found\n)use = .*\n", table, recipe.read_text()))
    published = zhiyin("publish", recipe, "--no-load", "--json")
    assert published.code == 0, published.err
    assert published.json["proof"]["overlap"] >= 0.95
    receipt = json.loads((recipe.parent / "recipe" / "releases" / published.json["release"] / "index.bin").read_text())
    assert [told["rows"] for told in receipt.values()] == [40]
    process, said = serving(recipe)
    try:
        answer = zhiyin("ask", "u3", "--url", address(said), "-k", "4", "--json").json
        assert (answer["release"], answer["channel"]) == (published.json["release"], "deep")
        assert len({candidate["item_id"] for candidate in answer["candidates"]}) == 4
    finally:
        process.kill()
        process.communicate()


def test_serving_without_a_release_says_so_and_waits_for_one(recipe: Path) -> None:
    shutil.rmtree(recipe.parent / "recipe" / "releases")
    process, said = serving(recipe)
    refused(zhiyin("ask", "--url", address(said)), 1, "no release is live", "zhiyin publish")
    process.terminate()
    said += process.communicate(timeout=20)[1]
    assert process.returncode == 0, said
    assert "no release is live" in said


def test_what_is_wrong_with_what_was_given_ends_with_2(recipe: Path, tmp_path: Path) -> None:
    refused(zhiyin("fit", tmp_path / "no.toml"), 2, "there is no such recipe", "zhiyin init EVENTS")
    text = recipe.read_text()
    recipe.write_text(text + "\n[servise]\nport = 1\n")
    refused(zhiyin("fit", recipe), 2, "unknown key 'servise' (did you mean 'service'?)")
    recipe.write_text(text.replace("port = 8000", "prot = 8000"))
    refused(zhiyin("serve", recipe), 2, "unknown key 'prot' (did you mean 'port'?)")
    recipe.write_text(text.replace('"youtube_dnn:YouTubeDNN"', '"youtube_dnn:YouTubeDNM"'))
    refused(zhiyin("fit", recipe, "--fresh"), 2, "did you mean 'youtube_dnn:YouTubeDNN'?")
    assert (recipe.parent / "recipe" / "run" / "best.safetensors").exists()
    recipe.write_text(text)
    refused(zhiyin("evaluate", recipe, "--part", "train"), 2, "'test' or 'validation'")
    refused(zhiyin("fit", tmp_path), 2, "the recipe cannot be read: Is a directory")


def test_what_is_missing_on_the_way_ends_with_a_sentence(recipe: Path) -> None:
    home = recipe.parent / "recipe"
    shutil.rmtree(home / "run")
    for verb in ("evaluate", "publish"):
        refused(zhiyin(verb, recipe), 1, "best.safetensors")
    shutil.rmtree(home / "releases")
    for verb in ("releases", "rollback"):
        refused(zhiyin(verb, recipe), 1, "no release is live", "zhiyin publish")
    shutil.rmtree(home / "prepared")
    refused(zhiyin("load", recipe), 2, "no prepared data here", "zhiyin prepare")
    (home / "store").rename(home / "gone")
    (home / "store").write_text("")
    shutil.copytree(recipe.parent / "recipe" / "gone", home / "again")
    assert zhiyin("prepare", recipe).code == 0
    refused(zhiyin("load", recipe), 1, "store: cannot be opened")


def test_a_recipe_that_changed_since_its_fit_is_said_to_have(recipe: Path) -> None:
    for verb in ("evaluate", "publish"):
        assert "since the last fit" not in zhiyin(verb, recipe).err
    text = recipe.read_text()
    assert "dim = 64" in text
    recipe.write_text(text.replace("dim = 64", "dim = 8", 1) + "\n[optimizer]\nlr = 0.1\n")
    for verb in ("evaluate", "publish"):
        done = zhiyin(verb, recipe)
        assert done.code == 0
        assert (
            "[model] and [optimizer] changed since the last fit; this is the model as it was trained: "
            f"zhiyin fit {recipe} --fresh" in done.err
        )
    recipe.write_text(text.replace("history_length = 50", "history_length = 7", 1))
    assert "[features] changed since the last fit" in zhiyin("publish", recipe).err


def test_two_fits_of_one_home_do_not_write_over_each_other(recipe: Path) -> None:
    run = recipe.parent / "recipe" / "run"
    before = (run / "log.jsonl").read_bytes()
    with locked(run / ".fit.lock", "fit", 0):
        refused(
            zhiyin("fit", recipe, "--fresh"),
            1,
            f"another fit is under way here (process {os.getpid()} on ",
            "Wait until it has ended, or give this recipe another `home`.",
        )
    assert (run / "log.jsonl").read_bytes() == before
    assert zhiyin("fit", recipe, "--fresh").code == 0


def test_metrics_of_an_earlier_model_are_not_published_as_this_ones(recipe: Path) -> None:
    path = recipe.parent / "recipe" / "run" / "test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": 10**6}))
    id = zhiyin("publish", recipe, "--no-load", "--json").json["release"]
    assert "test" not in Releases(recipe.parent / "recipe" / "releases").open(id).manifest


def test_a_bug_is_a_sentence_and_its_traceback_is_kept(monkeypatch: pytest.MonkeyPatch, recipe: Path) -> None:
    def broken(*_: object, **options: object) -> None:
        raise ZeroDivisionError("inside")

    monkeypatch.setattr(pipeline, "load", broken)
    with pytest.raises(AssertionError, match=r"a bug: ZeroDivisionError: inside") as caught:
        zhiyin("load", recipe)
    kept = Path(re.findall(r"\S*zhiyin-\w+\.log", str(caught.value).replace("\n", ""))[0])
    assert "ZeroDivisionError: inside" in kept.read_text()
    kept.unlink()


def test_one_item_in_the_catalogue_and_users_with_one_event(tmp_path: Path) -> None:
    """The smallest catalogue and the shortest histories there are go the whole way, and are served."""
    rows = [f"u{user},only,{1_700_000_000 + 100 * user}" for user in range(20)]
    (tmp_path / "log.csv").write_text("\n".join(["user,item,time", *rows]) + "\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[data]\nevents = "log.csv"\n[split]\nuse = "splits:TimeCut"\n'
        '[model]\nuse = "youtube_dnn:YouTubeDNN"\ndim = 8\nhidden = [8]\n'
        '[negatives]\nuse = "negatives:WholeCatalogue"\n[training]\nepochs = 1\nmin_history = 0\n'
        '[store]\nuse = "lmdb:LMDB"\nmap_gb = 0.1\n'
    )
    assert zhiyin("fit", recipe).code == 0
    assert zhiyin("evaluate", recipe, "--json").json["catalogue"] == 1
    assert zhiyin("publish", recipe, "--json").json["loaded"] == {"items": 1, "newer": 0, "profiles": 0, "events": 20}
    served = pipeline.serving(Recipe.read(recipe))
    with Live(served.releases) as live, running(create(live, served.store, Service())) as url:
        new = client.post(f"{url}/v1/retrieve", {"user_id": "new"})
        seen = client.post(f"{url}/v1/retrieve", {"user_id": "u1"})
        again = client.post(f"{url}/v1/retrieve", {"user_id": "u1", "exclude_seen": False})
    served.store.close()
    assert [one["item_id"] for one in new["candidates"]] == ["only"]
    assert (seen["channel"], seen["history"], seen["candidates"]) == ("deep", 1, [])
    assert [one["item_id"] for one in again["candidates"]] == ["only"]
