"""`python experiments.py --model vae --dataset MNIST --k 1 --layers 1 [--checkpoint n]`: one of the paper's runs.

`--exp iwae_to_vae` and `--exp vae_to_iwae` start one model from another (Table 2). Short flags: -e, -m, -d, -k, -l,
-c. Training continues where it stopped; results go to config.RESULTS_DIR.
"""

import sys

import config

from iwae.cli import paper_experiment

if __name__ == "__main__":
    sys.exit(paper_experiment(sys.argv[1:], default_datasets_dir=config.DATASETS_DIR, results_dir=config.RESULTS_DIR))
