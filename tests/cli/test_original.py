"""The commands that the paper's users know: their flags, their defaults, and the scripts at the root."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import iwae
import iwae.runs.train
from iwae.cli import paper_experiment

ROOT = Path(__file__).resolve().parents[2]
RESULTS: dict[str, Any] = {
    "config": iwae.RunConfig().to_json(),
    "architecture": {"latent": [50]},
    "data": {"name": "mnist", "mark": "verified"},
    "stages_done": 8,
    "stages_total": 8,
    "epochs": 3280,
    "test": {"nll": 86.7612, "stderr": 0.2345, "num_samples": 5000, "num_examples": 10_000, "split_examples": 10_000},
    "active_units": [19],
    "active_units_paper_code": [18],
    "seconds": {"training": 1.0},
    "checkpoint": "checkpoints/8.safetensors",
    "files": {"samples": "samples.png", "per_example": "evaluations/8-test-5000.npz"},
}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", ("mnist", "vae", 1, 1, None)),
        ("-m iwae -d BinFixMNIST -k 5 -l 2 -c 3", ("binfixmnist", "iwae", 5, 2, 3)),
        ("--model iwae --dataset OMNI --k 50 --layers 1 --checkpoint 8", ("omniglot", "iwae", 50, 1, 8)),
    ],
)
def test_experiments_understands_the_papers_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: tuple[Any, ...]
) -> None:
    calls = []

    def train_runs(configs: dict[Path, iwae.RunConfig], **options: Any) -> list[dict[str, Any]]:
        ((path, config),) = configs.items()
        calls.append((path, config, options))
        return [RESULTS]

    monkeypatch.setattr(iwae.runs.train, "train_runs", train_runs)
    assert paper_experiment(line.split(), default_datasets_dir=tmp_path / "data", results_dir=tmp_path / "out") == 0
    ((path, config, options),) = calls
    assert (config.dataset, config.model, config.k, config.layers, options["options"].checkpoint) == expected
    assert (config.schedule, config.batch_size, config.beta1, config.seed) == ("paper", 20, 0.99, 0)
    assert path == tmp_path / "out" / config.name()
    assert options["default_datasets_dir"] == tmp_path / "data"
    program, _, rest = options["continue_command"].partition(".py")
    assert program == "python experiments"
    assert rest.strip() == re.sub(r" (-c|--checkpoint) \d", "", line)


@pytest.mark.parametrize(
    ("line", "status", "expected"),
    [
        ("-k 0", 1, "--k must be"),
        ("-l 3", 1, "must be 1 or 2, the paper's networks"),
        ("-d CIFAR", 1, "unknown dataset 'CIFAR'"),
        ("-m gan", 2, "'gan'"),
        ("-x", 2, "-x"),
        ("-e iwae_to_vae -k 5", 2, "--exp iwae_to_vae has its own model, k and layers: leave out --k 5"),
        ("-e vae_to_iwae -m vae -l 1", 2, "leave out --model vae and --layers 1"),
        ("-c -1", 1, "--checkpoint must be 0 or more"),
        ("-c 3", 1, "there is no run to restart from checkpoint 3"),
    ],
)
def test_experiments_refuses_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, status: int, expected: str
) -> None:
    assert paper_experiment(line.split(), default_datasets_dir=tmp_path, results_dir=tmp_path) == status
    said = capsys.readouterr().err
    assert expected in said
    assert "Traceback" not in said
    if status == 1:
        (message,) = said.splitlines()
        assert message.startswith("iwae: error: ")


def test_the_result_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(iwae.runs.train, "train_runs", lambda *_, **__: [RESULTS])
    assert paper_experiment([], default_datasets_dir=tmp_path, results_dir=tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Test NLL, L_5000: 86.76 ± 0.23 nats, on mnist"
    assert lines[1] == "Active units: 19 of 50 (as the paper's code counted: 18)"
    assert f"Weights: {tmp_path}/mnist-vae-k1-1layer-seed0/checkpoints/8.safetensors" in lines


def test_a_warm_starts_result_names_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = iwae.RunConfig.of(init_from="/runs/vae").to_json()
    results = {**RESULTS, "config": config, "stages_done": 1, "stages_total": 1, "epochs": 2187}
    monkeypatch.setattr(iwae.runs.train, "train_runs", lambda *_, **__: [results])
    assert paper_experiment([], default_datasets_dir=tmp_path, results_dir=tmp_path) == 0
    assert "Trained: warm start, 2187 epochs at 0.0001, from /runs/vae, 1 s" in capsys.readouterr().out.splitlines()


def test_the_scripts_at_the_root_run() -> None:
    def output(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=400)

    done = output("experiments.py", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for flags in ("-m {vae,iwae}", "-d STR", "-k INT", "-l INT", "-c INT"):
        assert flags in done.stdout
    done = output("experiments.py", "-k", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "iwae: error: --k must be an integer of at least 1, got 0\n"
    done = output("-c", "import config; print(config.DATASETS_DIR, config.RESULTS_DIR, sep=chr(10))")
    assert done.stdout.splitlines() == [str(ROOT / "datasets"), str(ROOT / "results")]
