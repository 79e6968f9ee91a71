"""What can be maximized, and by which estimators of its gradient, by name (no JAX is imported here)."""

import math
import numbers
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from iwae.errors import IWAEError, check_count

ObjectiveName = Literal["elbo", "iwae", "miwae", "ciwae", "renyi", "vr-max", "jvi", "rws", "piwae", "vimco", "ovis"]
EstimatorName = Literal["reparameterized", "stl", "dreg", "rws-dreg", "score"]

OF_BOUNDS: tuple[EstimatorName, ...] = ("reparameterized", "stl", "dreg", "score")
# Of each objective, the estimators that have a meaning; the first is the default.
ESTIMATORS: dict[ObjectiveName, tuple[EstimatorName, ...]] = {
    "elbo": OF_BOUNDS,
    "iwae": OF_BOUNDS,
    "miwae": OF_BOUNDS,
    "ciwae": OF_BOUNDS,
    "renyi": OF_BOUNDS,
    # The largest weight's slope jumps from 0 to 1: there is no second derivative that DReG could be made of.
    "vr-max": ("reparameterized", "stl", "score"),
    "jvi": OF_BOUNDS,
    "rws": ("score", "rws-dreg"),
    "piwae": ("reparameterized", "dreg"),
    "vimco": ("score",),
    "ovis": ("score",),
}
PARAMETERS = ("m", "alpha", "beta", "gamma", "sleep", "backward")
WHOLE_NUMBERS = ("m", "backward")
# These compare a sample with the others; from a single one wake-phi learns nothing.
NEED_TWO_SAMPLES: tuple[ObjectiveName, ...] = ("jvi", "vimco", "ovis", "rws")


