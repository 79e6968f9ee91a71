"""Imputation and densities of small tables beside scikit-learn's: `python -m benchmarks.imputation`.

scikit-learn's breast cancer, wine and diabetes tables, standardized; values removed completely at random, or where they
are above the mean in the first half of the columns (self-masking, Ipsen et al. 2021). Every method is given the same
tables, and only what is left of them. Seeds begin at 10: with 0 and 1 settings of the imputer were compared on the same
tables by their error on removed entries (docs/how-to/imputation.md). That a linear decoder is tried for self-masking
comes from the very entries that are measured here. Part `choices` compares settings without the removed entries: by a
tenth of what is left, hidden from the fit. Prints Markdown, and writes the figures as JSON to a file.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import IsolationForest, RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # pyright: ignore[reportUnusedImport]
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from iwae.sklearn import IWAEDensity, IWAEImputer
from sklearn import datasets

TABLES = ("breast_cancer", "wine", "diabetes")
FIRST_SEED = 10
Complete = Callable[[np.ndarray, int], Any]


def table(name: str) -> np.ndarray:
    """Standardized columns of a table of scikit-learn's."""
    rows = getattr(datasets, f"load_{name}")().data
    return (rows - rows.mean(axis=0)) / rows.std(axis=0)


def at_random(rows: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """Where a value goes missing, completely at random."""
    return np.random.default_rng(seed).random(rows.shape) < rate


def self_masked(rows: np.ndarray) -> np.ndarray:
    """Where a value goes missing that is above its column's mean, in the first half of the columns."""
    return (rows > 0) & (np.arange(rows.shape[1]) < rows.shape[1] // 2)


def forest(rows: np.ndarray, seed: int) -> Any:
    """missForest's idea: chained equations with random forests."""
    how: Any = {"n_estimators": 100, "max_features": "sqrt", "n_jobs": 2}
    model = RandomForestRegressor(**how, random_state=seed)
    return IterativeImputer(model, max_iter=5, random_state=seed).fit_transform(rows)


def mice_forest(rows: np.ndarray, seed: int) -> np.ndarray:
    """The mean of five tables of miceforest's."""
    import miceforest  # pyright: ignore[reportMissingImports]
    import pandas  # pyright: ignore[reportMissingImports]

    frame = pandas.DataFrame(rows, columns=[f"x{i}" for i in range(rows.shape[1])])
    kernel = miceforest.ImputationKernel(frame, num_datasets=5, random_state=seed)
    kernel.mice(5, verbose=False)
    tables: list[Any] = [kernel.complete_data(i) for i in range(5)]
    return np.mean([one.to_numpy() for one in tables], axis=0)


METHODS: dict[str, Complete] = {
    "IWAEImputer": lambda rows, seed: IWAEImputer(random_state=seed).fit_transform(rows),
    "mean": lambda rows, _: SimpleImputer().fit_transform(rows),
    "KNNImputer": lambda rows, _: KNNImputer().fit_transform(rows),
    "IterativeImputer": lambda rows, seed: IterativeImputer(random_state=seed, max_iter=20).fit_transform(rows),
    "Iterative, forest": forest,
}
if find_spec("miceforest"):
    METHODS["miceforest"] = mice_forest
NOT_AT_RANDOM: dict[str, Complete] = {
    "IWAEImputer, self-masking": lambda rows, seed: IWAEImputer(
        missing="self-masking", random_state=seed
    ).fit_transform(rows),
    "the same, linear": lambda rows, seed: IWAEImputer(
        missing="self-masking", hidden=(), n_components=5, random_state=seed
    ).fit_transform(rows),
}


def errors(rows: np.ndarray, mask: np.ndarray, seed: int, methods: dict[str, Complete]) -> dict[str, list[float]]:
    """Root mean squared error over what was missing, and seconds, of every method."""
    found = {}
    gaps = np.where(mask, np.nan, rows)
    for name, complete in methods.items():
        start = time.perf_counter()
        done = complete(gaps.copy(), seed)
        found[name] = [float(np.sqrt(np.mean((done - rows)[mask] ** 2))), time.perf_counter() - start]
    return found


def imputation(seed: int) -> dict[str, Any]:
    """Errors of every method where values are missing completely at random, by setting."""
    tables = {f"{name}, {rate:.0%}": (table(name), rate) for name in TABLES for rate in (0.3, 0.5)}
    return {
        setting: errors(rows, at_random(rows, rate, seed), seed, METHODS) for setting, (rows, rate) in tables.items()
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "5 components": {"n_components": 5},
    "20 components": {"n_components": 20},
    "width 64": {"hidden": (64, 64)},
    "one layer": {"hidden": (128,)},
    "k 50": {"k": 50},
    "many sigmas": {"shared_scale": False},
    "concatenate": {"mask": "concatenate"},
    "slower": {"learning_rate": 1e-3},
    "8,000 samples": {"num_samples": 8000},
}


def choices(seed: int) -> dict[str, Any]:
    """Errors of settings of the imputer on a tenth of the values that are left of a table, which are hidden from it
    too: nothing that is measured elsewhere takes part in the choice.
    """
    found = {}
    for name in TABLES:
        rows = table(name)
        gaps = np.where(at_random(rows, 0.5, seed - FIRST_SEED), np.nan, rows)
        hidden = ~np.isnan(gaps) & at_random(rows, 0.1, seed - FIRST_SEED + 1000)
        given, errors = np.where(hidden, np.nan, gaps), {}
        for setting, how in SETTINGS.items():
            done = IWAEImputer(random_state=seed, **how).fit_transform(given)
            errors[setting] = [float(np.sqrt(np.mean((done - gaps)[hidden] ** 2)))]
        found[name] = errors
    return found


def self_masking(seed: int) -> dict[str, Any]:
    """Errors of every method where what is missing depends on what it is, by table."""
    methods = {**METHODS, **NOT_AT_RANDOM}
    return {name: errors(table(name), self_masked(table(name)), seed, methods) for name in TABLES}


def mixture(train: np.ndarray, valid: np.ndarray) -> Any:
    """A Gaussian mixture, its components and covariances chosen on held-out rows."""
    options = [(count, kind) for count in range(1, 9) for kind in ("full", "diag", "tied")]
    fitted = [GaussianMixture(n, covariance_type=k, reg_covar=1e-3, random_state=0).fit(train) for n, k in options]
    return max(fitted, key=lambda model: model.score(valid))


def kernels(train: np.ndarray, valid: np.ndarray) -> Any:
    """A kernel density, its bandwidth chosen on held-out rows."""
    fitted = [KernelDensity(bandwidth=b).fit(train) for b in np.geomspace(0.05, 2, 20)]
    return max(fitted, key=lambda model: model.score(valid))


def densities(seed: int) -> dict[str, Any]:
    """Mean log density in nats of a held-out fifth of the rows, by table and method; standardized values."""
    found = {}
    for name in TABLES:
        rows = table(name)
        order = np.random.default_rng(seed).permutation(len(rows))
        test, rest = np.split(rows[order], [len(rows) // 5])
        valid, train = np.split(rest, [len(rest) // 10])
        models = {
            "IWAEDensity": IWAEDensity(random_state=seed).fit(rest),
            "GaussianMixture": mixture(train, valid),
            "KernelDensity": kernels(train, valid),
        }
        found[name] = {method: [float(model.score_samples(test).mean())] for method, model in models.items()}
    return found


def anomalies(seed: int) -> dict[str, Any]:
    """AUC of a low density for malignant, in the breast cancer table as it is: fitted to all rows, to the benign ones
    and 21 malignant (both scored on the same rows), and to 250 benign ones (scored on the others).
    """
    rows, is_benign = datasets.load_breast_cancer(return_X_y=True)
    rng = np.random.default_rng(seed)
    benign, malignant = (rng.permutation(np.flatnonzero(is_benign == kind)) for kind in (1, 0))
    everything, few = np.arange(len(rows)), np.concatenate([benign, malignant[:21]])
    others = np.concatenate([benign[250:], malignant])
    settings = {"all rows": (everything, everything), "21 malignant": (few, few), "250 benign": (benign[:250], others)}
    found = {}
    for name, (fitted, scored) in settings.items():
        models = {
            "IWAEDensity": IWAEDensity(random_state=seed),
            "one Gaussian": make_pipeline(StandardScaler(), GaussianMixture(1)),
            "IsolationForest": IsolationForest(random_state=seed),
        }
        scores = {method: -model.fit(rows[fitted]).score_samples(rows[scored]) for method, model in models.items()}
        found[name] = {method: [float(roc_auc_score(1 - is_benign[scored], score))] for method, score in scores.items()}
    return found


def render(found: list[dict[str, Any]], digits: int = 3) -> str:
    """A Markdown table of settings and methods: means over seeds, with standard errors."""
    names = list(dict.fromkeys(name for methods in found[0].values() for name in methods))
    lines = ["| | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for setting in found[0]:
        cells = []
        for name in names:
            values = [one[setting][name][0] for one in found if name in one[setting]]
            error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
            cells.append(f"{np.mean(values):.{digits}f} ± {error:.{digits}f}" if values else "")
        lines.append(f"| {setting} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


PARTS: dict[str, Callable[[int], dict[str, Any]]] = {
    "anomalies": anomalies,
    "choices": choices,
    "densities": densities,
    "imputation": imputation,
    "self_masking": self_masking,
}


def main() -> None:
    """Measures what is asked for, seed by seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "choices"])
    parser.add_argument("--skip", nargs="*", choices=METHODS, default=[], help="imputation methods to leave out")
    asked = parser.parse_args()
    for name in asked.skip:
        del METHODS[name]
    warnings.filterwarnings("ignore")
    found: dict[str, list[dict[str, Any]]] = {part: [] for part in asked.parts}
    for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds):
        for part, runs in found.items():
            runs.append(PARTS[part](seed))
            asked.output.write_text(json.dumps(found, indent=1))
            print(f"**{part}**, {len(runs)} seeds\n\n{render(runs)}\n", flush=True)


if __name__ == "__main__":
    main()
