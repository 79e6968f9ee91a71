#!/usr/bin/env bash
# miceforest's imputation fails with every table under LightGBM 4.7, which its requirements allow.
#
# Expected: `pip install miceforest` gives releases that work together.
# What happens: miceforest 6.0.5 requires lightgbm>=4.1.0 and calls a private method of it,
# `lgbmodel._Booster__inner_predict(0)`, whose signature changed: kernel.mice(1) raises TypeError:
# Booster.__inner_predict() takes 1 positional argument but 2 were given. With LightGBM 4.5.0 the same call works.
# For users: pin lightgbm==4.5.0 beside miceforest 6.0.5.
# Versions: miceforest 6.0.5, lightgbm 4.7.0 and 4.5.0, numpy 2.4.6. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
cat >impute.py <<'END'
from importlib.metadata import requires, version

import miceforest
import numpy as np
import pandas as pd

rng = np.random.default_rng(0)
table = pd.DataFrame(rng.normal(size=(200, 4)), columns=list("abcd"))
table = table.mask(rng.random(table.shape) < 0.2)
print("miceforest", version("miceforest"), "lightgbm", version("lightgbm"), "numpy", np.__version__)
print("requires", *(one for one in requires("miceforest") if one.startswith("lightgbm")))
kernel = miceforest.ImputationKernel(table, num_datasets=1, random_state=0)
try:
    kernel.mice(1)
except TypeError as error:
    print(f"TypeError: {error}")
else:
    print("missing values left:", int(kernel.complete_data(0).isna().sum().sum()))
END
expect() {
    venv/bin/python -m pip install --quiet --disable-pip-version-check miceforest==6.0.5 numpy==2.4.6 "$1"
    venv/bin/python -I impute.py | tee out.txt
    grep -q "$2" out.txt || { echo "changed: $1"; exit 1; }
}
expect lightgbm==4.7.0 "inner_predict() takes 1 positional argument but 2 were given"
expect lightgbm==4.5.0 "missing values left: 0"
