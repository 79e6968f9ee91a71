"""The paper's experiments as data, how far each has been repeated, and what runs the rest."""

from iwae.paper.cells import OVERFITTING, TABLES, Cell, Published, Table, cells_of, published
from iwae.paper.status import CellStatus, row, status_of, to_json, to_markdown

__all__ = [
    "OVERFITTING",
    "TABLES",
    "Cell",
    "CellStatus",
    "Published",
    "Table",
    "cells_of",
    "published",
    "row",
    "status_of",
    "to_json",
    "to_markdown",
]
