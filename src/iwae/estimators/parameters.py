"""The numbers that belong to objectives and estimators: their names, what they may be, their defaults."""

import dataclasses
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from iwae.errors import IWAEError, check_count

Number = int | float


@dataclass(frozen=True)
class Parameter:
    """A number that belongs to an objective or an estimator; without a `default` it must be given. `argument` is what
    the estimator or the bound calls it.
    """

    name: str
    kind: type[int] | type[float]
    expected: str
    is_valid: Callable[[float], bool]
    argument: str
    help: str
    default: Number | None = None

    def checked(self, value: Any) -> Number:
        """The value as Python's own number. Raises IWAEError for one that has no meaning."""
        if self.kind is int:
            check_count(self.name, value, 0 if self.default == 0 else 1)
            return int(value)
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not self.is_valid(float(value)):
            raise IWAEError(f"`{self.name}` must be {self.expected}, got {value!r}")
        return float(value)


def _share(name: str, text: str, default: float | None = None) -> Parameter:
    return Parameter(name, float, "a number from 0 to 1", lambda value: 0.0 <= value <= 1.0, name, text, default)


M = Parameter("m", int, "", bool, "num_groups", "miwae, piwae: groups of k samples")
RENYI_ALPHA = Parameter("alpha", float, "a finite number", math.isfinite, "alpha", "renyi: alpha of VR-alpha")
DREG_ALPHA = dataclasses.replace(RENYI_ALPHA, help="iwae with dreg: alpha of DReG(alpha), 0 by default", default=0.0)
CIWAE_BETA = _share("beta", "ciwae: the share of the ELBO")
VAE_BETA = Parameter(
    "beta", float, "0 or more", lambda v: 0.0 <= v < math.inf, "beta", "beta-vae: the KL's weight, 1 by default", 1.0
)
WARM_UP = Parameter("warm_up", int, "", bool, "warm_up", "beta-vae: steps in which the KL's weight grows from 0", 0)
FREE_BITS = Parameter(
    "free_bits",
    float,
    "0 or more",
    lambda v: 0.0 <= v < math.inf,
    "free_bits",
    "free-bits: nats of the KL without cost",
)
PARTITIONS = Parameter("partitions", int, "", bool, "partitions", "tvo: intervals of the sum, 5 by default", 5)
FIRST_BETA = Parameter(
    "first_beta",
    float,
    "a number between 0 and 1",
    lambda value: 0.0 < value < 1.0,
    "first_beta",
    "tvo: where the second interval begins, 0.1 by default; the later ones are equally apart in log beta",
    0.1,
)
GAMMA = _share("gamma", "ovis: 1, the default, for effective sample sizes well above 1; 0 for those near 1", 1.0)
SLEEP = _share("sleep", "rws: the share of sleep-phi in the encoder's update, 0 by default", 0.0)


def exact_number(value: float) -> str:
    """The number as a name holds it: 0.5, 2, 1e-05; with all its digits where six are not all."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
