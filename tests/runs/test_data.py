"""What is said of the data of a run."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.small_runs import Messages
from iwae.data import Dataset
from iwae.runs.data import say_if_no_sample


@pytest.mark.parametrize(
    ("name", "split", "examples", "said"),
    [
        ("binfixmnist", "test", 2, True),
        ("binfixmnist", "test", None, False),
        ("binfixmnist", "test", 5, False),
        ("binfixmnist", "valid", 2, False),
        ("mnist", "test", 2, False),
        ("own.npy", "test", 2, False),
    ],
)
def test_the_first_of_a_sorted_file_are_said_to_be_no_sample(name, split, examples, said):
    rows = np.zeros((5, 3), np.uint8)
    dataset, reporter = replace(Dataset.from_arrays(rows, rows, rows), name=name), Messages()
    say_if_no_sample(dataset, split, examples, reporter)
    assert len(reporter.texts) == said
    assert not said or "the first 2 test examples" in reporter.texts[0]
