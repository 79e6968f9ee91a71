"""Importance weighted autoencoders (Burda, Grosse & Salakhutdinov 2015), on JAX.

Names are imported when first used, so that `import iwae` is quick and starts no JAX backend.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from iwae.errors import IWAEError, RunBusyError
from iwae.version import __version__

if TYPE_CHECKING:
    from iwae import bounds
    from iwae.architecture import Architecture
    from iwae.data import Dataset, load_dataset
    from iwae.estimators import (
        OVIS,
        PIWAE,
        VIMCO,
        DoublyReparameterized,
        DReGAlpha,
        Estimate,
        Estimator,
        InBFloat16,
        OVISMonteCarlo,
        PIWAEDReG,
        Reparameterized,
        ReweightedWakeSleep,
        ScoreFunction,
        StickingTheLanding,
        WeightedEstimator,
        make_estimator,
    )
    from iwae.evaluation import active_units, likelihoods, paper_active_units
    from iwae.gradients import Coefficients
    from iwae.model import HierarchicalVAE
    from iwae.objectives import Objective
    from iwae.optim import nadam, paper_adam
    from iwae.runs.config import MeasureOptions, RunConfig, TrainOptions
    from iwae.runs.load import load
    from iwae.runs.train import train_run, train_runs
    from iwae.schedule import Stage, make_schedule
    from iwae.stepping import TrainState
    from iwae.training import create_model, fit, train, train_together

_HOMES = {
    "Architecture": "iwae.architecture",
    "Coefficients": "iwae.gradients",
    "DReGAlpha": "iwae.estimators",
    "Dataset": "iwae.data",
    "DoublyReparameterized": "iwae.estimators",
    "Estimate": "iwae.estimators",
    "Estimator": "iwae.estimators",
    "HierarchicalVAE": "iwae.model",
    "InBFloat16": "iwae.estimators",
    "MeasureOptions": "iwae.runs.config",
    "OVIS": "iwae.estimators",
    "OVISMonteCarlo": "iwae.estimators",
    "Objective": "iwae.objectives",
    "PIWAE": "iwae.estimators",
    "PIWAEDReG": "iwae.estimators",
    "Reparameterized": "iwae.estimators",
    "ReweightedWakeSleep": "iwae.estimators",
    "RunConfig": "iwae.runs.config",
    "ScoreFunction": "iwae.estimators",
    "Stage": "iwae.schedule",
    "StickingTheLanding": "iwae.estimators",
    "TrainOptions": "iwae.runs.config",
    "TrainState": "iwae.stepping",
    "VIMCO": "iwae.estimators",
    "WeightedEstimator": "iwae.estimators",
    "active_units": "iwae.evaluation",
    "create_model": "iwae.training",
    "fit": "iwae.training",
    "likelihoods": "iwae.evaluation",
    "load": "iwae.runs.load",
    "load_dataset": "iwae.data",
    "make_estimator": "iwae.estimators",
    "make_schedule": "iwae.schedule",
    "nadam": "iwae.optim",
    "paper_active_units": "iwae.evaluation",
    "paper_adam": "iwae.optim",
    "train": "iwae.training",
    "train_run": "iwae.runs.train",
    "train_runs": "iwae.runs.train",
    "train_together": "iwae.training",
}

__all__ = [
    "OVIS",
    "PIWAE",
    "VIMCO",
    "Architecture",
    "Coefficients",
    "DReGAlpha",
    "Dataset",
    "DoublyReparameterized",
    "Estimate",
    "Estimator",
    "HierarchicalVAE",
    "IWAEError",
    "InBFloat16",
    "MeasureOptions",
    "OVISMonteCarlo",
    "Objective",
    "PIWAEDReG",
    "Reparameterized",
    "ReweightedWakeSleep",
    "RunBusyError",
    "RunConfig",
    "ScoreFunction",
    "Stage",
    "StickingTheLanding",
    "TrainOptions",
    "TrainState",
    "WeightedEstimator",
    "__version__",
    "active_units",
    "bounds",
    "create_model",
    "fit",
    "likelihoods",
    "load",
    "load_dataset",
    "make_estimator",
    "make_schedule",
    "nadam",
    "paper_active_units",
    "paper_adam",
    "train",
    "train_run",
    "train_runs",
    "train_together",
]


def __getattr__(name: str) -> Any:
    if name == "bounds":
        return import_module("iwae.bounds")
    if name not in _HOMES:
        raise AttributeError(f"module 'iwae' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
