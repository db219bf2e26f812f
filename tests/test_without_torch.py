"""The online path in an environment of its own: the base dependencies alone, no torch, a real server, a real answer."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "format-1"
BARE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with what `pip install zhiyin` brings, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    project = folder / "project"
    shutil.copytree(ROOT / "src", project / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "-q", "--no-compile", "--no-deps", str(project)]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (zhiyin,) = metadata.distributions(name="zhiyin", path=[str(packages)])
    for name in needed(zhiyin.requires or ()):
        link(name, packages)
    return python


def needed(requirements: Iterable[str]) -> set[str]:
    """The packages that pip would install for these: theirs too, and those that an extra of one brings."""
    found: set[str] = set()
    waiting = [(Requirement(words), "") for words in requirements]
    asked: set[tuple[str, str]] = set()
    while waiting:
        one, extra = waiting.pop()
        if one.marker and not one.marker.evaluate({"extra": extra}):
            continue
        found.add(one.name)
        for wanted in {"", *one.extras}:
            if (one.name, wanted) not in asked:
                asked.add((one.name, wanted))
                waiting += [(Requirement(words), wanted) for words in metadata.requires(one.name) or ()]
    return found


def link(name: str, packages: Path) -> None:
    """Let an environment have a package that is installed here: copying is most of what pip does."""
    distribution = metadata.distribution(name)
    for top in {path.parts[0] for path in distribution.files or ()} - {"..", "__pycache__"}:
        if not (packages / top).exists():
            (packages / top).symlink_to(str(distribution.locate_file(top)))


def zhiyin(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python.parent / "zhiyin"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=BARE)


@pytest.fixture
def server(python: Path, tmp_path: Path) -> Iterator[str]:
    """`zhiyin serve` on the golden release; its URL. It must end well when it is told to."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "releases").symlink_to(GOLDEN)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('home = "home"\n[data]\nevents = "log.csv"\n[store]\nuse = "lmdb:LMDB"\nmap_gb = 0.1\n')
    process = subprocess.Popen(
        [str(python.parent / "zhiyin"), "serve", str(recipe), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=BARE,
    )
    assert process.stderr is not None
    heard = ""
    while not (found := re.search(r"http://\S+", heard)):
        line = process.stderr.readline()
        assert line, heard
        heard += line
    yield found[0]
    process.terminate()
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 0, said


def post(url: str, body: object) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(url, json=body, timeout=20).raise_for_status().json()
    return answer


def test_there_is_no_torch(python: Path) -> None:
    done = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True, check=False, env=BARE)
    assert "No module named 'torch'" in done.stderr


def test_it_serves_events_and_answers(server: str) -> None:
    one = json.loads((GOLDEN / "answers.json").read_text())[0]
    asked = json.loads(one["request"])
    events = [{"user_id": "u", **event} for event in asked["events"]]
    assert post(f"{server}/v1/events", {"events": events})["accepted"] == 2
    stored = post(f"{server}/v1/retrieve", {"user_id": "u", "k": 5})
    assert (stored["channel"], stored["history"], len(stored["candidates"])) == ("deep", 2, 5)
    inline = post(f"{server}/v1/retrieve", {**asked, "time": 1_767_225_600})
    assert [candidate["item_id"] for candidate in inline["candidates"]] == one["items"]


def test_what_needs_torch_says_how_to_get_it(python: Path, tmp_path: Path) -> None:
    log, recipe = tmp_path / "log.csv", str(tmp_path / "recipe.toml")
    log.write_text("user,item,time\n" + "".join(f"u,i{at},{1_700_000_000 + at}\n" for at in range(9)))
    assert zhiyin(python, "init", str(log), "--out", recipe).returncode == 0
    done = zhiyin(python, "fit", recipe)
    assert done.returncode == 2
    assert "needs the package 'torch', which is not installed. pip install 'zhiyin[train]'" in done.stderr


def test_importing_zhiyin_brings_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "duckdb", "faiss", "onnxruntime", "pyarrow", "lmdb", "msgspec")
    for module in ("zhiyin", "zhiyin.cli"):
        program = f"import sys, {module}; print(sorted({set(heavy)} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]", module
