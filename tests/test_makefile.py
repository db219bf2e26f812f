"""What make says before anything is installed. Nothing here installs: each rule is stopped, or has nothing to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *words: str, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    command = shutil.which("make")
    assert command, "make is not installed"
    environment = {"PATH": path, "LC_ALL": "C"}
    return subprocess.run([command, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("goal", ["demo", "test", "check"])
def test_an_old_python_is_refused_in_a_sentence_before_anything_is_made(checkout: Path, goal: str) -> None:
    pretend = "import sys; sys.version_info = (3, 9, 2, 'final', 0); exec(sys.argv[1])"
    old = script(checkout / "python3.9", f'exec {sys.executable} -c "{pretend}" "$2"')
    done = make(checkout, goal, f"PYTHON={old}")
    assert done.returncode == 2
    assert f"zhiyin needs Python 3.11 or newer, and {old} is 3.9. Name another: make PYTHON=python3.11" in done.stderr
    assert not (checkout / ".venv").exists()


def test_nothing_is_done_twice(checkout: Path) -> None:
    bin = checkout / ".venv" / "bin"
    bin.mkdir(parents=True)
    script(bin / "zhiyin", "echo zhiyin $@")
    (checkout / ".venv" / ".installed").touch()
    done = make(checkout, "demo", "PYTHON=false")
    assert (done.returncode, done.stdout, done.stderr) == (0, "zhiyin demo\n", "")


def test_a_changed_requirement_installs_again(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".installed").touch()
    os.utime(checkout / ".venv" / ".installed", (1, 1))
    assert make(checkout, "demo", "PYTHON=false").returncode == 2


def test_a_program_that_is_there_is_not_asked_for(checkout: Path) -> None:
    done = make(checkout, "programs", "PROGRAMS=sh:dash")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_program_that_is_missing_is_installed_and_said_so(checkout: Path) -> None:
    bin = checkout / "bin"
    bin.mkdir()
    script(bin / "apt-get", f'echo "$@" > {checkout}/asked')
    script(bin / "sudo", 'exec "$@"')
    done = make(checkout, "programs", "PROGRAMS=no-such-server:the-package", path=f"{bin}:{os.environ['PATH']}")
    assert done.stdout == "the tests need no-such-server, which is not here: apt installs the-package\n"
    assert (checkout / "asked").read_text().split() == ["install", "-qq", "-y", "the-package"]


def test_without_apt_the_way_out_is_told(checkout: Path) -> None:
    bin = checkout / "bin"
    bin.mkdir()
    for name in ("sh", "id"):
        (bin / name).symlink_to(shutil.which(name) or name)
    done = make(checkout, "programs", "PROGRAMS=no-such-server:the-package", path=str(bin))
    assert done.returncode == 2
    assert "install it (Debian calls it the-package)" in done.stderr


def test_help_lists_every_goal_that_is_for_people(checkout: Path) -> None:
    listed = [line.split()[0] for line in make(checkout).stdout.splitlines()]
    assert listed == ["help", "demo", "test", "check", "format", "bench", "soak", "clean"]
