"""A prepared folder is opened by its format: this one and older, not a newer."""

import json
from pathlib import Path

import pytest

from zhiyin.data import worlds
from zhiyin.data.prepared import FORMAT, Prepared
from zhiyin.errors import DataError


def test_a_newer_format_is_refused_and_an_older_one_is_not(tmp_path: Path) -> None:
    worlds.ring(3, 4, 5, 0.1, 0).save(tmp_path / "data")
    manifest = tmp_path / "data" / "manifest.json"
    told = json.loads(manifest.read_text())
    assert told["format"] == FORMAT == 2
    manifest.write_text(json.dumps(told | {"format": 3}))
    with pytest.raises(DataError, match=r"prepared by a newer zhiyin \(format 3\).*expected format 2 or older"):
        Prepared.open(tmp_path / "data")
    manifest.write_text(json.dumps(told | {"format": 1}))
    assert Prepared.open(tmp_path / "data").items.ids() == ["i0", "i1", "i2", "i3"]
