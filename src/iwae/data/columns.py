"""What the columns of own data are: their names, kinds of values and levels; decided where nobody says it."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from iwae.errors import IWAEError

AUTO = "auto"
SHOWN = 60
"""More columns than this are printed as sums, not one by one."""
LARGEST_COUNT = 1_000_000
FEW = 20
"""With fewer values it means little that all are different."""

TOTAL = "row-total"
"""The name of a column that is no column of the file: each row's sum of counts, as their exposure."""
COUNTS = ("poisson", "negative-binomial", "zero-inflated-negative-binomial")

ValueType = Literal["bool", "integer", "real", "text"]
Level = str | int | float | bool


@dataclass(frozen=True)
class Column:
    """A column of a table: its `name`, the `kind` of its values (a name of `iwae.models.likelihoods`), the `type` in
    which they are stored, and of a categorical one the `levels`, which rows hold by their numbers.
    """

    name: str
    kind: str
    type: ValueType
    levels: tuple[Level, ...] = ()


@dataclass(frozen=True)
class Reading:
    """How own data is read: `likelihood` is auto, a kind for all columns, or `column=kind` and so on, separated by
    commas, perhaps after a kind for the others; `columns` are those to use, by default all but `target`, each a name
    or several with commas between them. `shuffled` says that the rows of one array or table are permuted by
    `split_seed` before they are split, and that training takes rows in a new order in each epoch: None is yes for own
    data and no for published ones.
    """

    likelihood: str = AUTO
    columns: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    shuffled: bool | None = None
    split_seed: int = 0

    @property
    def has_total(self) -> bool:
        """Whether the rows' totals are to be the exposure of their counts: `likelihood` has row-total=exposure."""
        return re.search(rf"(^|,)\s*{TOTAL}=exposure\s*(,|$)", self.likelihood) is not None

    def kinds(self, given: Sequence[str]) -> list[str]:
        """Of every column `given`: what it is said to be, or auto. Raises IWAEError for a column that is none, and for
        one of which it is said twice.
        """
        usual, own, rest, names = None, {}, self.likelihood.strip(), [*given, *([TOTAL] if self.has_total else [])]
        while rest:
            # Names may have commas and signs of equality: the longest that is there is meant.
            name = max((name for name in names if rest.startswith(f"{name}=")), key=len, default="")
            part, _, rest = rest[len(name) :].partition(",")
            other, equals, kind = part.rpartition("=")
            column = name or other.strip()
            if (equals and column in own) or (not equals and part.strip() and usual is not None):
                twice = f"column {column!r} is" if equals else "the other columns are"
                raise IWAEError(f"`likelihood` {self.likelihood}: it says twice what {twice}")
            if equals:
                own[column] = kind.strip()
            elif part.strip():
                usual = kind.strip()
            rest = rest.strip()
        check_names("likelihood", own, names)
        own.pop(TOTAL if self.has_total else "", None)
        return [own.get(name, usual or AUTO) for name in given]

    def chosen(self, names: Sequence[str]) -> list[int]:
        """The places of the columns to use. Raises IWAEError for columns that there are not, or none left."""
        columns, target = (_separated(given, names) for given in (self.columns, self.target))
        check_names("columns", columns, names)
        check_names("target", target, names)
        wanted = [names.index(name) for name in columns] if columns else range(len(names))
        left = [place for place in wanted if names[place] not in target]
        if not left:
            raise IWAEError(f"no column is left of {listed(names)}: `target` leaves out columns")
        return left

    def name_parts(self) -> list[str]:
        """Parts of a run's name that say what was read of its data, where that was said: in words, or by a digest."""
        said = (self.likelihood, self.columns, self.target)
        if said == (AUTO, (), ()):
            return []
        kind = [self.likelihood] if self.likelihood != AUTO else []
        words = "-".join([*kind, *self.columns, *(f"no-{name}" for name in self.target)])
        if re.fullmatch(r"[\w.-]{1,40}", words):
            return [words]
        return [f"read-{hashlib.sha256(repr(said).encode()).hexdigest()[:8]}"]


