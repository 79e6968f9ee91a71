"""Tables with named columns: frames of pandas, polars and others, CSV, TSV and Parquet files, as rows of numbers."""

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from iwae.data.columns import AUTO, FEW, TOTAL, Column, Level, Reading, ValueType, kind_of_counts, listed, with_total
from iwae.data.files import BadFileError, one_line
from iwae.errors import IWAEError, needs_extra
from iwae.io.files import open_regular, write_atomically

if TYPE_CHECKING:
    import narwhals as nw

SUFFIXES = (".csv", ".tsv", ".parquet")
EMPTY = ["", "NA", "N/A", "NaN", "nan", "null", "NULL"]
"""What a cell of a text file has where its value is missing."""
MOST_LEVELS = 1000
# A column of texts is refused of which more than this share are different.
MOSTLY = 0.9
_TIME = r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)? ?([AaPp][Mm]|Z|[+-]\d{2}:?\d{2})?"
_DATE = re.compile(rf"(\d{{4}}([-/.])\d{{1,2}}\2\d{{1,2}}|\d{{1,2}}([-/.])\d{{1,2}}\3\d{{2,4}})([T ]{_TIME})?|{_TIME}")


def is_table(path: str | Path) -> bool:
    """Whether a file's name is that of a table."""
    return str(path).lower().endswith(SUFFIXES)


def read_table(path: Path) -> Any:
    """The polars frame of a CSV, TSV or Parquet file; the first line of a text has the names of the columns.

    Raises BadFileError where it is none, IWAEError where it is no regular file, and OSError where it can't be read.
    """
    needs_extra("polars", "tables")
    import polars

    with open_regular(path) as stream:
        content = stream.read()
    try:
        if path.suffix.lower() == ".parquet":
            return polars.read_parquet(BytesIO(content))
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        how: dict[str, Any] = {"separator": separator, "infer_schema_length": None, "null_values": EMPTY}
        header = polars.read_csv(content, separator=separator, has_header=False, n_rows=1, infer_schema=False)
        names = ["" if name is None else name for name in header.row(0)]
        _check_different(names)
        if len(names) == 1 and (other := next((sign for sign in (";", "\t", "|", ",") if sign in names[0]), None)):
            raise BadFileError(
                f"its only column would be {names[0]!r:.80}: columns are separated by {other!r} there, expected"
                f" {separator!r} in a {path.suffix} file"
            )
        if all(map(_is_number, names)):
            raise BadFileError("its first line has numbers instead of the columns' names: add a line of names")
        return polars.read_csv(content, **how)
    except polars.exceptions.PolarsError as error:
        if "more fields" in str(error):
            raise BadFileError("a row has more fields than the first line has names of columns") from error
        if path.suffix.lower() != ".parquet" and not _is_utf8(content):
            raise BadFileError("its text is not UTF-8: save it as UTF-8 (iconv -f latin1 -t utf8 OLD > NEW)") from error
        raise BadFileError(f"not a readable table ({one_line(error)[:200]})") from error


def write_table(path: Path, frame: Any) -> None:
    """Writes a polars frame to a file of the kind that its name says, atomically."""
    content = BytesIO()
    if path.suffix.lower() == ".parquet":
        frame.write_parquet(content)
    else:
        frame.write_csv(content, separator="\t" if path.suffix.lower() == ".tsv" else ",")
    write_atomically(path, content.getvalue())


def learn_columns(frames: Mapping[str, Any], reading: Reading) -> tuple[Column, ...]:
    """What the chosen columns of some frames are, decided by type where `reading` doesn't say it: truth values are
    bernoulli, texts categorical, whole numbers counts (`kind_of_counts`), and others gaussian.

    Raises IWAEError that names the column for one that is of another type, or has too many levels.
    """
    tables = [_table(frame) for frame in frames.values()]
    if not any(map(len, tables)):
        raise IWAEError("the table has no rows")
    names = list(tables[0].columns)
    kinds, found = reading.kinds(names), []
    for name in (names[place] for place in reading.chosen(names)):
        parts = [_column(table, name) for table in tables]
        types = {_type_of(part) for part in parts} - {None}
        if len(types) > 1 and types != {"integer", "real"}:
            raise IWAEError(f"column {name!r} is {' and '.join(sorted(map(str, types)))}: use one type for all")
        if not types:
            raise IWAEError(f"column {name!r} has no value: leave it out (`target`)")
        kind_of_values: ValueType = "real" if len(types) > 1 else types.pop()  # pyright: ignore[reportAssignmentType]
        kind = kinds[names.index(name)]
        if kind == AUTO:
            kind = _decided(parts, kind_of_values)
        elif kind_of_values == "text" and kind != "categorical":
            raise IWAEError(
                f"`likelihood` {kind} is for numbers, if it is a kind, and column {name!r} has texts, such as"
                f" {_example(parts)!r}: give {name}=categorical, or leave the column out (`target`)"
            )
        levels = _levels(parts, kind_of_values) if kind == "categorical" else ()
        found.append(Column(name, kind, kind_of_values, levels))
    if reading.has_total:
        return with_total(np.ones((1, len(found))), found)[1]
    return tuple(found)


