"""A run's configuration: one frozen, validated object (no JAX is imported here)."""

import dataclasses
import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from iwae.data import Reading, canonical_name, is_own
from iwae.data.columns import AUTO
from iwae.errors import IWAEError, check_count
from iwae.estimators.objective import Objective, all_parameters
from iwae.estimators.parameters import exact_number
from iwae.estimators.table import OBJECTIVES
from iwae.io.json import shortened
from iwae.models.architecture import Precision
from iwae.runs.model_options import ModelOptions, usual_options
from iwae.training.schedule import (
    FEW_BACKWARD,
    MANY_SAMPLES,
    RECIPES,
    WARM_START,
    Recipe,
    Schedule,
    Stage,
    make_schedule,
)

# In what runs may differ that are trained together.
MAY_DIFFER = {"seed", "model", "objective", "estimator", "backward", *all_parameters()} - {"m"}
# What the paper trained: `model` is short for these two objectives.
SHORT_FORMS: dict[str, str] = {"vae": "elbo", "iwae": "iwae"}
# Fields that a record leaves out where they have these values: 0.1 knows its own runs.
USUAL = {
    "order": "file",
    "split_seed": 0,
    "likelihood": AUTO,
    "columns": (),
    "target": (),
    **usual_options(),
}
ELBO = Objective("elbo")


def check_seed(value: int, name: str = "seed") -> None:
    """Raises IWAEError unless `value` is a seed that every machine reads the same."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise IWAEError(f"`{name}` must be an integer from 0 to 2^32 - 1, got {value!r}")


def make_plain(options: Any) -> None:
    """Turns NumPy's numbers in a dataclass's fields, alone or in tuples, into Python's, which JSON can hold."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return tuple(plain(one) for one in value)
        return value.item() if isinstance(value, np.generic) else value

    for field in dataclasses.fields(options):
        object.__setattr__(options, field.name, plain(getattr(options, field.name)))


