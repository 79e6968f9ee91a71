"""The trained models of the repository: their list, and that each still is what its records say."""

from pathlib import Path

import numpy as np
import pytest

import iwae
from helpers.paper_runs import write_run
from helpers.small_runs import go, small_config, write_data
from iwae.cli.app import main
from iwae.data import load_dataset
from iwae.errors import IWAEError
from iwae.io.json import read_json
from iwae.paper.cells import cells_of
from iwae.paper.pretrained import CHECKOUT, pretrained
from iwae.runs.directory import Run
from iwae.runs.records import EvaluationRecord

MODELS = sorted(path.parent for path in CHECKOUT.glob("*/run.json"))


def test_the_list_has_the_papers_figures_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = {cell.config.name(): cell for cell in cells_of("1", results_dir=tmp_path)}
    write_run(tmp_path, cells["mnist-iwae-k50-2layer-seed0"], test={"nll": 82.5, "num_samples": 500})
    go(tmp_path / "own", small_config(write_data(tmp_path / "d.npz")), stages=1)
    run = Run.open(tmp_path / "own")
    assert main(["evaluate", str(run.path), "--method", "ais", "--chains", "2", "--steps", "3", "--examples", "9"]) == 0
    capsys.readouterr()
    rows = {row["name"]: row for row in pretrained(tmp_path)}
    found = [np.load(path)["log_likelihood"][:9] for path in sorted(run.evaluations_path.glob("*.npz"))]
    more = found[1] - found[0]
    assert rows["own"]["ais_above"] == pytest.approx(more.mean())
    assert rows["own"]["ais_above_stderr"] == pytest.approx(more.std(ddof=1) / 3)
    assert [rows[name]["paper_nll"] for name in ("mnist-iwae-k50-2layer-seed0", "own")] == [82.90, None]
    assert rows["mnist-iwae-k50-2layer-seed0"]["command"].endswith("--model iwae --k 50 --layers 2")
    assert main(["pretrained", str(tmp_path), "--format", "markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = ["82.90", "82.50 ± 0.24 (L_500)", "not measured", "25", "26+7", "0.0"]
    assert lines[2] == f"| mnist-iwae-k50-2layer-seed0 | mnist | paper, 3,280 epochs | {' | '.join(figures)} |"
    assert "(L_20)" in lines[3]


def test_where_there_is_none_it_says_where_they_are(tmp_path: Path) -> None:
    with pytest.raises(IWAEError, match=r"no trained models here.*repository"):
        pretrained(tmp_path)
    with pytest.raises(IWAEError, match=r"no such directory.*repository"):
        pretrained(tmp_path / "nowhere")


@pytest.mark.skipif(not MODELS, reason="no pretrained/ beside the tests")
def test_their_page_is_what_the_records_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrained", str(CHECKOUT), "--format", "markdown"]) == 0
    page = (CHECKOUT / "README.md").read_text()
    assert capsys.readouterr().out in page
    for row in pretrained(CHECKOUT):
        assert row["command"] in page


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_each_has_the_likelihood_that_its_record_says(path: Path) -> None:
    run = Run.open(path)
    record = read_json(next(path.glob("evaluations/*-test-50-first200.json")), EvaluationRecord, "measure it again")
    assert record["weights_sha256"] == run.checkpoint().weights_digest()
    assert run.results() is not None
    try:
        data = load_dataset(run.config.dataset)
    except IWAEError as error:
        pytest.skip(f"{run.config.dataset} can't be had here: {error}")
    found = iwae.likelihoods(iwae.load(path), data, num_samples=50, max_examples=200)
    assert found.nll == pytest.approx(record["nll"], abs=2e-3)