def to_rows(frame: Any, columns: Sequence[Column]) -> np.ndarray:
    """Rows `[n, dim]` of those columns of a frame, float64: levels by their numbers, NaN where a value is missing.

    Raises IWAEError that names the column for one that is not there, and for values that it did not have when the
    columns were learned.
    """
    table, own = _table(frame), _own(columns)
    for column in own:
        if column.name not in table.columns:
            raise IWAEError(f"the table has no column {column.name!r}, which the model was trained on")
    rows = np.stack([_numbers(_column(table, column.name), column) for column in own], axis=1)
    return rows if len(own) == len(columns) else with_total(rows, own)[0]


def completed(frame: Any, columns: Sequence[Column], rows: np.ndarray) -> Any:
    """The frame, each missing value of those columns replaced by that of `rows`: as a level, rounded where the column
    has whole numbers or truth values, or as it is.
    """
    import narwhals as nw

    table, own = _table(frame), _own(columns)
    for column, values in zip(own, rows.T[: len(own)], strict=True):
        series = _column(table, column.name)
        missing = _is_missing(series)
        if missing.any():
            given = series.to_list()
            filled = [_value(new, column) if gap else old for old, new, gap in zip(given, values, missing, strict=True)]
            made = nw.new_series(column.name, filled, backend=table.implementation)
            if _type_of(series) is not None:
                made = made.cast(series.dtype)
            table = table.with_columns(made)
    found = nw.to_native(table)
    # Types for integers and truth values with gaps stay, too.
    return found.astype(frame.dtypes.to_dict()) if table.implementation.is_pandas() else found


def to_frame(rows: np.ndarray, columns: Sequence[Column], backend: Literal["pandas", "polars"] = "polars") -> Any:
    """A frame of polars or pandas (the `backend`) of rows `[n, dim]` without missing values, each column as `completed`
    would fill it in.
    """
    needs_extra("narwhals", "tables")
    needs_extra(backend, "tables")
    import narwhals as nw

    # A float32 as the shortest number that it is.
    own, values = _own(columns), rows.astype(str).astype(np.float64).T
    pairs = zip(own, values[: len(own)], strict=True)
    filled = {column.name: [_value(value, column) for value in found] for column, found in pairs}
    return nw.to_native(nw.from_dict(filled, backend=backend))


def _own(columns: Sequence[Column]) -> Sequence[Column]:
    """Without the rows' total, which is no column of a table."""
    return columns[:-1] if columns and columns[-1].name == TOTAL else columns


def repeated(frames: Sequence[Any]) -> Any:
    """Completed polars tables one below the other, the number of each, from 0, in a first column `draw`."""
    import polars

    named = (frame.insert_column(0, polars.Series("draw", [n] * len(frame))) for n, frame in enumerate(frames))
    return polars.concat(list(named))


def _table(frame: Any) -> "nw.DataFrame[Any]":
    needs_extra("narwhals", "tables")
    import narwhals as nw

    _check_different([str(name) for name in getattr(frame, "columns", ())])
    try:
        return _with_gaps(nw.from_native(frame, eager_only=True))
    except TypeError as error:
        raise IWAEError(f"expected a frame of pandas or polars, got {type(frame).__name__}") from error


def _with_gaps(table: "nw.DataFrame[Any]") -> "nw.DataFrame[Any]":
    """Of pandas: truth values and whole numbers with gaps, which it keeps as objects and floats, as what they are."""
    import narwhals as nw

    if not table.implementation.is_pandas():
        return table
    frame = nw.to_native(table)
    found = {}
    for name in table.columns:
        column = frame[name]
        seen = column.dropna()
        if 0 < len(seen) < len(column):
            if column.dtype.kind == "O" and all(isinstance(value, bool | np.bool_) for value in seen):
                found[name] = column.astype("boolean")
            elif column.dtype.kind == "f" and (seen % 1 == 0).all():
                found[name] = column.astype("Int64")
    return nw.from_native(frame.assign(**found), eager_only=True) if found else table


def _check_different(names: Sequence[str]) -> None:
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise IWAEError(f"two columns are called {twice[0]!r}: rename one")


def _column(table: "nw.DataFrame[Any]", name: str) -> "nw.Series[Any]":
    return table.get_column(name)


def _is_missing(series: "nw.Series[Any]") -> np.ndarray:
    missing = series.is_null()
    return (missing | series.is_nan() if series.dtype.is_float() else missing).to_numpy().astype(bool)


def _type_of(series: "nw.Series[Any]") -> ValueType | None:
    """The type of a column's values; None where all are missing."""
    import narwhals as nw

    if _is_missing(series).all():
        return None
    kind = series.dtype
    if kind == nw.Boolean:
        return "bool"
    if kind.is_integer():
        return "integer"
    if kind.is_numeric():
        return "real"
    if kind in (nw.String, nw.Categorical, nw.Enum):
        return "text"
    raise IWAEError(
        f"column {series.name!r} is of type {kind}: give numbers, texts or truth values, or leave it out (`target`)"
    )


