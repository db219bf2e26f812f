"""Workbooks as csv: every way a cell may be written."""

import csv
import zipfile
from pathlib import Path

import pytest

from zhiyin.data.workbook import to_csv
from zhiyin.errors import DataError

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
STRINGS = (
    f"<sst {MAIN}><si><t>name</t></si><si><r><t>in </t></r><r><rPr><b/></rPr><t>runs</t></r></si>"
    '<si><t>東京</t><rPh sb="0" eb="2"><t>トウ</t></rPh></si><si><t xml:space="preserve"> kept </t></si><si/></sst>'
)


def written(path: Path, rows: str, strings: str = STRINGS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}><sheetData>{rows}</sheetData></worksheet>")
        if strings:
            archive.writestr("xl/sharedStrings.xml", strings)
    return path


def read(workbook: Path) -> list[list[str]]:
    target = workbook.with_suffix(".csv")
    to_csv(workbook, target)
    with target.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_every_kind_of_cell(tmp_path: Path) -> None:
    rows = (
        '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="inlineStr"><is><t>inline, "q"</t></is></c>'
        '<c r="C1" t="str"><f>A1</f><v>formula</v></c><c r="D1"/></row>'
        '<row r="2"><c r="A2" t="s"><v>1</v></c><c r="B2"><v>40513.351388888892</v></c>'
        '<c r="C2" t="b"><v>1</v></c></row>'
        '<row r="3"><c r="A3" t="s"><v>2</v></c><c r="C3" t="e"><v>#N/A</v></c><c r="D3" t="s"><v>4</v></c></row>'
        '<row r="4"><c t="s"><v>3</v></c><c t="inlineStr"><is><t>two\nlines</t></is></c></row>'
        '<row r="5"/>'
    )
    assert read(written(tmp_path / "x.xlsx", rows)) == [
        ["name", 'inline, "q"', "formula", ""],
        ["in runs", "40513.351388888892", "1", ""],
        ["東京", "", "#N/A", ""],
        [" kept ", "two\nlines", "", ""],
        ["", "", "", ""],
    ]


def test_columns_beyond_z(tmp_path: Path) -> None:
    rows = '<row r="1"><c r="Z1"><v>26</v></c><c r="AA1"><v>27</v></c><c r="BC1"><v>55</v></c></row>'
    found = read(written(tmp_path / "x.xlsx", rows, strings=""))[0]
    assert len(found) == 55
    assert {place: value for place, value in enumerate(found, 1) if value} == {26: "26", 27: "27", 55: "55"}


def broken(tmp_path: Path) -> dict[str, Path]:
    good = written(tmp_path / "good.xlsx", "<row r='1'><c r='A1'><v>1</v></c></row>").read_bytes()
    files = {"text.xlsx": b"no zip", "cut.xlsx": good[:-30], "empty.xlsx": b""}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "other.xlsx", "w") as archive:
        archive.writestr("xl/worksheets/sheet9.xml", "<x/>")
    with zipfile.ZipFile(tmp_path / "damaged.xlsx", "w") as archive:
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}><sheetData>" + "<row r='1'/>" * 9)
    with zipfile.ZipFile(tmp_path / "flipped.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}><sheetData></sheetData></worksheet>")
    packed = bytearray((tmp_path / "flipped.xlsx").read_bytes())
    packed[30 + len("xl/worksheets/sheet1.xml")] |= 0b110  # a block of a type that there is not
    (tmp_path / "flipped.xlsx").write_bytes(packed)
    written(tmp_path / "strings.xlsx", '<row r="1"><c t="s"><v>99</v></c></row>')
    written(tmp_path / "index.xlsx", '<row r="1"><c t="s"><v>x</v></c></row>')
    return {path.stem: path for path in tmp_path.glob("*.xlsx") if path.stem != "good"}


def test_what_is_no_workbook_is_told(tmp_path: Path) -> None:
    found = broken(tmp_path)
    assert len(found) == 8
    for path in found.values():
        with pytest.raises(DataError) as caught:
            to_csv(path, tmp_path / "out.csv")
        assert str(caught.value).startswith(f"{path}: the workbook cannot be read (")
        assert str(caught.value).endswith("expected an .xlsx file with xl/worksheets/sheet1.xml. Fetch it again.")
