"""The command line: one line for every failure, help that fits, tables, the live display."""

import csv
import dataclasses
import io
import json
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iwae
import iwae.runs.train
from helpers.small_runs import files_below, go, small_config, write_data
from iwae import Architecture, HierarchicalVAE, TrainState, paper_adam
from iwae.cli import main
from iwae.cli.app import parse, with_dashes
from iwae.cli.console import training_line
from iwae.cli.evaluate import Evaluate
from iwae.cli.options import option_names
from iwae.cli.registry import COMMANDS
from iwae.cli.sample import Sample
from iwae.cli.show import HEADING
from iwae.cli.tables import aligned, figure_label
from iwae.cli.train import Train
from iwae.errors import RunBusyError
from iwae.runs.checkpoint import save_checkpoint
from iwae.runs.signals import Interrupted, Stopped
from iwae.training.loop import Progress
from iwae.training.schedule import make_schedule


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with data `d.npz` and two runs of it, `run` and `other`. Tests only read it."""
    directory = tmp_path_factory.mktemp("trained")
    data = write_data(directory / "d.npz")
    go(directory / "run", small_config(data), stages=2)
    go(directory / "other", small_config(data, seed=1), stages=1)
    return directory


OTHER = Architecture(6, (2,), ((8, 8),))


def zero_state() -> TrainState:
    """A state of another architecture than the runs here."""
    skeleton = eqx.filter_eval_shape(HierarchicalVAE.create, OTHER, jax.random.key(0))
    model = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), skeleton)
    return TrainState.create(model, paper_adam(), 0)


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a run, its data, and what can be given by mistake."""
    for name in ("run", "other"):
        shutil.copytree(trained / name, tmp_path / name)
    path = tmp_path / "run/checkpoints/2.safetensors"
    save_checkpoint(path, zero_state(), architecture=OTHER, seed=0, stages_done=2, seconds=1.0)
    (tmp_path / "corrupt.npz").write_bytes((trained / "d.npz").read_bytes()[:-50])
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "range.npz", train=np.full((30, 4), np.inf), test=np.full((30, 4), 0.5))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IWAE_DATASETS_DIR", str(tmp_path / "nothing"))
    monkeypatch.delenv("IWAE_RESULTS_DIR", raising=False)
    return tmp_path


