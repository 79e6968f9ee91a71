#!/usr/bin/env bash
# A second tensorboardX writer in a directory, made in the same second as the first, overwrites what the first wrote.
#
# Expected: two writers of one directory, the first of them closed, leave the events of both, as TensorBoard's reader
# takes all files of a directory for one run.
# What happens: the file's name has the time in whole seconds, and is opened for writing anew. No error is raised. It
# meets a program that is started again at once, a test, and a sweep whose jobs share a directory.
# For users: give each writer `filename_suffix=f".{time.time_ns()}"`, which keeps the order in which files are read.
# Versions: tensorboardX 2.6.5, protobuf 7.36.2, numpy 2.4.6. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    tensorboardX==2.6.5 protobuf==7.36.2 numpy==2.4.6 packaging==26.0
venv/bin/python -I - <<'END'
import time
from importlib.metadata import version
from pathlib import Path

from tensorboardX import SummaryWriter

print("tensorboardX", version("tensorboardX"))


def write(directory, suffixes):
    time.sleep(1.0 - time.time() % 1.0)
    for number, suffix in enumerate(suffixes):
        with SummaryWriter(directory, filename_suffix=suffix) as writer:
            writer.add_scalar(f"value/{number}", 1.0, number)
    files = list(Path(directory).iterdir())
    content = b"".join(path.read_bytes() for path in files)
    kept = [number for number in range(len(suffixes)) if f"value/{number}".encode() in content]
    print(f"suffixes {suffixes}: {len(files)} file(s), values of writers {kept}")
    return len(files), kept


assert write("same", ["", ""]) == (1, [1]), "changed: the first writer's events are kept"
assert write("own", [".1", ".2"]) == (2, [0, 1]), "changed: a suffix no longer helps"
END
