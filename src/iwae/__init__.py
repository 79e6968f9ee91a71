"""Importance weighted autoencoders (Burda, Grosse & Salakhutdinov 2015), on JAX.

Names are imported when first used, so that `import iwae` is quick and starts no JAX backend.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from iwae.errors import IWAEError, RunBusyError
from iwae.version import __version__

if TYPE_CHECKING:
    from iwae import bounds as bounds
    from iwae import plots as plots
    from iwae.data import Dataset as Dataset
    from iwae.data import load_dataset as load_dataset
    from iwae.estimators.base import Estimate as Estimate
    from iwae.estimators.base import Estimator as Estimator
    from iwae.estimators.base import WeightedEstimator as WeightedEstimator
    from iwae.estimators.bound import DoublyReparameterized as DoublyReparameterized
    from iwae.estimators.bound import Reparameterized as Reparameterized
    from iwae.estimators.bound import ScoreFunction as ScoreFunction
    from iwae.estimators.bound import StickingTheLanding as StickingTheLanding
    from iwae.estimators.disarm import DisARM as DisARM
    from iwae.estimators.generalized import GeneralizedDoublyReparameterized as GeneralizedDoublyReparameterized
    from iwae.estimators.gradients import Coefficients as Coefficients
    from iwae.estimators.importance_weighted import PIWAE as PIWAE
    from iwae.estimators.importance_weighted import DReGAlpha as DReGAlpha
    from iwae.estimators.importance_weighted import PIWAEDReG as PIWAEDReG
    from iwae.estimators.mixed_precision import InBFloat16 as InBFloat16
    from iwae.estimators.objective import Objective as Objective
    from iwae.estimators.objective import make_estimator as make_estimator
    from iwae.estimators.score import OVIS as OVIS
    from iwae.estimators.score import VIMCO as VIMCO
    from iwae.estimators.score import LeaveOneOut as LeaveOneOut
    from iwae.estimators.score import OVISMonteCarlo as OVISMonteCarlo
    from iwae.estimators.score import ReweightedWakeSleep as ReweightedWakeSleep
    from iwae.estimators.score import ThermodynamicScore as ThermodynamicScore
    from iwae.estimators.terms import BetaVAE as BetaVAE
    from iwae.estimators.terms import FreeBits as FreeBits
    from iwae.estimators.terms import OfTerms as OfTerms
    from iwae.evaluation.active_units import active_units as active_units
    from iwae.evaluation.active_units import paper_active_units as paper_active_units
    from iwae.evaluation.annealed import ais as ais
    from iwae.evaluation.batches import prepare as prepare
    from iwae.evaluation.bidirectional import certify as certify
    from iwae.evaluation.ensemble import ensemble_likelihoods as ensemble_likelihoods
    from iwae.evaluation.gradient_quality import gradient_quality as gradient_quality
    from iwae.evaluation.imputation import impute as impute
    from iwae.evaluation.imputation import impute_multiple as impute_multiple
    from iwae.evaluation.likelihood import ladder as ladder
    from iwae.evaluation.likelihood import likelihoods as likelihoods
    from iwae.evaluation.likelihood import log_likelihood as log_likelihood
    from iwae.evaluation.posterior import posterior as posterior
    from iwae.evaluation.reconstruction import encode as encode
    from iwae.evaluation.reconstruction import reconstruct as reconstruct
    from iwae.evaluation.unbiased import rmlmc as rmlmc
    from iwae.evaluation.unbiased import sumo as sumo
    from iwae.models.architecture import Architecture as Architecture
    from iwae.models.layers import BernoulliLayer as BernoulliLayer
    from iwae.models.layers import GaussianLayer as GaussianLayer
    from iwae.models.likelihoods import BernoulliLikelihood as BernoulliLikelihood
    from iwae.models.likelihoods import CategoricalLikelihood as CategoricalLikelihood
    from iwae.models.likelihoods import ContinuousBernoulliLikelihood as ContinuousBernoulliLikelihood
    from iwae.models.likelihoods import DiscretizedLogisticLikelihood as DiscretizedLogisticLikelihood
    from iwae.models.likelihoods import GaussianLikelihood as GaussianLikelihood
    from iwae.models.likelihoods import Likelihood as Likelihood
    from iwae.models.likelihoods import MixedLikelihood as MixedLikelihood
    from iwae.models.likelihoods import NegativeBinomialLikelihood as NegativeBinomialLikelihood
    from iwae.models.likelihoods import PoissonLikelihood as PoissonLikelihood
    from iwae.models.likelihoods import StudentTLikelihood as StudentTLikelihood
    from iwae.models.likelihoods import VisibleLayer as VisibleLayer
    from iwae.models.likelihoods import ZeroInflatedNegativeBinomialLikelihood as ZeroInflatedNegativeBinomialLikelihood
    from iwae.models.networks.tanh import TanhNetwork as TanhNetwork
    from iwae.models.vae import HierarchicalVAE as HierarchicalVAE
    from iwae.runs.compare import compare_runs as compare_runs
    from iwae.runs.config import RunConfig as RunConfig
    from iwae.runs.directory import load as load
    from iwae.runs.export import export_model as export_model
    from iwae.runs.listing import results as results
    from iwae.runs.options import MeasureOptions as MeasureOptions
    from iwae.runs.options import TrainOptions as TrainOptions
    from iwae.runs.train import train_run as train_run
    from iwae.runs.train import train_runs as train_runs
    from iwae.runs.weights import save as save
    from iwae.training.loop import create_model as create_model
    from iwae.training.loop import fit as fit
    from iwae.training.loop import train as train
    from iwae.training.loop import train_together as train_together
    from iwae.training.optim import nadam as nadam
    from iwae.training.optim import paper_adam as paper_adam
    from iwae.training.schedule import Stage as Stage
    from iwae.training.schedule import make_schedule as make_schedule
    from iwae.training.step import TrainState as TrainState
    from iwae.training.trackers import Tracker as Tracker

# The home of every public name.
_HOMES = {
    "iwae.data": ("Dataset", "load_dataset"),
    "iwae.estimators.base": ("Estimate", "Estimator", "WeightedEstimator"),
    "iwae.estimators.bound": ("DoublyReparameterized", "Reparameterized", "ScoreFunction", "StickingTheLanding"),
    "iwae.estimators.disarm": ("DisARM",),
    "iwae.estimators.generalized": ("GeneralizedDoublyReparameterized",),
    "iwae.estimators.gradients": ("Coefficients",),
    "iwae.estimators.importance_weighted": ("PIWAE", "DReGAlpha", "PIWAEDReG"),
    "iwae.estimators.mixed_precision": ("InBFloat16",),
    "iwae.estimators.objective": ("Objective", "make_estimator"),
    "iwae.estimators.score": (
        "OVIS",
        "VIMCO",
        "LeaveOneOut",
        "OVISMonteCarlo",
        "ReweightedWakeSleep",
        "ThermodynamicScore",
    ),
    "iwae.estimators.terms": ("BetaVAE", "FreeBits", "OfTerms"),
    "iwae.evaluation.active_units": ("active_units", "paper_active_units"),
    "iwae.evaluation.annealed": ("ais",),
    "iwae.evaluation.bidirectional": ("certify",),
    "iwae.evaluation.ensemble": ("ensemble_likelihoods",),
    "iwae.evaluation.gradient_quality": ("gradient_quality",),
    "iwae.evaluation.imputation": ("impute", "impute_multiple"),
    "iwae.evaluation.posterior": ("posterior",),
    "iwae.evaluation.unbiased": ("rmlmc", "sumo"),
    "iwae.evaluation.batches": ("prepare",),
    "iwae.evaluation.likelihood": ("ladder", "likelihoods", "log_likelihood"),
    "iwae.evaluation.reconstruction": ("encode", "reconstruct"),
    "iwae.models.architecture": ("Architecture",),
    "iwae.models.layers": ("BernoulliLayer", "GaussianLayer"),
    "iwae.models.likelihoods": (
        "BernoulliLikelihood",
        "CategoricalLikelihood",
        "ContinuousBernoulliLikelihood",
        "DiscretizedLogisticLikelihood",
        "GaussianLikelihood",
        "Likelihood",
        "MixedLikelihood",
        "NegativeBinomialLikelihood",
        "PoissonLikelihood",
        "StudentTLikelihood",
        "ZeroInflatedNegativeBinomialLikelihood",
        "VisibleLayer",
    ),
    "iwae.models.networks.tanh": ("TanhNetwork",),
    "iwae.models.vae": ("HierarchicalVAE",),
    "iwae.runs.compare": ("compare_runs",),
    "iwae.runs.config": ("RunConfig",),
    "iwae.runs.options": ("MeasureOptions", "TrainOptions"),
    "iwae.runs.directory": ("load",),
    "iwae.runs.export": ("export_model",),
    "iwae.runs.listing": ("results",),
    "iwae.runs.train": ("train_run", "train_runs"),
    "iwae.runs.weights": ("save",),
    "iwae.training.loop": ("create_model", "fit", "train", "train_together"),
    "iwae.training.optim": ("nadam", "paper_adam"),
    "iwae.training.schedule": ("Stage", "make_schedule"),
    "iwae.training.step": ("TrainState",),
    "iwae.training.trackers": ("Tracker",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["IWAEError", "RunBusyError", "__version__", "bounds", "plots", *_HOME_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in ("bounds", "plots"):
        return import_module(f"iwae.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'iwae' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
