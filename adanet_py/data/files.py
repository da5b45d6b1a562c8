"""Reading table files: CSV, Parquet, Feather.

CSV is read in chunks of rows. A column whose chunks disagree about its type (a stray word after
200,000 numbers) is read a second time as text, so that no cell depends on where a chunk ended and
"007" is never "007" in one half of a column and 7 in the other.
"""

from __future__ import annotations

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from adanet_py.data.cells import number
from adanet_py.errors import DataError, nearest

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".feather", ".arrow")
_REPLACE = "Give another file, or write this one again."
_CELLS_PER_CHUNK = 1_500_000
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas", " ": "spaces"}
_HINTS = {
    ".xlsx": "Save the sheet as CSV.",
    ".xls": "Save the sheet as CSV.",
    ".ods": "Save the sheet as CSV.",
    ".txt": "If it is a CSV file, rename it.",
    ".dat": "If it is a CSV file, rename it.",
    ".data": "If it is a CSV file, rename it.",
    ".zip": "Unpack it first.",
}


def read_file(path: Path) -> pd.DataFrame:
    """Read a table file; text columns that repeat themselves come as categories.

    Raises DataError when the file is missing, empty, not of a known type, not a table, has the
    wrong delimiter, or two columns of one name.
    """
    name = path.name.lower()
    if not path.exists():
        raise DataError(f"No such file: {path}. Expected the path of a table.{_neighbour(path)}")
    if path.is_dir():
        raise DataError(f"Expected a file, found a folder: {path}. Name a file in it.")
    if not name.endswith(SUFFIXES):
        raise DataError(
            f"{path}: expected a file ending in {', '.join(SUFFIXES)}, found {path.suffix!r}. "
            + _HINTS.get(path.suffix.lower(), "Convert it, or read it and pass the DataFrame.")
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty: expected a header line and rows. {_REPLACE}")
    if name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        return _read_text(path, "\t" if name.endswith((".tsv", ".tsv.gz")) else ",")
    try:
        frame = pd.read_parquet(path) if name.endswith(".parquet") else pd.read_feather(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these two
        raise DataError(f"{path} cannot be read: {_first_line(error)} {_REPLACE}") from error
    return frame


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no folder {path.parent} either."
    return nearest(path.name, (p.name for p in islice(path.parent.iterdir(), 10_000)))


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _open(path: Path) -> TextIO:
    if path.name.lower().endswith(".gz"):
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _read_text(path: Path, delimiter: str) -> pd.DataFrame:
    try:
        header = _read_header(path, delimiter)
        return _read_rows(path, delimiter, header)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: expected UTF-8 text, found the byte {error.object[error.start]:#04x} that is "
            "none. Save the file as UTF-8, or read it with pandas and pass the DataFrame."
        ) from error
    except gzip.BadGzipFile as error:
        raise DataError(
            f"{path}: expected a file compressed with gzip, found another. If it is plain text, "
            "take .gz off its name."
        ) from error
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {_first_line(error)} {_REPLACE}") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error, ValueError) as error:
        message = _first_line(error).removeprefix("Error tokenizing data. C error: ")
        raise DataError(
            f"{path}: the rows do not fit the header: {message}. Check the delimiter and quotes."
        ) from error


def _read_header(path: Path, delimiter: str) -> list[str]:
    with _open(path) as file:
        first = _first_rows(file, delimiter)
        file.seek(0)
        text = file.read(1 << 16)  # a quote of another delimiter may stay open to the end
    if not first or not any(cell.strip() for cell in first[0]):
        raise DataError(f"{path} is empty: expected a header line and rows. {_REPLACE}")
    header = [cell.strip() or f"Unnamed: {i}" for i, cell in enumerate(first[0])]
    for other in _DELIMITERS:
        if other != delimiter and _fits_better(_first_rows(io.StringIO(text), other), other, first):
            seen = "one column" if len(header) == 1 else f"{len(header)} columns, the first"
            raise DataError(
                f"{path}: expected columns separated by {_DELIMITERS[delimiter]}, found {seen} "
                f"{header[0][:60]!r}: it looks separated by {_DELIMITERS[other]}. Save the file "
                "with commas (.csv) or tabs (.tsv), or read it with "
                f"pandas.read_csv({path.name!r}, sep={other!r}) and pass the DataFrame."
            )
    if len(first) == 1:
        raise DataError(f"{path}: expected rows after the header line, found none. {_REPLACE}")
    if len(first[1]) > len(header):
        raise DataError(
            f"{path}: the header names {len(header)} columns, the first row has {len(first[1])} "
            "cells. Give every column a name."
        )
    check_names(header, str(path))
    return header


def _first_rows(file: TextIO, delimiter: str) -> list[list[str]]:
    """The header and up to five rows, blank lines apart."""
    return list(islice((row for row in csv.reader(file, delimiter=delimiter) if row), 6))


def _fits_better(rows: list[list[str]], delimiter: str, first: list[list[str]]) -> bool:
    """Whether `delimiter` splits the file into `rows` that look more like a table than `first`."""
    header = len(rows[0])
    alike = all(len(row) == header for row in rows)
    if delimiter == " ":  # words of one column are separated by spaces as well
        return len(first[0]) == 1 and header > 2 and alike and len(rows) > 2
    uneven = any(len(row) != len(first[0]) for row in first)
    return header > 1 and (len(first[0]) == 1 or (alike and uneven and header > len(first[0])))


def suspect_header(names: list[str]) -> str:
    """A hint where the names look like the cells of a first row, or an empty string."""
    if 2 * sum(number(n) is not None for n in names) > len(names) > 1:
        return " They look like values: is the header line missing?"
    return ""


def check_names(names: list[str], where: str) -> None:
    """Raise DataError if two columns have one name."""
    seen: set[str] = set()
    twice = [n for n in names if n in seen or seen.add(n)]  # type: ignore[func-returns-value]
    if twice:
        places = [i + 1 for i, n in enumerate(names) if n == twice[0]]
        raise DataError(
            f"{where}: expected every column to have its own name, found {twice[0]!r} "
            f"{len(places)} times (columns {', '.join(map(str, places))}). Rename or remove one."
            + suspect_header(names)
        )


def _chunks(
    path: Path, delimiter: str, header: list[str], **options: Any
) -> Iterator[pd.DataFrame]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # it would cut cells off
        with _open(path) as file:
            yield from pd.read_csv(
                file,
                sep=delimiter,
                header=0,
                names=header,
                chunksize=max(1000, _CELLS_PER_CHUNK // len(header)),
                keep_default_na=False,
                na_values=[""],
                index_col=False,
                low_memory=False,
                **options,
            )


def _read_rows(path: Path, delimiter: str, header: list[str]) -> pd.DataFrame:
    parts: dict[str, list[Any]] = {}
    for chunk in _chunks(path, delimiter, header):
        for name in chunk.columns:
            parts.setdefault(name, []).append(chunk[name].array)
    unsure = [name for name, arrays in parts.items() if not _agree(arrays)]
    if unsure:
        for name in unsure:
            parts[name] = []
        for chunk in _chunks(path, delimiter, header, usecols=unsure, dtype="str"):
            for name in unsure:
                parts[name].append(chunk[name].array)
    return pd.DataFrame({name: _join(parts.pop(name)) for name in list(parts)}, copy=False)


def _agree(arrays: list[Any]) -> bool:
    number = [a.dtype.kind in "iuf" for a in arrays]
    return all(number) or all(pd.api.types.infer_dtype(a, skipna=True) == "string" for a in arrays)


def _join(arrays: list[Any]) -> Any:
    if arrays[0].dtype.kind in "iuf":
        return np.concatenate([a.to_numpy() for a in arrays])
    joined = pd.concat([pd.Series(a) for a in arrays], ignore_index=True)
    codes, values = pd.factorize(joined)
    if 2 * len(values) <= len(joined):  # then codes take less room than the text
        return pd.Categorical.from_codes(codes, categories=values)
    return joined.array
