"""A publish that is killed at any moment: the soak with 200 kills, in small."""

import json
import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak" / "killed_publishes.py"


def test_a_reader_finds_a_whole_release_however_often_publishing_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, str(SOAK), "--kills", "8", "--seed", "5"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert sum(found["killed"].values()) == 8
    assert found["killed"].get("while it was built", 0) >= 1
    assert found["left"] == []
    assert found["reader"]["trouble"] == []
    assert found["reader"]["opened"] >= 8
    assert found["releases at the end"] >= 3