def listed(values: Sequence[Any], most: int = 10) -> str:
    """The first values in a line."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


def with_total(rows: np.ndarray, columns: Sequence[Column]) -> tuple[np.ndarray, tuple[Column, ...]]:
    """Rows `[n, dim + 1]` and their columns, the last the total of every row's counts, of those that are there.

    Raises IWAEError where no column has counts, one is called so already, or a row has a total of zero.
    """
    if any(column.name == TOTAL for column in columns):
        raise IWAEError(f"a column is called {TOTAL!r}, which is the name of the sum of a row's counts: rename it")
    counted = [place for place, column in enumerate(columns) if column.kind in COUNTS]
    if not counted:
        raise IWAEError(
            f"`likelihood` {TOTAL}=exposure needs columns of counts ({', '.join(COUNTS)}), and there are none"
        )
    totals = np.nansum(rows[:, counted], axis=1, dtype=np.float64)
    if not (totals > 0).all():
        raise IWAEError(f"row {int(np.argmin(totals)) + 1} has a total of 0, which can be no exposure: leave it out")
    return np.column_stack([rows, totals]), (*columns, Column(TOTAL, "exposure", "real"))


def _separated(given: Sequence[str], names: Sequence[str]) -> list[str]:
    """Single names, with commas between them. Names may have commas: the longest that is there is meant."""
    found = []
    for word in given:
        rest = word.strip()
        while rest:
            fits = (name for name in names if rest == name or re.match(rf"{re.escape(name)}\s*,", rest))
            name = max(fits, key=len, default=None) or rest.partition(",")[0].strip()
            found += [name] if name else []
            rest = rest[len(name) :].strip().removeprefix(",").strip()
    return found


def check_names(what: str, given: Sequence[str] | Mapping[str, Any], names: Sequence[str]) -> None:
    """Raises IWAEError, naming the argument `what`, for a name that is no column."""
    for name in given:
        if name not in names:
            raise IWAEError(f"`{what}`: there is no column {name!r}, the columns are {listed(names)}")


def kind_of_counts(values: np.ndarray) -> str:
    """For whole numbers, NaN where one is missing: bernoulli for 0 and 1, and else as `kind_of_array`."""
    seen = values[~np.isnan(values)]
    if not seen.size or (seen.max() <= 1 and seen.min() >= 0):
        return "bernoulli"
    return kind_of_array(seen.astype(np.int64)[:, None])


def kind_of_array(rows: np.ndarray) -> str:
    """For an array `[n, dim]` of numbers that are no probabilities: gaussian for real ones; for whole ones poisson, or
    negative-binomial where its columns vary more than a Poisson's, and gaussian for what can be no counts.
    """
    if rows.dtype.kind == "f":
        return "gaussian"
    mean, variance = rows.mean(axis=0, dtype=np.float64).sum(), rows.var(axis=0, dtype=np.float64).sum()
    if rows.min() < 0 or rows.max() > LARGEST_COUNT or variance < 0.5 * mean:
        return "gaussian"
    return "negative-binomial" if variance > 1.5 * mean else "poisson"


def check_values(rows: np.ndarray, columns: Sequence[Column]) -> None:
    """Raises IWAEError, naming the column, where training rows `[n, dim]` can't be learned from: none of its values is
    there, one is infinite, they are no numbers, or float32 can't hold them or tell them apart.
    """
    if rows.dtype.kind not in "fiub":
        raise IWAEError(f"column {columns[0].name!r} has values of type {rows.dtype}: real numbers are needed")
    if rows.dtype.kind != "f" and rows.dtype.itemsize < 4:
        return
    for values, column in zip(rows.T, columns, strict=True):
        seen = values[~np.isnan(values)].astype(np.float64)
        if not seen.size:
            raise IWAEError(f"column {column.name!r} has no value in the training rows: leave it out (`target`)")
        if np.isinf(seen).any():
            raise IWAEError(f"column {column.name!r} has an infinite value: only NaN, or an empty cell, is missing")
        largest = np.abs(seen).max()
        if largest > np.finfo(np.float32).max:
            raise IWAEError(f"column {column.name!r} has {largest:.3g}, too large for float32: divide it by a constant")
        spread = seen.std()
        if column.kind in ("gaussian", "student-t") and 0 < spread < 1e-5 * largest:
            raise IWAEError(
                f"column {column.name!r} varies by {spread:.3g} around {seen.mean():.6g}, too little for float32:"
                " subtract a constant from it, or leave it out (`target`) if it is an id"
            )


def description(rows: np.ndarray, columns: Sequence[Column], *, each: bool = True) -> list[str]:
    """Lines that say of every column of the training rows what it was taken for: one a column, or where there are many
    and without `each`, one for all that are alike.
    """
    lines: dict[str, int] = {}
    each = each and len(columns) <= SHOWN
    for values, column in zip(rows.T, columns, strict=True):
        missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        seen = values[~missing]
        words = [f"{column.name}: " if each else "", column.type, f" -> {column.kind}"]
        if column.levels and each:
            words.append(f" ({len(column.levels)} levels: {listed(column.levels, 6)})")
        if each and missing.any():
            words.append(f", {missing.sum():,} of {len(values):,} missing")
        if seen.size and (seen == seen[0]).all():
            words.append(", never changes: its density says nothing")
        elif each and column.type == "integer" and len(seen) >= FEW and len(np.unique(seen)) == len(seen):
            words.append(", all different: leave it out (--target) if it is an id")
        line = "".join(words)
        lines[line] = lines.get(line, 0) + 1
    found = [line if each else f"{count:,} columns: {line}" for line, count in lines.items()]
    missing = int(np.isnan(rows).sum()) if rows.dtype.kind == "f" else 0
    if missing and not each:
        found.append(f"{missing:,} of {rows.size:,} values are missing")
    if missing and (empty := int(np.isnan(rows).all(axis=1).sum())):
        found.append(f"{empty:,} rows have no value at all: their log density is 0")
    return found
