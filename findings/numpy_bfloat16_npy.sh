#!/usr/bin/env bash
# np.save writes bfloat16 arrays (JAX's, through ml_dtypes) without a type: they come back as raw bytes.
#
# Expected: np.load gives bfloat16, or np.save refuses a type that its format has no name for.
# What happens: the file says '|V2' (two bytes of anything). The values are bytes, arithmetic fails, and nothing
# was said when the array was saved. The same holds for np.savez.
# For users: save `array.astype(np.float32)`, or load with `.view(ml_dtypes.bfloat16)`, which restores all values.
# Versions: numpy 2.4.6, ml-dtypes 0.6.0. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    numpy==2.4.6 ml-dtypes==0.6.0
JAX_PLATFORMS=cpu venv/bin/python -I - <<'END'
import warnings
from importlib.metadata import version

import ml_dtypes
import numpy as np

print("numpy", np.__version__, "ml_dtypes", version("ml_dtypes"))
warnings.simplefilter("error")
saved = np.array([1, 2.5, -3], ml_dtypes.bfloat16)
np.save("array.npy", saved)
np.savez("arrays.npz", a=saved)
for loaded in (np.load("array.npy"), np.load("arrays.npz")["a"]):
    print("saved", saved.dtype, saved, "loaded", loaded.dtype, loaded)
    assert loaded.dtype == np.dtype("V2"), "changed: the type that is loaded"
    try:
        loaded + 1
    except TypeError as error:
        print("loaded + 1:", type(error).__name__)
    else:
        raise SystemExit("changed: arithmetic works")
    assert np.array_equal(loaded.view(ml_dtypes.bfloat16), saved), "changed: a view does not restore the values"
END
