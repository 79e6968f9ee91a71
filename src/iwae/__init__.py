"""Importance weighted autoencoders (Burda, Grosse & Salakhutdinov 2015), on JAX.

Names are imported when first used, so that `import iwae` is quick and starts no JAX backend.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from iwae.errors import IWAEError, RunBusyError
from iwae.version import __version__

if TYPE_CHECKING:
    from iwae import bounds
    from iwae.data import Dataset, load_dataset
    from iwae.estimators.base import Estimate, Estimator, WeightedEstimator
    from iwae.estimators.bound import DoublyReparameterized, Reparameterized, ScoreFunction, StickingTheLanding
    from iwae.estimators.gradients import Coefficients
    from iwae.estimators.importance_weighted import PIWAE, DReGAlpha, PIWAEDReG
    from iwae.estimators.make import make_estimator
    from iwae.estimators.mixed_precision import InBFloat16
    from iwae.estimators.objective import Objective
    from iwae.estimators.score import OVIS, VIMCO, OVISMonteCarlo, ReweightedWakeSleep
    from iwae.evaluation.likelihood import active_units, likelihoods, paper_active_units
    from iwae.models.architecture import Architecture
    from iwae.models.vae import HierarchicalVAE
    from iwae.runs.config import MeasureOptions, RunConfig, TrainOptions
    from iwae.runs.directory import load
    from iwae.runs.listing import results
    from iwae.runs.train import train_run, train_runs
    from iwae.training.loop import create_model, fit, train, train_together
    from iwae.training.optim import nadam, paper_adam
    from iwae.training.schedule import Stage, make_schedule
    from iwae.training.step import TrainState

_HOMES = {
    "Architecture": "iwae.models.architecture",
    "Coefficients": "iwae.estimators.gradients",
    "DReGAlpha": "iwae.estimators.importance_weighted",
    "Dataset": "iwae.data",
    "DoublyReparameterized": "iwae.estimators.bound",
    "Estimate": "iwae.estimators.base",
    "Estimator": "iwae.estimators.base",
    "HierarchicalVAE": "iwae.models.vae",
    "InBFloat16": "iwae.estimators.mixed_precision",
    "MeasureOptions": "iwae.runs.config",
    "OVIS": "iwae.estimators.score",
    "OVISMonteCarlo": "iwae.estimators.score",
    "Objective": "iwae.estimators.objective",
    "PIWAE": "iwae.estimators.importance_weighted",
    "PIWAEDReG": "iwae.estimators.importance_weighted",
    "Reparameterized": "iwae.estimators.bound",
    "ReweightedWakeSleep": "iwae.estimators.score",
    "RunConfig": "iwae.runs.config",
    "ScoreFunction": "iwae.estimators.bound",
    "Stage": "iwae.training.schedule",
    "StickingTheLanding": "iwae.estimators.bound",
    "TrainOptions": "iwae.runs.config",
    "TrainState": "iwae.training.step",
    "VIMCO": "iwae.estimators.score",
    "WeightedEstimator": "iwae.estimators.base",
    "active_units": "iwae.evaluation.likelihood",
    "create_model": "iwae.training.loop",
    "fit": "iwae.training.loop",
    "likelihoods": "iwae.evaluation.likelihood",
    "load": "iwae.runs.directory",
    "load_dataset": "iwae.data",
    "make_estimator": "iwae.estimators.make",
    "make_schedule": "iwae.training.schedule",
    "nadam": "iwae.training.optim",
    "paper_active_units": "iwae.evaluation.likelihood",
    "paper_adam": "iwae.training.optim",
    "results": "iwae.runs.listing",
    "train": "iwae.training.loop",
    "train_run": "iwae.runs.train",
    "train_runs": "iwae.runs.train",
    "train_together": "iwae.training.loop",
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
    "results",
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
