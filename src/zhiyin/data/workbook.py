"""The first sheet of an Excel workbook as csv: enough of ECMA-376 part 1 (§18.3, §18.4) for plain tables."""

import csv
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from zhiyin.errors import DataError

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_SHEET, _STRINGS = "xl/worksheets/sheet1.xml", "xl/sharedStrings.xml"


def to_csv(workbook: Path, target: Path) -> None:
    """Write the first sheet's cells, as text, rows as long as the first; dates stay numbers: days since 1899-12-30.

    Raises `DataError` for a file that is no workbook.
    """
    try:
        with zipfile.ZipFile(workbook) as archive, target.open("w", encoding="utf-8", newline="") as file:
            writer, width = csv.writer(file), 0
            for row in _rows(archive):
                width = width or len(row)
                writer.writerow(row + [""] * (width - len(row)))
    except (zipfile.BadZipFile, zlib.error, EOFError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise DataError(
            f"the workbook cannot be read ({error})",
            where=str(workbook),
            expected=f"an .xlsx file with {_SHEET}",
            remedy="Fetch it again.",
        ) from None


def _rows(archive: zipfile.ZipFile) -> Iterator[list[str]]:
    strings = _strings(archive) if _STRINGS in archive.namelist() else []
    with archive.open(_SHEET) as sheet:
        # expat itself limits the expansion of entities
        for _, element in ElementTree.iterparse(sheet):  # noqa: S314
            if element.tag == f"{_MAIN}row":
                yield _row(element, strings)
                element.clear()


def _strings(archive: zipfile.ZipFile) -> list[str]:
    found = []
    with archive.open(_STRINGS) as file:
        for _, element in ElementTree.iterparse(file):  # noqa: S314
            if element.tag == f"{_MAIN}si":
                found.append(_text(element))
                element.clear()
    return found


def _row(row: ElementTree.Element, strings: list[str]) -> list[str]:
    values: list[str] = []
    for cell in row.iter(f"{_MAIN}c"):
        place = _column(cell.get("r", "")) if cell.get("r") else len(values)
        values += [""] * (place - len(values))
        values.append(_value(cell, strings))
    return values


def _value(cell: ElementTree.Element, strings: list[str]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return _text(cell)
    value = cell.findtext(f"{_MAIN}v", "")
    return strings[int(value)] if kind == "s" else value


def _text(element: ElementTree.Element) -> str:
    """All of a string's runs; the phonetic hints of East Asian text are no part of it."""
    hints = {text for hint in element.iter(f"{_MAIN}rPh") for text in hint.iter(f"{_MAIN}t")}
    return "".join(text.text or "" for text in element.iter(f"{_MAIN}t") if text not in hints)


def _column(reference: str) -> int:
    """AB12 → 27."""
    number = 0
    for letter in reference:
        if letter.isalpha():
            number = number * 26 + ord(letter) - ord("A") + 1
    return number - 1
