"""The tutorials run in Jupyter's kernel, and show there what they should."""

from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

TUTORIALS = Path(__file__).parents[1] / "docs/tutorials"


def outputs(name: str, directory: Path) -> list[list[Any]]:
    """What every cell of code of a tutorial puts out."""
    notebook = nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(directory)}}
    ).execute()
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def test_objects_progress_and_plots_in_a_notebook(tmp_path: Path) -> None:
    data, model, estimator, training, found, ladder, units, images = outputs("notebook", tmp_path)
    assert "<img alt=" in data[0].data["text/html"]
    assert data[0].data["text/plain"].startswith("Dataset(array: 400 / 0 / 100 examples")
    assert model[0].data["text/plain"].startswith("HierarchicalVAE: 20 values, latent 3,")
    assert "bound=ciwae(beta=0.5)" in estimator[0].data["text/plain"]
    # One line, replaced ten times.
    (line,) = training
    assert line.data["text/plain"].startswith("epoch 10/10, bound -")
    assert found[0].data["text/plain"].count("Likelihoods(NLL ") == 3
    for cell in (ladder, units, images):
        assert "image/png" in cell[-1].data
    assert units[0].text.startswith("ActiveUnits(")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bound", "data", "estimator", "paper"])
def test_a_tutorial_runs(name: str, tmp_path: Path) -> None:
    assert any(outputs(name, tmp_path))


def test_every_tutorial_is_run() -> None:
    assert {path.stem for path in TUTORIALS.glob("*.ipynb")} == {"notebook", "bound", "data", "estimator", "paper"}
