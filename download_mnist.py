"""`python download_mnist.py`: obtains MNIST and its fixed binarization, verified, into config.DATASETS_DIR."""

import sys

import config

from iwae.cli import paper_download

if __name__ == "__main__":
    sys.exit(paper_download(sys.argv[1:], default_datasets_dir=config.DATASETS_DIR))
