#!/usr/bin/env bash
# safetensors.numpy saves bfloat16 arrays but `load` cannot read what `save` wrote. `load_file` can.
#
# Expected: `load(save(arrays))` gives the arrays, as `load_file` does after `save_file`.
# What happens: `load` raises KeyError: 'BF16'. Its table of types lacks the type that `save` accepts.
# For users: read bfloat16 with `load_file`, or store the bits as uint16.
# Versions: safetensors 0.8.0, ml-dtypes 0.6.0, numpy 2.4.6. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    safetensors==0.8.0 ml-dtypes==0.6.0 numpy==2.4.6
JAX_PLATFORMS=cpu venv/bin/python -I - <<'END'
from importlib.metadata import version

import ml_dtypes
import numpy as np
from safetensors.numpy import load, load_file, save, save_file

print("safetensors", version("safetensors"), "ml_dtypes", version("ml_dtypes"), "numpy", np.__version__)
arrays = {"a": np.array([1, 2.5, -3], ml_dtypes.bfloat16)}
save_file(arrays, "arrays.safetensors")
loaded = load_file("arrays.safetensors")["a"]
print("load_file(save_file):", loaded, loaded.dtype)
assert np.array_equal(loaded, arrays["a"]), "changed: load_file"
try:
    print(load(save(arrays)))
except KeyError as error:
    print("load(save): KeyError", error)
    assert error.args == ("BF16",), "changed: another KeyError"
else:
    raise SystemExit("changed: load now reads bfloat16")
END
