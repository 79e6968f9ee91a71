"""Parquet files in parts of some rows, for those that do not fit into the memory."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from iwae.data.columns import Column, Reading, listed
from iwae.data.files import BadFileError, one_line
from iwae.data.tables import MOST_LEVELS, learn_columns
from iwae.errors import IWAEError, needs_extra

BYTES = 8
"""That a number of a table takes at most."""
Parts = Callable[[], Iterator[Any]]


def count_numbers(path: Path) -> int:
    """Rows times columns. Raises BadFileError where it is no Parquet file."""
    count, width = _shape(path)
    return count * width


def parts_of(path: Path, size: int) -> Parts:
    """What gives polars frames of at most so many bytes, which together are the file. Row groups are read one by one,
    so that these should not be much larger.
    """
    count, width = _shape(path)
    at_once = max(1, size // (width * BYTES))

    def parts() -> Iterator[Any]:
        import polars

        for start in range(0, count, at_once):
            try:
                yield polars.scan_parquet(path).slice(start, at_once).collect()
            except polars.exceptions.PolarsError as error:
                raise BadFileError(f"not a readable table ({one_line(error)[:200]})") from error

    return parts


def learn_columns_in_parts(parts: Parts, reading: Reading, size: int) -> tuple[Column, ...]:
    """`learn_columns` of every so manieth row, so that these take at most `size` bytes; levels are those of all rows.

    Raises IWAEError as that does.
    """
    import polars

    counts = [part.shape for part in parts()]
    every = -(-sum(rows * width * BYTES for rows, width in counts) // size)
    columns = learn_columns({"train": polars.concat([part.gather_every(every) for part in parts()])}, reading)
    levels = {column.name: set(column.levels) for column in columns if column.levels}
    for part in parts() if levels and every > 1 else ():
        for name, found in levels.items():
            found |= set(part[name].drop_nulls().unique().to_list())
            if len(found) > MOST_LEVELS:
                raise IWAEError(
                    f"column {name!r} has more than {MOST_LEVELS:,} different values, such as"
                    f" {listed(sorted(found), 3)}: leave it out (`target`), or give it another `likelihood`"
                )
    return tuple(replace(c, levels=tuple(sorted(levels[c.name]))) if c.levels else c for c in columns)


def _shape(path: Path) -> tuple[int, int]:
    needs_extra("polars", "tables")
    import polars

    try:
        frame = polars.scan_parquet(path)
        return frame.select(polars.len()).collect().item(), max(1, len(frame.collect_schema()))
    except polars.exceptions.PolarsError as error:
        raise BadFileError(f"not a readable table ({one_line(error)[:200]})") from error