TRAIN = "train --dataset {data} --latent 3 --hidden 8 --run-dir run"
BAD = {
    "k=0": ("train --k 0", 1, "--k must be an integer of at least 1, got 0"),
    "k=2.5": ("train --k 2.5", 2, "--k: invalid literal for int() with base 10: '2.5'"),
    "k=1e20": ("train --k 100000000000000000000", 1, "--k must be at most 2,147,483,647, got 100000000000000000000"),
    "no latent": ("train --latent --k 5", 2, "--latent: expected at least one value, got none"),
    "latent=x": ("train --latent x", 2, "--latent: "),
    "k=x": ("train --k x", 2, "--k: invalid literal for int() with base 10: 'x'"),
    "beta1=x": ("train --beta1 x", 2, "--beta1: could not convert string to float: 'x'"),
    "beta1=1": ("train --beta1 1", 1, "--beta1 must be at least 0 and below 1, got 1.0"),
    "beta1=nan": ("train --beta1 nan", 1, "--beta1 must be"),
    "layers=0": ("train --layers 0", 1, "--layers must be an integer of at least 1, got 0"),
    "layers=3": ("train --layers 3", 1, "networks of 1 and 2 stochastic layers, not 3: give the sizes"),
    "sizes": (
        "train --latent 3 2 --hidden 8",
        1,
        "as many numbers in --latent and in --hidden, got 2 and 1",
    ),
    "layers and sizes": ("train --layers 1 --latent 3 2 --hidden 8 8", 1, "--layers 1 needs as many numbers"),
    "latent=0": ("train --latent 0 --hidden 8", 1, "positive integer, got 0"),
    "batch size": ("train --batch-size 0", 1, "--batch-size must be"),
    "large batch": ("train --dataset {data} --batch-size 61", 1, "more than the 60 training examples"),
    "model": ("train --model gan", 2, "'gan'"),
    "dataset": ("train --dataset minst", 1, "unknown dataset 'minst'; expected mnist, binfixmnist, omniglot"),
    "missing file": ("train --dataset no.npz", 1, "no.npz"),
    "corrupt npz": ("train --dataset corrupt.npz", 1, "corrupt.npz"),
    "no npz": ("train --dataset text.npz", 1, "text.npz"),
    "range": ("train --dataset range.npz", 1, "range.npz"),
    "directory as data": ("train --dataset empty", 1, "no PNG, JPEG or idx images in it"),
    "seed": ("train --seed -1", 1, "--seed must be an integer from 0 to 2^32 - 1, got -1"),
    "seeds": ("train --seeds 0,x", 2, "--seeds: 'x': expected whole numbers, such as 0,1,2 or 0:3"),
    "no seeds": ("train --seeds", 2, "--seeds: give at least one number, such as 0,1,2"),
    "equal seeds": ("train --seeds 1,1", 1, "--seeds must differ, got 1,1"),
    "seeds and seed": ("train --seeds 0,1 --seed 3", 1, "--seed 3 and --seeds were given: leave out --seed"),
    "seeds in one run": (TRAIN + " --seeds 0,1", 1, "--run-dir run is one directory, and --seeds makes a run each"),
    "stages": ("train --stages 9", 1, "--stages must be from 1 to 8 for the paper schedule, got 9"),
    "stages of quick": ("train --stages 5 --schedule quick", 1, "from 1 to 4 for the quick schedule, got 5"),
    "save-every": ("train --save-every 0", 1, "--save-every must be a positive number"),
    "checkpoint": ("train --checkpoint -2", 1, "--checkpoint must be 0 or more, got -2"),
    "fresh and checkpoint": ("train --fresh --checkpoint 2", 1, "give one of them"),
    "test-samples": (TRAIN + " --test-samples 0", 1, "--test-samples must be"),
    "too many samples": (TRAIN + " --test-samples 100001", 1, "--test-samples must be at most 100,000, got 100001"),
    "file in the way": ("train --dataset {data} --run-dir file", 1, "file is a file"),
    "other configuration": (TRAIN + " --k 3", 1, "another configuration (k: 3, there 1)"),
    "other architecture": (TRAIN, 1, "run/checkpoints/2.safetensors: the checkpoint is of another architecture"),
    "no checkpoint": (TRAIN + " --checkpoint 7", 1, "7.safetensors: there is no such checkpoint"),
    "option": ("train --nonsense 3", 2, "--nonsense"),
    "near option": ("train --batchsize 3", 2, "Perhaps you meant: --batch-size INT"),
    "lr": ("train --lr 1", 2, "iwae: --lr: the learning rate is --learning-rate"),
    "resume": ("train --resume", 2, "iwae: --resume: a run needs no such option: the same command again continues it"),
    "objective": ("train --objective foo", 2, "invalid choice 'foo' for argument '--objective'. Expected one of"),
    "m=1.5": ("train --m 1.5", 2, "--m: invalid literal for int() with base 10: '1.5'"),
    "alpha=abc": ("train --alpha abc", 2, "--alpha: could not convert string to float: 'abc'"),
    "missing value": ("train --k", 2, "--k"),
    "no command": ("", 2, "no command given: expected one of data, train, evaluate, impute, outliers, sample"),
    "command": ("trian", 2, "there is no command 'trian': expected one of data, train"),
    "global option": ("--nonsense", 2, "--nonsense"),
    "data": ("data minst", 1, "unknown dataset 'minst'"),
    "evaluate nothing": ("evaluate", 2, "Missing from iwae evaluate: PATH"),
    "evaluate nowhere": ("evaluate nowhere", 1, "nowhere: there is no such directory"),
    "evaluate no run": ("evaluate empty", 1, "empty: there is no run here"),
    "evaluate a file": ("evaluate file", 1, "file"),
    "evaluate samples=0": ("evaluate other --samples 0", 1, "--samples must be an integer of at least 1, got 0"),
    "evaluate samples": ("evaluate other --samples 100001", 1, "--samples must be at most 100,000, got 100001"),
    "evaluate ranges": ("evaluate other --samples 1:b", 2, "'1:b': expected whole numbers, such as 0,1,2 or 0:3"),
    "evaluate commas": ("evaluate other --samples 50,,5", 2, "50,,5: a number is missing before or after a comma"),
    "evaluate examples": ("evaluate other --examples 0", 1, "--examples must be an integer of at least 1, got 0"),
    "evaluate seed": ("evaluate other --seed -1", 1, "--seed must be"),
    "evaluate large seed": (f"evaluate other --seed {10**30}", 1, "--seed must be"),
    "evaluate split": ("evaluate other --split tset", 2, "'tset'"),
    "evaluate checkpoint": ("evaluate other --checkpoint 4", 1, "the newest intact one is 1 (of [0, 1])"),
    "sample nowhere": ("sample nowhere", 1, "nowhere"),
    "sample seed": ("sample other --seed -1", 1, "--seed must be"),
    "sample into what": ("sample other --output file", 1, "--output must be a .npy, .png, .csv"),
    "compare a run with itself": ("compare other ./other", 1, "a run can't be compared with itself: other and other"),
    "show nothing": ("show", 1, "no runs in results: `iwae train` makes one"),
    "show nowhere": ("show nowhere", 1, "nowhere"),
    "show a file": ("show file", 1, "no runs among what was given: `iwae train` makes one"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_said_without_a_traceback(
    place: Path, trained: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    before = files_below(place)
    line, status, expected = BAD[case]
    assert main(shlex.split(line.format(data=trained / "d.npz"))) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    # What the option parser says stands in a frame.
    said = " ".join(err.translate(dict.fromkeys(map(ord, "│╭╮╰╯─"))).split())
    assert expected in said
    assert "None" not in said
    if status == 1:
        assert said.startswith("iwae: error: ")
        assert err.count("\n") == 1
    assert files_below(place) == before


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (MemoryError(), "not enough memory; choose a smaller --k"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes."), "allocating 99 bytes"),
        (RuntimeError("Unable to initialize backend 'x':\nno such"), "backend 'x': no such"),
        (PermissionError(13, "Permission denied", "there/run.json"), "there/run.json: Permission denied"),
        (OSError(28, "No space left on device", "a/b"), "a/b: No space left on device; make room"),
    ],
)
def test_failures_of_the_machine_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], failure: BaseException, expected: str
) -> None:
    def train_runs(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(iwae.runs.train, "train_runs", train_runs)
    assert main(["train"]) == 1
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("iwae: error: ")
    assert expected in message


@pytest.mark.parametrize(
    ("ending", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "iwae: stopped"),
        (Stopped(signal.SIGTERM), 143, "iwae: stopped"),
        (Interrupted("all is saved", signal.SIGINT), 130, "iwae: stopped: all is saved"),
    ],
)
def test_a_wish_to_stop_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ending: BaseException,
    status: int,
    line: str,
) -> None:
    def train_runs(*_: Any, **__: Any) -> None:
        raise ending

    monkeypatch.setattr(iwae.runs.train, "train_runs", train_runs)
    assert main(["train"]) == status
    assert capsys.readouterr().err == f"{line}\n"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "`batch_size` must be an integer of at least 1, got 0",
            "--batch-size must be an integer of at least 1, got 0",
        ),
        ("`num_samples` must be 1, and `k` too", "num_samples must be 1, and --k too"),
        ("`path`: `iwae train` makes one with `run_dir`", "path: `iwae train` makes one with --run-dir"),
        ("no names at all, `Not one`, `", "no names at all, `Not one`, `"),
    ],
)
def test_arguments_are_called_by_their_options(message: str, expected: str) -> None:
    names = option_names(Train)
    assert {"batch_size", "k", "run_dir", "stages", "test_samples", "seeds"} <= names
    assert with_dashes(message, names) == expected
    assert "--" not in with_dashes(message, option_names(Sample))
    assert with_dashes("`num_samples` must be 1", option_names(Evaluate)) == "--samples must be 1"
    assert not {"path", "paths", "names", "action"} & set().union(*(option_names(c.load()) for c in COMMANDS.values()))