def _decided(parts: Sequence["nw.Series[Any]"], kind: ValueType) -> str:
    if kind == "integer":
        return kind_of_counts(np.concatenate([_float(part) for part in parts]))
    if kind == "text":
        _check_no_numbers(parts)
        _check_no_dates(parts)
        _check_no_names(parts)
    return {"bool": "bernoulli", "real": "gaussian", "text": "categorical"}[kind]


def _check_no_numbers(parts: Sequence["nw.Series[Any]"]) -> None:
    """Raises IWAEError where a column of texts is one of numbers, or of numbers but for a few texts."""
    for part in parts:
        values = part.to_list()
        texts = [
            (row, text)
            for row, text in enumerate(values)
            if isinstance(text, str) and not _is_number(text.replace(",", "."))
        ]
        count = int((~_is_missing(part)).sum())
        if count and not texts:
            raise IWAEError(
                f"column {part.name!r} has numbers as texts, such as {_example([part])!r:.60}: write numbers with a"
                f" point, without quotes or blanks, or give `likelihood` {part.name}=categorical"
            )
        if 0 < len(texts) < 0.5 * count:
            row, text = texts[0]
            raise IWAEError(
                f"column {part.name!r} has the text {text!r:.60} among its numbers (row {row + 1}): correct it, leave"
                f" the cell empty, or give `likelihood` {part.name}=categorical"
            )


def _check_no_dates(parts: Sequence["nw.Series[Any]"]) -> None:
    """Raises IWAEError for a column of texts most of which are dates or times."""
    texts = [value.strip() for part in parts for value in part.to_list() if isinstance(value, str)]
    dates = [text for text in texts if _DATE.fullmatch(text)]
    if 2 * len(dates) > len(texts):
        name = parts[0].name
        raise IWAEError(
            f"column {name!r} has dates or times, such as {dates[0]!r:.60}: convert it to a number, leave it out"
            f" (`target`), or give `likelihood` {name}=categorical"
        )


def _check_no_names(parts: Sequence["nw.Series[Any]"]) -> None:
    """Raises IWAEError for a column of texts that are nearly all different, as names and numbers of persons are."""
    texts = [value for part in parts for value in part.to_list() if isinstance(value, str)]
    different = len(set(texts))
    if len(texts) >= FEW and different > MOSTLY * len(texts):
        name = parts[0].name
        raise IWAEError(
            f"column {name!r} has {different:,} different texts in {len(texts):,} rows, such as {texts[0]!r:.60}:"
            f" leave it out (`target`), or give `likelihood` {name}=categorical"
        )


def _levels(parts: Sequence["nw.Series[Any]"], kind: ValueType) -> tuple[Level, ...]:
    """The values of a column, sorted."""
    found = sorted({value for part in parts for value in part.filter(~part.is_null()).to_list() if value == value})
    if len(found) > MOST_LEVELS:
        raise IWAEError(
            f"column {parts[0].name!r} has {len(found):,} different values, and at most {MOST_LEVELS:,} can be levels:"
            " leave it out (`target`), or give it another `likelihood`"
        )
    if kind == "integer":
        return tuple(map(int, found))
    return tuple(found)


def _numbers(series: "nw.Series[Any]", column: Column) -> np.ndarray:
    kind = _type_of(series)
    if kind is None:
        return np.full(len(series), np.nan)
    if column.kind == "categorical":
        numbers = {level: number for number, level in enumerate(column.levels)}
        missing, found = _is_missing(series), np.full(len(series), np.nan)
        for row, value in enumerate(series.to_list()):
            if missing[row]:
                continue
            if value not in numbers:
                raise IWAEError(
                    f"column {column.name!r} has {value!r:.60} in row {row + 1}, which was not there when the model was"
                    f" trained: its levels are {listed(column.levels)}"
                )
            found[row] = numbers[value]
        return found
    if kind == "text":
        _check_no_numbers([series])
        raise IWAEError(f"column {column.name!r} has texts, such as {_example([series])!r:.60}, instead of numbers")
    values = _float(series)
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0]) + 1
        raise IWAEError(f"column {column.name!r} has an infinite value in row {row}: only an empty cell is missing")
    return values


def _float(series: "nw.Series[Any]") -> np.ndarray:
    import narwhals as nw

    return np.asarray(series.cast(nw.Float64).to_numpy(), np.float64)


def _example(parts: Sequence["nw.Series[Any]"]) -> Any:
    return next(value for part in parts for value in part.to_list() if isinstance(value, str))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _value(number: float, column: Column) -> Level:
    if column.kind == "categorical":
        return column.levels[int(number)]
    if column.type == "bool":
        return bool(number >= 0.5)
    return round(float(number)) if column.type == "integer" else float(number)
