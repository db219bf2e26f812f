"""The demo, end to end, on a small set of the same form: `zhiyin demo --data FOLDER`."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zhiyin.releases import Releases

FILMS = [*range(1, 46), 50, 172, 181, 313]
USERS = [*range(1, 40), 196]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """As GroupLens ships MovieLens-100K: u.data, u.item, u.user; two kinds of films, and users who keep to one."""
    random, folder = np.random.default_rng(0), tmp_path / "ml-100k"
    folder.mkdir()
    log, clock = [], 880_000_000
    for user in USERS:
        liked = [film for at, film in enumerate(FILMS) if at % 2 == user % 2]
        for film in random.permutation(liked)[:12]:
            clock += 60
            log.append(f"{user}\t{film}\t{random.integers(1, 6)}\t{clock}")
    (folder / "u.data").write_text("\n".join(log) + "\n")
    flags = ["|".join(str(int(flag == 1 + at % 2)) for flag in range(19)) for at in range(len(FILMS))]
    films = [f"{film}|Film {film} (1995)|01-Jan-1995||http://x|{flags[at]}" for at, film in enumerate(FILMS)]
    (folder / "u.item").write_bytes(("\n".join(films) + "\n").encode("latin-1"))
    users = [f"{user}|{20 + user % 40}|{'MF'[user % 2]}|{'writer' if user % 3 else 'artist'}|00000" for user in USERS]
    (folder / "u.user").write_text("\n".join(users) + "\n")
    return folder


def demo(home: Path, data: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "zhiyin.cli", "demo", "--home", str(home), "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "200"})


def test_the_demo_goes_from_the_log_to_an_answer_that_changes(tmp_path: Path, films: Path) -> None:
    home = tmp_path / "demo"
    done = demo(home, films)
    said = " ".join(done.stderr.split())
    assert done.returncode == 0, said
    for words in (
        "40 users, 49 items, 480 events",
        "popularity",
        "item-kNN",
        "is live",
        "user 196, known from the log",
        "a brand-new user who watched Film 50 (1995) · Film 172 (1995) · Film 181 (1995)",
        "the same user, one event later: Film 313 (1995)",
        "the answer changed with the event",
    ):
        assert words in said, words
    assert len(re.findall(r"deep channel, history (\d+)", said)) == 3
    assert re.findall(r"deep channel, history (\d+)", said)[1:] == ["3", "4"]
    assert len(Releases(home / "releases").ids()) == 1


def test_a_folder_that_is_no_movielens_is_refused(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", tmp_path)
    assert done.returncode == 2
    assert "not found" in done.stderr
    assert "Traceback" not in done.stderr
