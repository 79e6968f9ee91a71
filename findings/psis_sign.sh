#!/usr/bin/env bash
# `psislw` takes log weights in ArviZ 0.22 and MINUS the log weights in arviz-stats 0.8.
#
# Expected: the function of the same name, which is ArviZ's successor, takes the same argument.
# What happens: arviz.psislw(log_weights) smooths the weights exp(log_weights). arviz_stats' array_stats.psislw(ary)
# smooths exp(-ary): it wants log likelihoods, as leave-one-out needs them. Its docstring names the argument "ary,
# array-like" and says nothing of a sign. Nothing raises: k-hat is that of the inverse weights.
# For users: pass -log_weights to arviz-stats, and test it with weights whose k-hat is known. Bounded weights (uniform
# in 0 to 1, k = -1) and their inverses (1 / uniform, k = 1) tell the two apart.
# Versions: arviz 0.22.0, arviz-stats 0.8.0, numpy 2.4.6, scipy 1.17.1. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    arviz==0.22.0 arviz-stats==0.8.0 numpy==2.4.6 scipy==1.17.1
JAX_PLATFORMS=cpu venv/bin/python -I - <<'END'
import warnings
from importlib.metadata import version

warnings.simplefilter("ignore")  # ArviZ 0.22 announces its successor.
import arviz
import numpy as np
from arviz_stats.base import array_stats

print("arviz", version("arviz"), "arviz-stats", version("arviz-stats"), "numpy", np.__version__)
log_weights = np.log(np.random.default_rng(0).uniform(size=5000))
k_hats = {
    "arviz.psislw(log_weights)": float(arviz.psislw(log_weights)[1]),
    "arviz_stats psislw(log_weights)": float(array_stats.psislw(log_weights)[1]),
    "arviz_stats psislw(-log_weights)": float(array_stats.psislw(-log_weights)[1]),
}
for name, k_hat in k_hats.items():
    print(f"{name}: k-hat {k_hat:.3f} for bounded weights")
old, same_argument, minus = k_hats.values()
assert old < 0.5, "changed: arviz.psislw"
assert same_argument > 0.8, "changed: arviz-stats takes log weights"
assert abs(minus - old) < 0.1, "changed: arviz-stats with the other sign"
print(array_stats.psislw.__doc__.split("Returns")[0].strip())
END
