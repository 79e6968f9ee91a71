"""The documentation's Python runs as it stands, and its tables list what there is."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers.toy import toy_dataset
from iwae.estimators.objective import OBJECTIVES
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.training.loop import train
from iwae.training.optim import paper_adam
from iwae.training.schedule import Stage
from iwae.training.step import TrainState

ESTIMATORS_PAGE = (Path(__file__).parents[1] / "docs" / "estimators.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", ESTIMATORS_PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["bound", "estimator"])
def test_what_one_adds_oneself_takes_under_twenty_lines_and_trains(block):
    assert len([line for line in block.splitlines() if line.strip()]) < 20
    names = {}
    exec(block, names)
    dataset, optimizer = toy_dataset(), paper_adam()
    model = HierarchicalVAE.create(Architecture(6, (3, 2), ((4,), (4,))), jax.random.key(0))
    state = TrainState.create(model, optimizer, 0)
    progress = list(train(state, dataset, (Stage(3, 0.01),), names["estimator"], optimizer, batch_size=10))
    bounds = [p.bound for p in progress if p.epoch_done]
    assert np.all(np.isfinite(bounds))
    assert bounds[-1] > bounds[0]


def test_the_table_of_objectives_is_the_programs():
    rows = re.findall(r"^\| `([\w-]+)` \|.*\| ((?:`[\w-]+`(?:, )?)+) \|$", ESTIMATORS_PAGE, flags=re.MULTILINE)
    documented = {name: tuple(re.findall(r"`([\w-]+)`", estimators)) for name, estimators in rows}
    assert documented == {name: tuple(row.methods) for name, row in OBJECTIVES.items() if name != "beta-vae"}
