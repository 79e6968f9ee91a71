#!/usr/bin/env bash
# An absent peer of jax.distributed aborts the process; no exception can be caught, and no cleanup runs.
#
# Expected: jax.distributed.initialize raises when another process does not come within `initialization_timeout`.
# What happens: after the timeout (300 s by default; 5 s here) the runtime logs a fatal error and aborts with SIGABRT,
# status 134. `except BaseException`, `finally` and `atexit` see nothing: a run can't save, release a lock or say
# anything in words of its own.
# For users: start the processes under something that watches them; keep state on disk before `initialize`, and look
# for the peers' addresses first where that can be done.
# Versions: jax 0.10.2, jaxlib 0.10.2. Date: 2026-11.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cat >alone.py <<'END'
import atexit
import socket

import jax

with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
print("jax", jax.__version__, flush=True)
atexit.register(lambda: print("atexit", flush=True))
try:
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=0, initialization_timeout=5)
except BaseException as error:
    print("caught", type(error).__name__, flush=True)
finally:
    print("finally", flush=True)
END
status=0
JAX_PLATFORMS=cpu venv/bin/python -I alone.py >out.txt 2>err.txt || status=$?
cat out.txt
grep -o "Terminating process because [^.;]*" err.txt | head -1
echo "status $status"
[ "$status" = 134 ] || { echo "changed: it does not abort"; exit 1; }
if grep -q "caught\|finally\|atexit" out.txt; then echo "changed: something of Python's runs"; exit 1; fi
