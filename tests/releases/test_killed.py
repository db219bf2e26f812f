"""A publish that is killed at any moment: the soak with 400 kills, in small."""

import json
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak" / "killed_publishes.py"


def test_a_reader_finds_a_whole_release_however_often_publishing_is_killed() -> None:
    words = ("--kills", "20")
    done = subprocess.run([sys.executable, str(SOAK), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert sum(found["killed"].values()) == int(words[1])
    assert found["killed"]["while it was built"] >= 1
    assert min(found["killed at any moment"], found["killed after the first manifest"]) >= 1
    assert (found["left"], found["reader"]["trouble"]) == ([], [])
    assert found["reader"]["opened"] >= 8
    assert found["releases at the end"] >= 3
