"""The paper's results: which models were trained, and the figures that were published for them.

Burda, Grosse & Salakhutdinov (2015): Table 1 (test NLL and active units), Table 2 (warm starts), the fixed
binarization of MNIST, and the overfitting that its text reports. No JAX is imported here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from iwae.errors import IWAEError
from iwae.runs.config import RunConfig

Table = Literal["1", "2", "fixed"]
TABLES: tuple[Table, ...] = ("1", "2", "fixed")
PAPER_K = (1, 5, 50)


@dataclass(frozen=True)
class Published:
    """A published result: test NLL in nats, and active units per layer (`26+7`, h_1 first) where given."""

    nll: float
    active: str | None


@dataclass(frozen=True)
class Cell:
    """One entry of one of the paper's tables, and the configuration that repeats it.

    `source` is the configuration of the run that it starts from (Table 2), or None for random weights.
    """

    table: Table
    config: RunConfig
    published: Published
    source: RunConfig | None = None

    def directory(self, results_dir: Path) -> Path:
        """Where its run lives."""
        return results_dir / self.config.name()


ROWS: tuple[tuple[Table, str, int, Literal["vae", "iwae"], tuple[tuple[float, str | None], ...]], ...] = (
    ("1", "mnist", 1, "vae", ((86.76, "19"), (86.47, "20"), (86.35, "20"))),
    ("1", "mnist", 1, "iwae", ((86.76, "19"), (85.54, "22"), (84.78, "25"))),
    ("1", "mnist", 2, "vae", ((85.33, "16+5"), (85.01, "17+5"), (84.78, "17+5"))),
    ("1", "mnist", 2, "iwae", ((85.33, "16+5"), (83.89, "21+5"), (82.90, "26+7"))),
    ("1", "omniglot", 1, "vae", ((108.11, "28"), (107.62, "28"), (107.80, "28"))),
    ("1", "omniglot", 1, "iwae", ((108.11, "28"), (106.12, "34"), (104.67, "41"))),
    ("1", "omniglot", 2, "vae", ((107.58, "28+4"), (106.31, "30+5"), (106.30, "30+5"))),
    ("1", "omniglot", 2, "iwae", ((107.56, "30+5"), (104.79, "38+6"), (103.38, "44+7"))),
    ("fixed", "binfixmnist", 1, "iwae", ((88.71, None), (87.63, None), (87.10, None))),
)

# Nats by which test NLL exceeds training NLL, "up to", as the paper's text gives them, by dataset.
OVERFITTING: dict[str, float] = {"mnist": 0.75, "omniglot": 0.75, "binfixmnist": 3.5}

WARM_STARTS: tuple[tuple[Literal["vae", "iwae"], int, Published], ...] = (
    ("iwae", 50, Published(84.88, "22")),
    ("vae", 1, Published(86.02, "23")),
)


def cells_of(table: Table, *, results_dir: Path, seed: int = 0) -> tuple[Cell, ...]:
    """The cells of one table, with the given seed; Table 2's start from the runs in `results_dir`.

    Raises IWAEError for a table that the paper does not have.
    """
    if table not in TABLES:
        raise IWAEError(f"`table` must be one of {', '.join(TABLES)}, got {table!r}")
    if table != "2":
        return tuple(
            Cell(table, RunConfig.of(dataset=dataset, model=model, k=k, layers=layers, seed=seed), Published(*figures))
            for in_table, dataset, layers, model, entries in ROWS
            if in_table == table
            for k, figures in zip(PAPER_K, entries, strict=True)
        )
    cells = []
    for (model, k, figures), (other, other_k, _) in zip(WARM_STARTS, WARM_STARTS[::-1], strict=True):
        source = RunConfig.of(dataset="mnist", model=other, k=other_k, seed=seed)
        config = RunConfig.of(dataset="mnist", model=model, k=k, seed=seed, init_from=str(results_dir / source.name()))
        cells.append(Cell("2", config, figures, source))
    return tuple(cells)


def published(dataset: str, model: str, k: int, layers: int) -> Published | None:
    """The paper's figure for a model trained from random weights, or None where it has none."""
    for _, row_dataset, row_layers, row_model, entries in ROWS:
        if (row_dataset, row_layers, row_model) == (dataset, layers, model) and k in PAPER_K:
            return Published(*entries[PAPER_K.index(k)])
    return None
