#!/usr/bin/env bash
# arviz-stats' PSIS calls the worst importance weights the best when they tie: k-hat 0.02, and no usable weights.
#
# Expected: one weight that carries everything gives a large k-hat (ArviZ 0.22 gave inf), or a clear "not defined".
# What happens in array_stats.psislw:
# 1. Where the quarter of the tail that lies nearest to the cutoff ties with it, but not all of the tail does, k-hat
#    is 5 / (10 + length of the tail): 0.0481 for 1,000 draws and 0.0225 for 5,000. Below 0.7 is called good. All
#    smoothed weights are NaN. NumPy warns of a division by zero and of an invalid value; nothing is raised. A single
#    positive weight among zeros does this, and so do log weights rounded to integers, effective sample size 8.9.
# 2. Where all of the tail ties, it raises ValueError: All tail values are the same. Equal weights, which are the
#    best there are, do this, and so does a model with one binary latent variable (log weights -90 or -91).
# 3. Fewer than 25 draws raise ValueError: n_draws_tail must be at least 5.
# For users: look for NaN in the smoothed weights and do not trust k-hat beside them; give ties a meaning of your own
# before the call. Weights tie with discrete latent variables, with rounding and with zero weights.
# Versions: arviz-stats 0.8.0, numpy 2.4.6, scipy 1.17.1. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    arviz-stats==0.8.0 numpy==2.4.6 scipy==1.17.1
JAX_PLATFORMS=cpu venv/bin/python -I - <<'END'
from importlib.metadata import version

import numpy as np
from arviz_stats.base import array_stats

print("arviz-stats", version("arviz-stats"), "numpy", np.__version__)


def psis(log_weights):
    """k-hat and the smoothed log weights. arviz-stats takes minus the log weights."""
    with np.errstate(all="ignore"):
        smoothed, k_hat = array_stats.psislw(-log_weights)
    return float(k_hat), smoothed


def ess(log_weights):
    weights = np.exp(log_weights - log_weights.max())
    return weights.sum() ** 2 / (weights**2).sum()


rng = np.random.default_rng(0)
smooth = rng.normal(size=5000)
k_hat, smoothed = psis(5 * smooth)
print(f"log weights 5 * normal: effective sample size {ess(5 * smooth):.1f} of 5,000, k-hat {k_hat:.2f}")
assert k_hat > 1 and np.isfinite(smoothed).all(), "changed: weights without ties"

misleading = {
    "one positive weight of 1,000": (np.where(np.arange(1000) == 3, 0, -np.inf), 0.0481),
    "one positive weight of 5,000": (np.where(np.arange(5000) == 3, 0, -np.inf), 0.0225),
    "5 * normal, rounded to integers": (np.round(5 * rng.normal(size=5000)), 0.0225),
}
for name, (log_weights, seen) in misleading.items():
    k_hat, smoothed = psis(log_weights)
    print(f"{name}: effective sample size {ess(log_weights):.1f}, k-hat {k_hat:.4f},",
          f"NaN in {np.isnan(smoothed).sum()} smoothed weights")
    assert abs(k_hat - seen) < 0.0001 and np.isnan(smoothed).all(), f"changed: {name}"

raising = {
    "1,000 equal weights": (np.zeros(1000), "All tail values are the same"),
    "log weights -90 or -91": (np.where(rng.random(1000) < 0.5, -90.0, -91.0), "All tail values are the same"),
    "24 weights": (rng.normal(size=24), "n_draws_tail must be at least 5"),
}
for name, (log_weights, message) in raising.items():
    try:
        psis(log_weights)
    except ValueError as error:
        print(f"{name}: ValueError: {error}")
        assert str(error) == message, "changed: the message"
    else:
        raise SystemExit(f"changed: {name} is accepted")
END
