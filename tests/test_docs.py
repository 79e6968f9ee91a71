"""The documentation's Python runs as it stands, and its tables list what there is."""

import json
import re
from importlib import import_module
from pathlib import Path

import jax
import numpy as np
import pytest

import iwae
from helpers.toy import toy_dataset
from iwae.estimators.table import OBJECTIVES
from iwae.models.architecture import Architecture
from iwae.models.vae import HierarchicalVAE
from iwae.training.loop import train
from iwae.training.optim import paper_adam
from iwae.training.schedule import Stage
from iwae.training.step import TrainState

DOCS = Path(__file__).parents[1] / "docs"
ESTIMATORS_PAGE = (DOCS / "estimators.md").read_text()
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
    assert documented == {
        name: tuple(row.methods) for name, row in OBJECTIVES.items() if name not in ("beta-vae", "free-bits")
    }


def test_the_getting_started_page_runs(capsys):
    page = (DOCS / "index.md").read_text()
    exec(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[0], {})
    # Four prototypes of 20 bits: below 20 log 2 = 13.86 nats, which is what fair coins have.
    assert 5.0 < float(capsys.readouterr().out.split()[-2]) < 13.86


def test_the_reference_has_every_public_name():
    pages = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    paths = re.findall(r"^::: (\S+)$", pages, flags=re.MULTILINE)
    assert len(set(paths)) == len(paths)
    for path in paths:
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name), path
    # Of some modules more is documented: what stands in iwae.sklearn, iwae.data.tables.
    assert set(iwae.__all__) - {"__version__"} <= {path.rpartition(".")[2] for path in paths}


@pytest.mark.parametrize("path", sorted((DOCS / "tutorials").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