def test_an_error_of_a_command_names_its_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_runs(*_: Any, **__: Any) -> None:
        raise RunBusyError("`results_dir` is busy: not `model_path`")

    monkeypatch.setattr(iwae.runs.train, "train_runs", train_runs)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "iwae: error: --results-dir is busy: not model_path\n"
    assert isinstance(RunBusyError("of any kind"), ValueError)


def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def train_runs(*_: Any, **__: Any) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(iwae.runs.train, "train_runs", train_runs)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["train"])


def test_a_tilde_is_the_home_directory(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(trained))
    for arguments in (["--results-dir=~"], ["~/run", "~/other"]):
        assert main(["show", *arguments]) == 0
        assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]} == {"run", "other"}
    monkeypatch.setenv("IWAE_RESULTS_DIR", "~/")
    assert main(["show"]) == 0
    assert parse(Train, ["--run-dir=~/x"], prog="iwae train").run_dir == trained / "x"
    assert parse(Train, [], prog="iwae train").results_dir == trained


def test_data_lists_what_is_there_and_what_to_do(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    assert main(["data"]) == 0
    out = capsys.readouterr().out
    for text in ("mnist (MNIST)", "binfixmnist (BinFixMNIST)", "omniglot (OMNI)", "missing", str(place / "nothing")):
        assert text in out
    assert "59,600 / 400" in out
    assert ".npz" in out


def test_show_prints_runs(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["show", "run", "other"]) == 0
    table = capsys.readouterr().out
    results = json.loads((trained / "run/results.json").read_text())
    header, row, other = table.splitlines()
    assert header.split()[:4] == ["run", "data", "objective", "stages"]
    assert row.split()[:5] == ["run", "d.npz", "vae", "k1", "2/8"]
    assert f"{results['test']['nll']:.2f} ± {results['test']['stderr']:.2f}  k=20" in row
    assert row.split()[-1] == str(results["active_units"][0])
    assert other.split()[4] == "1/8"
    assert max(map(len, table.splitlines())) <= 80
    assert main(["show", "--results-dir", "."]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]} == {"run", "other"}


