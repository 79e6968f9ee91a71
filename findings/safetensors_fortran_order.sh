#!/usr/bin/env bash
# safetensors.numpy saves wrong values of an array that is not in C order.
#
# Expected: `save` and `save_file` write the array that they are given, or refuse it.
# What happens: they write the memory as it lies, with the array's shape, and say nothing. A Fortran-ordered array
# or a transpose comes back with its values in other places. A slice with steps comes back with values that were
# not in it.
# For users: call np.ascontiguousarray on every array before it is saved. The docstring does ask for contiguous
# tensors, but a Fortran-ordered array calls itself contiguous in NumPy's flags (F_CONTIGUOUS), and nothing checks.
# Where such arrays come from: `.T`, pandas' `to_numpy()`, MATLAB's files.
# Versions: safetensors 0.8.0, numpy 2.4.6. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    safetensors==0.8.0 numpy==2.4.6
JAX_PLATFORMS=cpu venv/bin/python -I - <<'END'
from importlib.metadata import version

import numpy as np
from safetensors.numpy import load, load_file, save, save_file

print("safetensors", version("safetensors"), "numpy", np.__version__)
plain = np.arange(6.0).reshape(2, 3)
cases = {
    "C order": plain,
    "Fortran order": np.asfortranarray(plain),
    "transpose": plain.T,
    "every second": np.arange(10.0)[::2],
}
save_file(cases, "arrays.safetensors")
by_file, by_bytes = load_file("arrays.safetensors"), load(save(cases))
for name, array in cases.items():
    print(f"{name}: saved {array.tolist()}, loaded {by_file[name].tolist()}")
    assert np.array_equal(by_file[name], by_bytes[name]), "changed: save and save_file differ"
    same = np.array_equal(array, by_file[name])
    assert same == (name == "C order"), f"changed: {name} is now {'right' if same else 'wrong'}"
contiguous = {name: np.ascontiguousarray(array) for name, array in cases.items()}
assert all(np.array_equal(contiguous[name], array) for name, array in load(save(contiguous)).items())
print("observed: only C order is saved as it is; np.ascontiguousarray mends all of them")
END
