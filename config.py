"""Where the two scripts beside this file look for data and put results; edit to taste."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent
DATASETS_DIR = ROOT / "datasets"
RESULTS_DIR = ROOT / "results"
