#!/usr/bin/env bash
# safetensors writes different bytes for the same data when there are two or more entries of metadata.
#
# Expected: the same arrays and the same metadata give the same bytes, so that a file's hash names its content.
# What happens: the metadata lie in a hash map whose order is drawn anew for every save. With two entries there are
# two headers, also within one process. With one entry the bytes are always the same. The values are always right.
# For users: do not compare or cache such files by their hash. Put all metadata in one entry, such as one JSON text.
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
from safetensors.numpy import save

print("safetensors", version("safetensors"), "numpy", np.__version__)
arrays = {"a": np.zeros(3), "b": np.ones(2)}
counts = {}
for entries in (0, 1, 2, 3):
    metadata = {f"entry{i}": str(i) for i in range(entries)}
    counts[entries] = len({save(arrays, metadata) for _ in range(200)})
    print(f"{entries} entries: 200 saves, {counts[entries]} different files")
assert counts[0] == counts[1] == 1, "changed: bytes differ without several entries"
assert counts[2] > 1, "changed: two entries now give the same bytes"
END