@dataclass(frozen=True)
class Objective:
    """What is maximized, with how many samples, and the estimator of its gradient.

    `m` (groups of samples) belongs to miwae and piwae; `alpha` to renyi, and to iwae with dreg, where it makes
    DReG(alpha); `beta` to ciwae; `gamma`, from 0 to 1, to ovis; `sleep`, the share of sleep-phi, to rws with score.
    `backward` goes with all: how many of the samples go through the backward pass, all of them where it is None.
    What is left out takes its default where there is one (`gamma` 1, `sleep` 0, the objective's first estimator)
    and stays None where it has no meaning.
    """

    name: ObjectiveName
    k: int = 1
    m: int | None = None
    alpha: float | None = None
    beta: float | None = None
    gamma: float | None = None
    sleep: float | None = None
    estimator: EstimatorName | None = None
    backward: int | None = None

    def __post_init__(self) -> None:
        """Raises IWAEError for names that are unknown and for combinations that have no meaning, saying which do."""
        if self.name not in ESTIMATORS:
            raise IWAEError(f"--objective must be one of {', '.join(ESTIMATORS)}, got {self.name!r}")
        possible = ESTIMATORS[self.name]
        if self.estimator is None:
            object.__setattr__(self, "estimator", possible[0])
        if self.estimator not in get_args(EstimatorName):
            raise IWAEError(f"--estimator must be one of {', '.join(get_args(EstimatorName))}, got {self.estimator!r}")
        if self.estimator not in possible:
            partners = ", ".join(name for name, known in ESTIMATORS.items() if self.estimator in known)
            raise IWAEError(
                f"--estimator {self.estimator} does not go with --objective {self.name}, which has"
                f" {', '.join(possible)}; {self.estimator} goes with {partners}"
            )
        least = 2 if self.compares_samples else 1
        check_count("--k", self.k, least, f" for --objective {self.name}" if least > 1 else "")
        object.__setattr__(self, "k", int(self.k))
        self._check_owner("m", self.name in ("miwae", "piwae"), "--objective miwae and piwae")
        self._check_owner("beta", self.name == "ciwae", "--objective ciwae")
        self._check_owner("gamma", self.name == "ovis", "--objective ovis", default=1.0)
        wakes = self.name == "rws" and self.estimator == "score"
        self._check_owner("sleep", wakes, "--objective rws with --estimator score", default=0.0)
        dreg = self.name == "iwae" and self.estimator == "dreg"
        owners = "--objective renyi, and iwae with --estimator dreg"
        self._check_owner("alpha", self.name == "renyi" or dreg, owners, default=0.0 if dreg else None)
        for field in WHOLE_NUMBERS:
            if getattr(self, field) is not None:
                check_count(f"--{field}", getattr(self, field))
                object.__setattr__(self, field, int(getattr(self, field)))
        if self.backward is not None and self.backward > self.num_samples:
            raise IWAEError(f"--backward must be at most the {self.num_samples} samples drawn, got {self.backward}")
        for field in ("beta", "gamma", "sleep"):
            self._check_number(field, "a number from 0 to 1", lambda value: 0.0 <= value <= 1.0)
        self._check_number("alpha", "a finite number", math.isfinite)

    def _check_owner(self, field: str, is_owner: bool, owners: str, default: float | None = None) -> None:
        value = getattr(self, field)
        if value is not None and not is_owner:
            raise IWAEError(f"--{field} {value} goes with {owners}, not with {self._described()}")
        if value is None and is_owner:
            if default is None:
                raise IWAEError(f"--objective {self.name} needs --{field}")
            object.__setattr__(self, field, default)

    def _check_number(self, field: str, expected: str, is_valid: Callable[[float], bool]) -> None:
        value = getattr(self, field)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not is_valid(float(value)):
            raise IWAEError(f"--{field} must be {expected}, got {value!r}")
        object.__setattr__(self, field, float(value))

    def _described(self) -> str:
        """`--objective iwae --estimator stl`; without the estimator where it is the default."""
        chosen = "" if self.estimator == ESTIMATORS[self.name][0] else f" --estimator {self.estimator}"
        return f"--objective {self.name}{chosen}"

    @classmethod
    def parse(cls, text: str, k: int) -> "Objective":
        """An objective from one word: `iwae`, `iwae:dreg`, `ciwae:dreg:beta=0.5`, `miwae:m=4`, with k samples.

        Raises IWAEError for words that are no objective, estimator or parameter.
        """
        name, *rest = text.split(":")
        settings: dict[str, Any] = {}
        for part in rest:
            field, equals, value = part.partition("=")
            if (field if equals else "estimator") in settings:
                raise IWAEError(f"{text!r} gives {field if equals else 'an estimator'} twice")
            if not equals:
                settings["estimator"] = part
            elif field in PARAMETERS:
                number, expected = (int, "an integer") if field in WHOLE_NUMBERS else (float, "a number")
                try:
                    settings[field] = number(value)
                except ValueError:
                    raise IWAEError(f"{text!r}: {field} must be {expected}, got {value!r}") from None
            else:
                raise IWAEError(f"{text!r}: expected a word such as iwae, iwae:dreg or ciwae:beta=0.5")
        try:
            return cls(name, k, **settings)  # pyright: ignore[reportArgumentType]
        except IWAEError as error:
            raise IWAEError(f"{text!r}: {_as_words(str(error))}") from None

    @property
    def num_samples(self) -> int:
        """Samples drawn per example: k, in each of the m groups."""
        return self.k * (self.m or 1)

    @property
    def compares_samples(self) -> bool:
        """Whether it compares a sample with the others, so that one alone gives it nothing."""
        return self.name in NEED_TWO_SAMPLES and not (self.name == "rws" and self.sleep == 1.0)

    @property
    def needs_gaussian_latents(self) -> bool:
        """Whether the estimator differentiates through the samples, which binary ones do not allow."""
        return self.estimator != "score"

    def name_parts(self) -> list[str]:
        """`["iwae", "k5", "dreg"]`: different wherever the objective is; a default is left out."""
        parts = ["vae" if self.name == "elbo" else self.name]
        parts += [f"m{self.m}"] if self.m is not None else []
        parts.append(f"k{self.k}")
        if self.estimator != ESTIMATORS[self.name][0]:
            parts.append(str(self.estimator))
        defaults = {"alpha": 0.0 if self.name == "iwae" else None, "gamma": 1.0, "sleep": 0.0, "beta": None}
        for field, default in defaults.items():
            value = getattr(self, field)
            if value != default and value is not None:
                parts.append(f"{field}{exact_number(value)}")
        if self.backward is not None:
            parts.append(f"backward{self.backward}")
        return parts

    def parameters(self) -> dict[str, Any]:
        """The parameters that have a meaning here, by name, k last."""
        fields = {field: getattr(self, field) for field in PARAMETERS}
        return {**{field: value for field, value in fields.items() if value is not None}, "k": self.k}


def _as_words(message: str) -> str:
    """A message about options in the syntax of `Objective.parse`."""
    message = re.sub(r"--(objective|estimator) (?!must)(?=[a-z])", "", message)
    return re.sub(r"--(\w+)", r"\1", message)


def exact_number(value: float) -> str:
    """The number as a name holds it: 0.5, 2, 1e-05; with all its digits where six are not all."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