@dataclass(frozen=True)
class RunConfig(ModelOptions):
    """What determines a run's numbers: the same configuration on the same machine gives the same bits, where
    the same runs are trained together (--seeds)."""

    dataset: str = "mnist"
    """A name that `iwae data` lists, or the path of own data: .npz, .npy, .csv, .tsv, .parquet, .h5ad, folder/."""
    order: Literal["shuffled", "file"] | None = None
    """Order of the training examples: anew in each epoch by --seed (shuffled, the default for custom data), or that of
    the file, as in the paper's code; so for the rows of one array or table when they are split, by --split-seed."""
    split_seed: int = 0
    """Seed of the split of one array's or table's rows into training, validation and test examples."""
    likelihood: str = AUTO
    """Kind of the values: auto, by their types; one for all columns, such as gaussian (see docs/how-to/likelihood.md);
    or column=KIND,column=KIND for some of a table's."""
    columns: tuple[str, ...] = ()
    """Columns of a table to use (default: all)."""
    target: tuple[str, ...] = ()
    """Columns of a table to leave out."""
    objective: Objective = ELBO
    schedule: Literal["paper", "quick", "fast"] = "paper"
    """The paper's eight stages (3280 epochs), a few minutes' worth, or fast: this project's recipe, Nadam for 800
    epochs (400 with many samples), for likelihoods like the paper's in a fraction of the time (see docs/speed.md)."""
    batch_size: int | None = None
    """Examples per minibatch (default: 20; fast: 100)."""
    beta1: float | None = None
    """Adam's beta1: 0.99, the default, in the paper's code; 0.9 in its text, and for the Nadam of fast."""
    adam_moments: Literal["delayed", "current"] | None = None
    """Moments that a step uses: before its gradient, as in the paper's code (delayed, the default of the paper's
    schedule), or with it (current)."""
    precision: Precision = "float32"
    """Of the operands of training's matrix products; all else, and all measuring, is float32 (see docs/speed.md)."""
    seed: int = 0
    """Seed of every draw in training."""
    init_from: str | None = None
    """Start from the last checkpoint of the run in this directory instead of from random weights."""
    fresh_optimizer: bool = False
    """With --init-from: start Adam's moments anew instead of keeping the source's."""
    epochs: int | None = None
    """Train for so many epochs at the first learning rate, falling as the schedule's does (default: the schedule's
    stages; with --init-from: the paper's 2187)."""
    learning_rate: float | None = None
    """The first learning rate; later ones keep their proportion to it (default: the schedule's; with --init-from: the
    paper's 1e-4)."""
    patience: int | None = None
    """End training after so many epochs in which the bound on validation examples did not rise; the best epoch's state
    is the run's (default: train to the end)."""

    def __post_init__(self) -> None:
        """Raises IWAEError for any value that has no meaning."""
        make_plain(self)
        if not isinstance(self.dataset, str):
            raise IWAEError(f"`dataset` must be a name or a path, got {self.dataset!r}")
        object.__setattr__(self, "dataset", canonical_name(self.dataset))
        self._check_order()
        make_schedule(self.schedule)
        self._resolve_recipe()
        self.check_model()
        self._check_objective()
        check_count("batch_size", self.batch_size)
        check_seed(self.seed)
        if self.precision not in get_args(Precision):
            raise IWAEError(f"`precision` must be {' or '.join(get_args(Precision))}, got {self.precision!r}")
        if self.beta1 is None or not 0.0 <= self.beta1 < 1.0:
            raise IWAEError(f"`beta1` must be at least 0 and below 1, got {self.beta1!r}")
        self._check_warm_start()
        check_count("patience", self.patience, optional=True)

    @property
    def _usual_order(self) -> str:
        return "shuffled" if is_own(self.dataset) else "file"

    def _check_order(self) -> None:
        if self.order is None:
            object.__setattr__(self, "order", self._usual_order)
        if self.order not in ("shuffled", "file"):
            raise IWAEError(f"`order` must be shuffled or file, got {self.order!r}")
        check_seed(self.split_seed, "split_seed")
        if self.split_seed and not (self.order == "shuffled" and is_own(self.dataset)):
            raise IWAEError(f"`split_seed` {self.split_seed} has no meaning here: it goes with own data, shuffled")

    def _resolve_recipe(self) -> None:
        """Writes out what the schedule brings along."""
        for field in ("batch_size", "beta1"):
            if getattr(self, field) is None:
                object.__setattr__(self, field, getattr(self.recipe, field))
        if self.adam_moments is None:
            object.__setattr__(self, "adam_moments", self.recipe.moments)
        if self.adam_moments not in ("delayed", "current"):
            raise IWAEError(f"`adam_moments` must be delayed or current, got {self.adam_moments!r}")
        if self.adam_moments == "delayed" and self.recipe.optimizer != "Adam":
            raise IWAEError(f"`adam_moments` delayed is for the paper's Adam, `schedule` {self.schedule} has Nadam")

    @property
    def recipe(self) -> Recipe:
        """The schedule and what goes with it."""
        return RECIPES[self.schedule]

    def _check_objective(self) -> None:
        if not isinstance(self.objective, Objective):
            raise IWAEError(f"`objective` must be an Objective, got {self.objective!r}: RunConfig.of takes names")
        assert self.layers is not None
        self.objective.check_latents((self.latent_kind,) * self.layers)

    @classmethod
    def of(cls, **settings: Any) -> "RunConfig":
        """A configuration from one level of names, as the command line has them: those of `Objective` beside the other
        fields, `objective` or, for what the paper trained, `model` (vae, iwae) being the objective's name. What a
        schedule brings along is filled in (`fast`: DReG and a backward pass of few samples).

        Raises IWAEError for names that are unknown and for combinations that have no meaning.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        objective, model = settings.pop("objective", None), settings.pop("model", None)
        if isinstance(objective, Objective):
            return cls(objective=objective, **settings)
        if model not in (None, *SHORT_FORMS):
            raise IWAEError(f"`model` must be vae or iwae, got {model!r}: others are an `objective`")
        if objective is not None and model is not None and SHORT_FORMS[model] != objective:
            raise IWAEError(
                f"`model` {model} is short for `objective` {SHORT_FORMS[model]}, but `objective` {objective} was given"
                " too: leave out `model`"
            )
        name = objective or SHORT_FORMS[model or "vae"]
        own = {key: settings.pop(key) for key in list(settings) if key not in known}
        recipe = RECIPES.get(settings.get("schedule", "paper"))
        if recipe is not None and recipe.less_noise:
            own = _with_less_noise(name, own, settings.get("latent_kind", "gaussian"))
        return cls(objective=Objective(name, **own), **settings)

    @property
    def model(self) -> str | None:
        """`vae` or `iwae` where the objective is one that the paper trained, whatever its estimator."""
        return {name: model for model, name in SHORT_FORMS.items()}.get(self.objective.name)

    @property
    def k(self) -> int:
        """Number of samples per example."""
        return self.objective.k

    def _check_warm_start(self) -> None:
        if self.init_from is None:
            if self.fresh_optimizer:
                raise IWAEError("`fresh_optimizer` goes with `init_from`: a new run's moments are fresh anyway")
        else:
            if self.schedule != "paper":
                raise IWAEError(
                    f"`schedule` {self.schedule} does not go with `init_from`: give `epochs` and `learning_rate`"
                )
            object.__setattr__(self, "init_from", os.path.abspath(os.path.expanduser(self.init_from)))
            object.__setattr__(self, "epochs", WARM_START.epochs if self.epochs is None else self.epochs)
            if self.learning_rate is None:
                object.__setattr__(self, "learning_rate", WARM_START.learning_rate)
        check_count("epochs", self.epochs, optional=True)
        if self.learning_rate is not None and not 0.0 < self.learning_rate < math.inf:
            raise IWAEError(f"`learning_rate` must be a positive number, got {self.learning_rate!r}")

    @property
    def reading(self) -> Reading:
        """How the data are read."""
        return Reading(self.likelihood, self.columns, self.target, self.order == "shuffled", self.split_seed)

    def full_schedule(self, stages: int | None = None) -> Schedule:
        """The schedule, cut after `stages` stages; a warm start has one stage of its own."""
        if self.init_from is None:
            how = {"epochs": self.epochs, "learning_rate": self.learning_rate}
            return make_schedule(self.schedule, stages, num_samples=self.objective.num_samples, **how)
        if stages not in (None, 1):
            raise IWAEError(f"`stages` {stages} does not go with `init_from`, which has one stage: give `epochs`")
        assert self.epochs is not None
        assert self.learning_rate is not None
        return (Stage(self.epochs, self.learning_rate),)

    def name(self) -> str:
        """A directory name that differs wherever the configuration does (a user's data set: by its file name)."""
        dataset = Path(self.dataset).stem if is_own(self.dataset) else self.dataset
        parts = [dataset]
        if self.order != self._usual_order:
            parts.append("file-order" if self.order == "file" else "shuffled")
        if self.split_seed:
            parts.append(f"split{self.split_seed}")
        parts += [*self.reading.name_parts(), *self.objective.name_parts(), f"{self.layers}layer"]
        if self.latent_kind != "gaussian":
            parts.append(self.latent_kind)
        parts += self.network_parts()
        if self.latent:
            parts.append("-".join(f"{h}x{u}" for h, u in zip(self.hidden, self.latent, strict=True)))
        if self.schedule != "paper":
            parts.append(self.schedule)
        assert self.beta1 is not None
        if self.batch_size != self.recipe.batch_size:
            parts.append(f"batch{self.batch_size}")
        if not math.isclose(self.beta1, self.recipe.beta1):
            parts.append(f"beta{exact_number(self.beta1)}")
        if self.adam_moments != self.recipe.moments:
            parts.append(f"{self.adam_moments}-moments")
        if self.precision != "float32":
            parts.append(self.precision)
        usual = (None, None)
        if self.init_from is not None:
            parts.append(f"from-{Path(self.init_from).name}")
            usual = (WARM_START.epochs, WARM_START.learning_rate)
        if self.epochs != usual[0]:
            parts.append(f"epochs{self.epochs}")
        if self.learning_rate is not None and self.learning_rate != usual[1]:
            parts.append(f"rate{exact_number(self.learning_rate)}")
        if self.fresh_optimizer:
            parts.append("fresh")
        if self.patience is not None:
            parts.append(f"patience{self.patience}")
        return "-".join([*parts, f"seed{self.seed}"])

    def to_json(self) -> dict[str, Any]:
        """Plain values on one level, which `from_json` reads."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        said = {name: v for name, v in fields.items() if name not in USUAL or v != USUAL[name]}
        plain = {name: list(v) if isinstance(v, tuple) else v for name, v in said.items()}
        own = {"model": self.model, "objective": self.objective.name, "estimator": self.objective.estimator}
        numbers = {**dict.fromkeys(all_parameters()), "backward": None, **self.objective.numbers()}
        return {**plain, **own, **numbers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RunConfig":
        """Inverse of `to_json`, also for fields that older versions did not have. Raises IWAEError for anything that it
        did not write: a field that is missing, unknown or of another type.
        """
        own = {"model", "objective", "estimator", "backward", "k", *all_parameters()}
        unknown = sorted(value.keys() - {field.name for field in dataclasses.fields(cls)} - own)
        missing = [name for name in ("latent", "hidden") if name not in value]
        if unknown or missing:
            what = f"unknown fields {', '.join(map(repr, unknown))}" if unknown else f"no {' and no '.join(missing)}"
            raise IWAEError(f"not a run's configuration: {shortened(what)}")
        settings = {key: given for key, given in value.items() if key in own}
        model = settings.pop("model", None)
        settings["name"] = settings.pop("objective", None) or SHORT_FORMS.get(str(model), "elbo")
        # Before 0.2 every run's Adam had the current moments, and every run took the data in the file's order.
        fields = {
            "adam_moments": "current",
            "order": "file",
            **{key: given for key, given in value.items() if key not in own},
        }
        try:
            return msgspec.convert({**fields, "objective": settings}, cls, dec_hook=_as_objective)
        except (msgspec.ValidationError, TypeError) as error:
            raise IWAEError(f"not a run's configuration: {shortened(str(error))}") from None

    def differences(self, other: "RunConfig") -> list[str]:
        """`field: mine, there` for every field in which the two differ.

        Where one's own data lies is no difference: its checksum tells whether it is the same.
        """
        mine, there = self.to_json(), other.to_json()
        if all(is_own(config.dataset) for config in (self, other)):
            there["dataset"] = mine["dataset"]
        return _different(mine, there)

    def kept_apart(self, other: "RunConfig") -> list[str]:
        """`field: mine, there` for every field that keeps two runs from being trained together: they may differ in
        seed and objective, not in the number of samples.
        """
        mine, there = ({f: v for f, v in c.to_json().items() if f not in MAY_DIFFER} for c in (self, other))
        return _different(mine, there)


def _as_objective(kind: type, value: Any) -> Objective:
    names = {"name": str, "estimator": str | None, "k": int, "backward": int | None}
    for name, expected in names.items():
        msgspec.convert(value.get(name, 1 if name == "k" else None), expected)
    return Objective(**value)


def _with_less_noise(name: str, own: dict[str, Any], latent_kind: str) -> dict[str, Any]:
    """DReG where there is one, and then a backward pass of few samples where there are many."""
    if own.get("estimator") is None and latent_kind == "gaussian" and name in OBJECTIVES:
        own = {**own, **({"estimator": "dreg"} if "dreg" in OBJECTIVES[name].methods else {})}
    objective = Objective(name, **own)
    if objective.backward is None and objective.estimator == "dreg" and objective.num_samples > MANY_SAMPLES:
        own = {**own, "backward": FEW_BACKWARD}
    return own


def _different(mine: dict[str, Any], there: dict[str, Any]) -> list[str]:
    mine, there = USUAL | mine, USUAL | there
    return [f"{field}: {mine[field]}, there {there[field]}" for field in mine if mine[field] != there[field]]
