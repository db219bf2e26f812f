"""The docs are true: their commands and their code are run, their tables and trees are held against the package.

A page is played from top to bottom in one folder. ```console blocks run what stands after `$ ` and hold the output
against what follows: decimals and release ids may differ, `…` stands for anything, and after "console varies" every
number may. ```python and ```toml blocks whose first line is `# a/file.py` are written there; `# add to a file` appends;
other python blocks are executed, other toml blocks must be parts of a recipe.
"""

import contextlib
import dataclasses
import io
import json
import math
import re
import runpy
import shlex
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest
import typer

from zhiyin import cli, spec
from zhiyin.channels.online import Online
from zhiyin.cli.terminal import console
from zhiyin.data.sources import Source
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Training
from zhiyin.learning.optimizers import Optimizer
from zhiyin.publish import Promise
from zhiyin.recipe import TABLES, Recipe
from zhiyin.releases import Releases, Repository
from zhiyin.service.app import Service

ROOT = Path(__file__).parents[1]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
PAGES = [
    README,
    CHINESE,
    ROOT / "CONTRIBUTING.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
VERBS = cast(Any, typer.main.get_command(cli.app)).commands
URL = "http://127.0.0.1:8000"


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page: what stands after the fence, and the text; `line` is where it begins."""

    info: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(match[1].strip(), match[2], text[: match.start()].count("\n") + 1)
        for match in re.finditer(r"^```([^\n`]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


class Player:
    """Plays pages in one folder; servers that they start are stopped by `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[subprocess.Popen[str]] = []
        self.url = URL

    def play(self, page: Path) -> None:
        names: dict[str, Any] = {"__name__": "__main__"}
        for block in blocks(page):
            with contextlib.chdir(self.folder):
                where = f"{page.name}, line {block.line}"
                first = re.match(r"# (add to )?(\S+\.(?:py|toml))\n", block.text)
                if first and block.info.split()[0] in ("python", "toml"):
                    self._write(Path(first[2]), block.text[first.end() :], append=bool(first[1]))
                elif block.info == "python":
                    exec(compile(block.text, where, "exec"), names)  # noqa: S102 – the docs' own code
                elif block.info == "toml":
                    part_of_a_recipe(block.text)
                elif block.info.startswith("console"):
                    for command, expected in commands(block.text):
                        agree(expected, self.run(command), where=f"{where}: {command}", varies="varies" in block.info)

    def run(self, command: str) -> str:
        """What a command of the docs prints."""
        verb = next(word for word in shlex.split(command) if "=" not in word)
        if verb == "curl":
            return self._curl(shlex.split(command)[1:])
        if verb != "zhiyin":
            done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)  # noqa: S602
            return done.stdout
        words = shlex.split(command)[shlex.split(command).index("zhiyin") + 1 :]
        if words[-1] == "&":
            return self._serve(words[:-1])
        printed = zhiyin(*words, *(["--url", self.url] if words[0] == "ask" else []))
        return printed.replace(self.url, URL).replace(str(self.folder) + "/", "")

    def close(self) -> None:
        for server in self.servers:
            server.terminate()
            server.wait()
            assert server.stdout is not None
            server.stdout.close()

    def _write(self, path: Path, text: str, *, append: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.read_text() + "\n" + text if append else text)

    def _serve(self, words: list[str]) -> str:
        server = subprocess.Popen(
            [sys.executable, "-m", "zhiyin.cli", *words, "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.servers.append(server)
        assert server.stdout is not None
        said = ""
        for line in server.stdout:
            said += line
            if "http://" in line:
                break
        self.url = re.findall(r"http://\S+", said)[0]
        return said.replace(self.url, URL)

    def _curl(self, words: list[str]) -> str:
        options = {word: words[at + 1] for at, word in enumerate(words) if word in ("-X", "--json")}
        url = next(word for word in words if word.startswith(URL)).replace(URL, self.url)
        body = options["--json"].encode() if "--json" in options else None
        kind = {"content-type": "application/json"}
        request = urllib.request.Request(url, body, kind, method=options.get("-X"))  # noqa: S310 – our own server
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return str(answer.read().decode())
        except urllib.error.HTTPError as refusal:
            return refusal.read().decode()


def zhiyin(*words: str) -> str:
    """What the command line prints for these words, which must end well, on a page of 80 columns."""
    printed = io.StringIO()
    before, arguments = console.width, sys.argv
    console.width, sys.argv = 80, ["zhiyin", *words]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            cli.main()
    except SystemExit as end:
        if end.code:
            raise AssertionError(printed.getvalue()) from None
    finally:
        console.width, sys.argv = before, arguments
    return printed.getvalue()


def commands(text: str) -> list[tuple[str, str]]:
    """A console block's commands, each with the output that is shown; a command ending in `\\` goes on."""
    parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    found = []
    for part in parts:
        command, _, output = re.sub(r"\\\n\s*", "", part).partition("\n")
        found.append((command, output))
    return found


def agree(expected: str, printed: str, *, where: str, varies: bool) -> None:
    """Hold a shown output against the printed one; what is not shown at all is not looked at."""
    if not expected.strip():
        return
    if expected.lstrip().startswith("{"):
        assert masked(json.loads(printed)) == masked(json.loads(expected)), where
        return
    wanted, found = (plain(text, varies=varies) for text in (expected, printed))
    pattern = re.escape(wanted).replace("…", ".*")
    assert re.fullmatch(pattern, found, re.DOTALL), f"{where} printed\n{printed}\nthe page says\n{expected}"


def plain(text: str, *, varies: bool) -> str:
    """Text without what may differ between machines."""
    text = re.sub(r"\d{8}-\d{6}-[0-9a-f]{4}", "RELEASE", text)
    text = re.sub(r"(?:< )?[+-]?\d[\d,]*\.\d+|\d+e-\d+|[\d,]+(?= examples/s)", "NUMBER", text)
    if varies:
        text = re.sub(r"\d+", "NUMBER", text)
    return re.sub(r"\s+", " ", text).strip()


def masked(value: Any) -> Any:
    """JSON with every number alike."""
    if isinstance(value, dict):
        return {name: masked(one) for name, one in value.items()}
    if isinstance(value, list):
        return [masked(one) for one in value]
    if isinstance(value, str):
        return plain(value, varies=True)
    return value if isinstance(value, bool) or value is None else 0


def part_of_a_recipe(text: str) -> None:
    """Raises `SpecError` for what no recipe may say."""
    recipe = Recipe.of({"data": {"events": "events.csv"}, **tomllib.loads(text)}, Path("recipe.toml"))
    if "model" in recipe.tables or {"negatives", "loss", "optimizer", "training"} & set(recipe.tables):
        tables = {"model": {"use": "dssm:DSSM"}, **recipe.tables}
        _ = Recipe.of(tables, Path("recipe.toml")).plan


@pytest.fixture(scope="module")
def player(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    """A folder in which the tour was walked, its service still running."""
    player = Player(tmp_path_factory.mktemp("tour"))
    sys.path.insert(0, str(player.folder))
    try:
        player.play(ROOT / "docs" / "tour.md")
        yield player
    finally:
        sys.path.remove(str(player.folder))
        player.close()


def test_the_tour_can_be_walked_and_its_service_follows(player: Player) -> None:
    releases = Releases(player.folder / "faster" / "releases")
    older, _ = releases.ids()
    assert releases.current() == older
    deadline = time.monotonic() + 30
    while json.loads(player.run(f"curl {URL}/readyz"))["release"] != older:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_guides_do_what_they_say(page: Path, player: Player) -> None:
    player.play(page)


def test_the_readmes_python_runs_as_it_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    english, chinese = ([b for b in blocks(page) if b.info == "python"] for page in (README, CHINESE))
    assert [b.text for b in english] == [b.text for b in chinese]
    (block,) = english
    assert len(block.text.splitlines()) <= 15
    runpy.run_path(str(ROOT / "examples" / "synthetic_log.py"))["write"](tmp_path, users=60, items=40)
    with contextlib.chdir(tmp_path):
        zhiyin("init", "events.csv", "--items", "items.csv", "--users", "users.csv")
        exec(compile(block.text, "README.md", "exec"), {})  # noqa: S102
    printed = capsys.readouterr().out
    assert "60 users, 40 items, 360 events" in printed
    assert "recall@10" in printed
    assert printed.count("'title': 'item ") == 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_line_names_an_existing_verb_and_options(page: Path) -> None:
    for line in command_lines(page.read_text()):
        words = shlex.split(line, comments=True)
        if len(words) < 2 or words[1].startswith("-"):
            continue
        assert words[1] in VERBS, f"{page.name}: {line}"
        options = options_of(words[1])
        for word in words[2:]:
            if word.startswith("-"):
                assert word.split("=")[0] in options, f"{page.name}: {line}; there are {', '.join(sorted(options))}"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_tells_what_it_does_and_shows_a_command_line_that_works(verb: str) -> None:
    printed = zhiyin(verb, "--help")
    assert VERBS[verb].help.split()[0] in printed
    (line,) = command_lines(VERBS[verb].epilog)
    assert line in " ".join(printed.split())
    words = shlex.split(line)
    assert words[1] == verb
    VERBS[verb].make_context(verb, words[2:])
    for parameter in VERBS[verb].params:
        assert parameter.name == "help" or parameter.help, f"{verb}: {parameter.name} has no help"


def test_command_lines_are_found_where_they_stand() -> None:
    text = "run `zhiyin fit a.toml`\n\n    zhiyin serve a.toml   # HTTP\n\n```console\n$ zhiyin ask 7 -k 5\n…\n```\n"
    assert command_lines(text) == ["zhiyin fit a.toml", "zhiyin serve a.toml   # HTTP", "zhiyin ask 7 -k 5"]


def command_lines(text: str) -> list[str]:
    return [
        match[1].strip()
        for match in re.finditer(r"(?:`|^ {4}|^\$ (?:\w+=\S+ )?)(zhiyin [a-z][^`\n]*)", text, re.MULTILINE)
    ]


def options_of(verb: str) -> set[str]:
    parameters = VERBS[verb].params
    return {"--help", "-h"} | {name for one in parameters for name in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


@pytest.mark.parametrize("page", [README, CHINESE], ids=["English", "Chinese"])
def test_the_tree_names_what_is_there_and_all_of_the_package(page: Path) -> None:
    tree = next(part for part in indented(page) if "src/zhiyin/" in part)
    outside, inside = (re.findall(rf"^ {{{margin}}}([\w./]+)", tree, re.MULTILINE) for margin in (4, 6))
    for name in (*outside, *(f"src/zhiyin/{name}" for name in inside)):
        assert (ROOT / name).is_dir() if name.endswith("/") else (ROOT / name).is_file(), name
    package = (ROOT / "src" / "zhiyin").iterdir()
    there = {f"{p.name}/" if p.is_dir() else p.name for p in package if p.suffix in ("", ".py")}
    assert there - set(inside) - {"__pycache__/"} == {"__init__.py"}


def indented(page: Path) -> list[str]:
    """The blocks that four spaces make."""
    return re.findall(r"(?:^(?: {4}.*)?\n)+", page.read_text(), re.MULTILINE)


def test_both_readmes_show_the_same_commands() -> None:
    def shown(page: Path) -> list[str]:
        lines = [line for part in indented(page) for line in part.splitlines()]
        return [
            " ".join(shlex.split(line, comments=True)) for line in lines if re.match(r" {4}(make|zhiyin|pip) ", line)
        ]

    assert shown(README) == shown(CHINESE)
    assert len(shown(README)) >= 9


KINDS = {
    "models": ("模型", "zhiyin.models", ()),
    "negatives": ("负采样", "zhiyin.learning", ("negatives", "streaming", "hard")),
    "losses": ("损失", "zhiyin.learning", ("losses",)),
    "features": ("特征", "zhiyin.features", ()),
    "splits": ("数据切分", "zhiyin.data", ("splits",)),
    "indexes": ("索引", "zhiyin.indexes", ()),
    "stores": ("存储", "zhiyin.stores", ()),
    "channels": ("通道", "zhiyin.channels", ("deep", "popular", "item_to_item", "fresh", "neighbours", "listed")),
    "merges": ("合并", "zhiyin.channels", ("merge",)),
}
"""What a place in a recipe can be filled with: its row in the Chinese README, its package, its modules there (all)."""


def choices(kind: str) -> list[tuple[str, str]]:
    """(module, class) of every spec of a kind."""
    _, package, only = KINDS[kind]
    return [(module, name) for module, name in spec.choices(package) if module in (only or (module,))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_readmes_tables_list_exactly_what_there_is(kind: str) -> None:
    for page, title in ((README, kind), (CHINESE, KINDS[kind][0])):
        (row,) = re.findall(rf"^\| {title} \| (.*) \|$", page.read_text(), re.MULTILINE)
        assert sorted(re.findall(r"`(\w+)`", row)) == sorted(name for _, name in choices(kind)), page.name


TABLE_SPECS: dict[str, type] = {
    "data": Source,
    "features": Schema,
    "optimizer": Optimizer,
    "training": Training,
    "promise": Promise,
    "online": Online,
    "releases": Repository,
    "service": Service,
}


def test_the_recipe_guide_has_every_table() -> None:
    text = (ROOT / "docs" / "guides" / "recipe.md").read_text()
    assert re.findall(r"^## `\[?(\w+)\]?`", text, re.MULTILINE) == list(TABLES)


@pytest.mark.parametrize("name", TABLE_SPECS)
def test_the_recipe_guide_has_every_key_and_its_default(name: str) -> None:
    page = ROOT / "docs" / "guides" / "recipe.md"
    section = page.read_text().split(f"## `[{name}]`")[1]
    assert keys(re.split(r"\n##+ ", section)[0]) == defaults(TABLE_SPECS[name])


@pytest.mark.parametrize("kind", KINDS)
def test_the_guides_have_every_choice_with_its_keys_and_defaults(kind: str) -> None:
    text = (ROOT / "docs" / "guides" / ("features.md" if kind == "features" else "recipe.md")).read_text()
    for module, name in choices(kind):
        title = f"### `{module}:{name}`\n"
        assert title in text
        section = re.split(r"\n##+ ", text.split(title)[1])[0]
        spec_class = getattr(import_module(f"{KINDS[kind][1]}.{module}"), name)
        assert keys(section) == defaults(spec_class), title


def test_the_guides_have_no_choice_that_is_not_there() -> None:
    text = "".join((ROOT / "docs" / "guides" / page).read_text() for page in ("recipe.md", "features.md"))
    there = {f"{module}:{name}" for kind in KINDS for module, name in choices(kind)}
    assert set(re.findall(r"^### `(.*)`", text, re.MULTILINE)) == there


def keys(section: str) -> dict[str, str]:
    """The rows of a section's table: key and default."""
    rows = re.findall(r"^\| `(\w+)` \| ((?:\\\||[^|])+?) \|", section, re.MULTILINE)
    return {key: default.replace("\\|", "|") for key, default in rows}


def defaults(kind: Any) -> dict[str, str]:
    """A spec's keys as TOML says them, with their defaults; what only `fit` sets is none of a recipe's."""
    found = {}
    for field in dataclasses.fields(kind):
        if not field.init or not field.repr:
            continue
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        found[field.name] = "required" if missing else written(default)
    return found


def written(value: Any) -> str:
    if value is None or isinstance(value, Path):
        return "none" if value is None else f'`"{value}"`'
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    if dataclasses.is_dataclass(value):
        module = type(value).__module__.rpartition(".")[2]
        return f'`{{ use = "{module}:{type(value).__name__}" }}`'
    return "`inf`" if value == math.inf else f"`{json.dumps(value)}`"


def test_no_page_names_a_file_that_is_not_there() -> None:
    for page in PAGES:
        for name in re.findall(r"`((?:src|tests|examples|docs|benchmarks)/[\w./-]+)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"