def test_show_prints_records(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    results = json.loads((trained / "run/results.json").read_text())
    # A log beside the runs, as `iwae paper run` writes them, is no run.
    paths = ["run", "other", "d.npz"]
    assert main(["show", *paths, "--format", "json"]) == 0
    run, other = json.loads(capsys.readouterr().out)
    assert (run["name"], run["objective_label"], run["seed"], other["seed"]) == ("run", "vae k1", 0, 1)
    assert [run, other] == [{**found, "path": Path(found["path"]).name} for found in iwae.results(trained)][::-1]
    assert (run["nll"], run["num_samples"]) == (results["test"]["nll"], 20)
    assert main(["show", *paths, "--format", "csv"]) == 0
    row, _ = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row == {name: "" if value is None else str(value) for name, value in run.items()}
    assert main(["show", *paths, "--format", "markdown"]) == 0
    heading, rule, line, _ = capsys.readouterr().out.splitlines()
    assert heading.count("|") == rule.count("|") == line.count("|") == 8
    assert line.startswith("| run | d.npz | vae k1 | 2/8 | ")


def test_a_narrow_terminal_leaves_names_whole() -> None:
    name = "mnist-iwae-k50-2layers-dreg-backward4-a-name-of-many-words-seed0"
    row = (name, "mnist", "iwae k50 dreg", "8/8", "84.90 ± 0.24  k=5000", "0.04, 84.80, 3%", "26+7")
    lines = aligned(HEADING, [row, row], 80)
    assert max(map(len, lines)) <= 80
    assert lines[2] == lines[4] == name
    assert lines[3].split() == " ".join(row[1:]).split()
    (_, wide) = aligned(HEADING, [row], None)
    assert wide.startswith(f"{name}  mnist  iwae k50 dreg  8/8 ")


@pytest.mark.parametrize(
    ("value", "stderr", "said"),
    [(-12.345, 0.678, "-12.35 ± 0.68"), (0.00123, 0.000456, "0.00123 ± 0.00046"), (0.00123, None, "0.0012"),
     (0.0, 0.0, "0.00 ± 0.00"), (123.4, 56.0, "123.40 ± 56.00"), (0.0, None, "0.00")],
)  # fmt: skip
def test_small_differences_keep_their_digits(value: float, stderr: float | None, said: str) -> None:
    assert figure_label(value, stderr, digits=2) == said


def test_evaluate_and_sample_print_where_it_is(trained: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "other", "--split", "valid", "--samples", "30"]) == 0
    out, err = capsys.readouterr()
    record = json.loads((place / "other/evaluations/1-valid-30.json").read_text())
    assert f"valid NLL, L_30: {record['nll']:.2f} ± {record['stderr']:.2f} nats, on d.npz" in out
    assert "Examples: 7" in out
    assert "other/evaluations/1-valid-30.npz" in out
    assert err.splitlines() == ["measuring valid likelihood, k=30: 7/7"]
    assert main(["evaluate", "other", "--samples", "30", "--examples", "20"]) == 0
    assert " nats, on the first 20 of 30 test examples of d.npz\n" in capsys.readouterr().out
    before = files_below(place / "other")
    assert main(["sample", "other", "--seed", "3", "--output", "drawn.npy"]) == 0
    assert capsys.readouterr().out == "Written: drawn.npy\n"
    assert files_below(place / "other") == before
    assert np.load(place / "drawn.npy").shape == (100, 6)
    assert main(["sample", "other"]) == 0
    assert capsys.readouterr().out.split() == ["other/samples.png", "other/samples.npy"]


def test_the_longest_line_of_figures_fits() -> None:
    schedule = make_schedule("paper")
    progress = Progress(zero_state(), 10**7, 7, 3279, 1e-3, -54321.99, 12345.6, True, True, lambda _: None)
    line = training_line(progress, schedule)
    assert line.startswith("stage 8/8  epoch 3280/3280  rate 1.00e-03  bound -54321.99  12346 steps/s")
    assert len(line) < 80
    first = dataclasses.replace(progress, steps_per_second=float("nan"))
    assert training_line(first, schedule).endswith("compiling")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--method", "ais", "--samples", "50"],
            "--samples goes with --method importance, and this is ais: leave it out",
        ),
        (["--chains", "4"], "--chains goes with --method ais, and this is importance: leave it out"),
    ],
)
def test_an_option_of_the_other_method_is_refused(
    trained: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained / "run"), *words]) == 1
    assert said in capsys.readouterr().err
