#!/usr/bin/env bash
# submitit takes every preemption of a job with a limit of ten minutes or less for the end of its time.
#
# Expected: a job that is preempted after a second is requeued however often that happens, and only time that is used
# up counts against `max_num_timeout` (3 by default).
# What happens: at the warning signal the job is "timed out" if it ran for min(0.8 limit, limit - 10 minutes), which is
# negative for short limits. The default limit is five minutes. With `time=None`, the partition's own limit, and with
# a limit as sbatch writes it, "1:00:00", the submission is accepted, and the warning ends in a TypeError: nothing is
# requeued, perhaps hours later.
# For users: give the limit in minutes, as an integer, and above ten; or requeue by yourself.
# Versions: submitit 1.5.4, cloudpickle 3.1.3. Date: 2026-11. No Slurm is needed: the signal's handler is asked alone.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    submitit==1.5.4 cloudpickle==3.1.3 typing-extensions==4.15.0
venv/bin/python -I - <<'END'
from importlib.metadata import version

from submitit import SlurmExecutor
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import DelayedSubmission

print("submitit", version("submitit"))
found = {}
for limit in (5, 10, 11, 60, None, "1:00:00"):
    submission = DelayedSubmission(print)
    submission.set_timeout(limit, 3)
    try:
        found[limit] = SignalHandler(None, None, submission).has_timed_out()
    except TypeError as error:
        found[limit] = f"TypeError: {error}"
    print(f"time={limit!r}, warned at once: timed out: {found[limit]}")
assert found[5] is True and found[10] is True, "changed: short jobs can be preempted"
assert found[11] is False and found[60] is False, "changed: longer jobs too are timed out at once"
assert all("TypeError" in str(found[limit]) for limit in (None, "1:00:00")), "changed: these limits are understood"
END
