"""A prepared data set on disk: the same again, and known when it is half there or too new."""

import json
from pathlib import Path

import numpy as np
import pytest

from zhiyin.data.prepared import FORMAT, Prepared
from zhiyin.data.sources import Source, prepare
from zhiyin.errors import DataError


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        Prepared.open(folder)
    return str(caught.value)


def test_a_saved_data_set_is_mapped_and_the_same(data: Prepared, tmp_path: Path) -> None:
    data.save(tmp_path / "a" / "prepared")
    again = Prepared.open(tmp_path / "a" / "prepared")
    assert again.users.ids() == data.users.ids()
    assert again.items.ids() == data.items.ids()
    assert isinstance(again.events.items, np.memmap)
    np.testing.assert_array_equal(again.events.items, data.events.items)
    np.testing.assert_array_equal(again.events.times, data.events.times)
    assert again.events.columns.arrow.equals(data.events.columns.arrow)
    assert again.user_table.arrow.equals(data.user_table.arrow)
    assert again.item_table.arrow.equals(data.item_table.arrow)
    assert again.clock is data.clock is True


def test_there_is_none(tmp_path: Path) -> None:
    words = "no prepared data here. Run `zhiyin prepare recipe.toml` first."
    assert refused(tmp_path / "nowhere") == f"{tmp_path}/nowhere: {words}"
    assert refused(tmp_path) == f"{tmp_path}: {words}"


@pytest.mark.parametrize("name", ["manifest.json", "items.arrow", "users.arrow"])
def test_a_damaged_one_is_told_with_the_way_out(data: Prepared, tmp_path: Path, name: str) -> None:
    data.save(tmp_path / "prepared")
    (tmp_path / "prepared" / name).write_text("{")
    message = refused(tmp_path / "prepared")
    assert message.startswith(f"{tmp_path}/prepared: damaged: ")
    assert message.endswith("Run `zhiyin prepare recipe.toml` again.")
    (tmp_path / "prepared" / name).unlink()
    assert name == "manifest.json" or refused(tmp_path / "prepared").startswith(f"{tmp_path}/prepared: damaged: ")


def test_a_folder_that_was_not_finished_is_none(
    data: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, text: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        data.save(tmp_path / "prepared")
    assert (tmp_path / "prepared" / "items.arrow").exists(), "all but the manifest, which is written last"
    assert "no prepared data here" in refused(tmp_path / "prepared")


def test_a_newer_format_is_refused(data: Prepared, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    data.save(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["format"] == FORMAT
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": FORMAT + 1}))
    assert refused(folder) == (
        f"{folder}: prepared by a newer zhiyin (format {FORMAT + 1}); expected format {FORMAT} or older. "
        "Upgrade zhiyin, or prepare the data again."
    )


def test_the_manifest_counts(data: Prepared, tmp_path: Path) -> None:
    data.save(tmp_path / "prepared")
    manifest = json.loads((tmp_path / "prepared" / "manifest.json").read_text())
    assert manifest == {"format": FORMAT, "users": 40, "items": 60, "events": 480, "clock": True, "lineage": ""}


# small logs that are right all the same


def test_a_user_with_one_event_and_a_catalogue_of_one_item(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,i,1000000000\n")
    summary = prepare(Source(tmp_path / "log.csv"), tmp_path / "prepared")
    assert (summary.users, summary.items, summary.events) == (1, 1, 1)
    data = Prepared.open(tmp_path / "prepared")
    assert data.events.history(0).tolist() == []
    assert data.events.histories(np.array([0]), 3).tolist() == [[-1, -1, -1]]


def test_times_in_any_order_are_sorted_and_ties_keep_their_arrival(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,c,9\nu,a,3\nu,b,3\nu,d,1\n")
    prepare(Source(tmp_path / "log.csv", time_unit="position"), tmp_path / "prepared")
    data = Prepared.open(tmp_path / "prepared")
    assert data.items.ids(data.events.items) == ["d", "a", "b", "c"]


def test_duplicate_events_are_told_and_dropped_or_kept(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,time\nu,i,1\nu,i,1\nu,i,2\n")
    for duplicates, left in (("drop", 2), ("keep", 3)):
        source = Source(tmp_path / "log.csv", duplicates=duplicates)  # type: ignore[arg-type]
        summary = prepare(source, tmp_path / duplicates)
        assert (summary.events, summary.duplicates) == (left, 1)
        told = "dropped" if duplicates == "drop" else "kept"
        assert f"1 events repeat an earlier one's user, item and time: {told}" in summary.words()
        assert len(Prepared.open(tmp_path / duplicates).events) == left
