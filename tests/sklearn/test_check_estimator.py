"""scikit-learn's own checks, all of them: none is skipped, none may fail."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("sklearn")

PROGRAM = """
import sys, warnings
from sklearn.utils.estimator_checks import check_estimator
from iwae.sklearn import IWAEDensity, IWAEImputer

warnings.simplefilter("ignore")
small = {} if sys.argv[2:] else {"hidden": (8,), "k": 2, "batch_size": 8, "num_samples": 32}
estimator = {"density": IWAEDensity, "imputer": IWAEImputer}[sys.argv[1]](**small)
found = check_estimator(estimator, on_skip=None, on_fail=None)
for check in found:
    if check["status"] != "passed":
        print(check["check_name"], check["status"], repr(check["exception"]))
print(len(found), "checks")
"""


def check(*arguments: str) -> None:
    # Without it scikit-learn skips a check of arrays of other libraries.
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    *failed, last = done.stdout.splitlines()
    assert failed == []
    assert int(last.split()[0]) > 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["density", "imputer"])
def test_every_check_passes(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["density", "imputer"])
def test_every_check_passes_with_the_default_networks(name):
    check(name, "default")
