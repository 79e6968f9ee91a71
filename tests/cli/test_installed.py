"""The installed command in processes of its own: what it imports and prints, piped and in a terminal."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

import iwae
import iwae.runs.train
from helpers.small_runs import COMMAND, environment, same_training, write_data
from helpers.workshop import DEADLINE
from iwae.cli import main

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def command_output(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=DEADLINE, **options)


def train_in(place: Path, run: str) -> list[str]:
    options = "--latent 3 --hidden 8 --stages 2 --test-samples 20 --run-dir"
    return [str(COMMAND), "train", "--dataset", str(place / "d.npz"), *options.split(), run]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with data `d.npz`. Tests only read it, and `run` of `piped`."""
    return write_data(tmp_path_factory.mktemp("installed") / "d.npz").parent


@pytest.fixture(scope="module")
def piped(place: Path) -> subprocess.CompletedProcess[str]:
    """The process that trained `run` in that directory, its output piped."""
    done = command_output(*train_in(place, "run"), cwd=place, env=environment())
    assert done.returncode == 0, done.stderr
    return done


def test_the_program_is_installed_and_is_a_module() -> None:
    expected = f"iwae {iwae.__version__}\n"
    for program in ([str(COMMAND)], [sys.executable, "-m", "iwae"]):
        done = command_output(*program, "--version")
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    done = command_output(sys.executable, "-m", "iwae", "train", "--k", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "iwae: error: --k must be an integer of at least 1, got 0\n"


@pytest.mark.parametrize(
    "code",
    [
        "import iwae; dir(iwae); iwae.IWAEError",
        "import iwae; iwae.RunConfig.of(k=5).name(); iwae.make_schedule('paper')",
        "from iwae.cli import main; main(['--help']); main(['evaluate', '--help'])",
        "from iwae.cli import main; main(['train', '--k', '0']); main(['data']); main(['show', 'nowhere'])",
    ],
)
def test_what_needs_no_jax_does_not_import_it(code: str, tmp_path: Path) -> None:
    check = f"{code}\nimport sys; assert not {{'jax', 'jaxlib', 'equinox', 'optax'}} & sys.modules.keys()"
    done = command_output(sys.executable, "-c", check, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


EXTRA = ("matplotlib", "jinja2")
BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({EXTRA}))\n"


def test_the_core_needs_no_package_of_the_extra(place: Path, tmp_path: Path) -> None:
    """Training, measuring, samples and tables where matplotlib and jinja2 are not there."""
    (script := tmp_path / "core.py").write_text(
        f"""{BLOCKED}
from iwae.cli.options import option_names
from iwae.cli.registry import COMMANDS
from iwae.cli import main
for command in COMMANDS.values():
    command.load()
train = "train --latent 3 --hidden 8 --stages 1 --test-samples 5 --run-dir run --dataset".split()
for line in ([*train, sys.argv[1]], ["evaluate", "run", "--samples", "5"], ["sample", "run"], ["show", "run"],
             ["data"], ["paper"]):
    assert main(line) == 0, line
for name in ("analyze", "report", "diagnose"):
    assert main([name, "run"]) == 1
assert main(["paper", "run", "--stages", "1"]) == 1
"""
    )
    done = command_output(sys.executable, str(script), str(place / "d.npz"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    names = ("iwae analyze", "iwae report", "iwae diagnose", "iwae paper run")
    needs = 'needs matplotlib and jinja2: pip install "iwae[report]"'
    assert errors == [f"iwae: error: {name} {needs}" for name in names]


def test_a_platform_that_is_not_there_is_one_line(place: Path, tmp_path: Path) -> None:
    variables = {**environment(), "JAX_PLATFORMS": "cuda"}
    done = command_output(*train_in(place, "run"), cwd=tmp_path, env=variables)
    if done.returncode == 0:
        pytest.skip("there is CUDA here")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("Run: ")]
    assert line.startswith("iwae: error: JAX_PLATFORMS=cuda: JAX finds no such device")


@pytest.mark.slow
@pytest.mark.usefixtures("piped")
def test_what_jax_is_told_for_other_programs_changes_no_bit(place: Path, tmp_path: Path) -> None:
    modes = {"JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    done = command_output(*train_in(place, "told"), cwd=tmp_path, env={**environment(), **modes})
    assert done.returncode == 0, done.stderr
    same_training(place / "run", tmp_path / "told", 2)
    test, other = (json.loads((run / "results.json").read_text())["test"] for run in (place / "run", tmp_path / "told"))
    assert test == other


def test_plain_lines_when_piped(
    place: Path,
    piped: subprocess.CompletedProcess[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "\x1b" not in piped.stdout + piped.stderr
    lines = piped.stderr.splitlines()
    taken_for = "6 values of an example: zeros and ones -> bernoulli"
    assert lines[:3] == ["Run: run", taken_for, "Training 4 epochs of 3 steps on CPU, from step 0."]
    stages = [line for line in lines if line.startswith("stage ")]
    assert [line.split()[1] for line in stages] == ["1/2", "2/2"]
    assert re.fullmatch(r"stage 2/2  epoch 4/4  rate 7.20e-04  bound -\d+\.\d\d  [\d.]+ steps/s", stages[-1])
    results = json.loads((place / "run/results.json").read_text())
    first, *others = piped.stdout.splitlines()
    assert others[-1] == "Likelihood of each of the 30 examples: run/evaluations/2-test-20.npz"
    assert first.startswith(f"Test NLL, L_20: {results['test']['nll']:.2f} ± {results['test']['stderr']:.2f} nats")
    monkeypatch.chdir(place)
    assert main(train_in(place, "run")[1:]) == 0
    out, err = capsys.readouterr()
    assert out == piped.stdout
    assert "Run: run" in err
    assert err.endswith("This run is complete: run\n")


def test_the_live_display_fits_a_terminal(place: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    variables = {**environment(), "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "CI"):
        variables.pop(name, None)
    with subprocess.Popen(
        train_in(place, "run"), cwd=tmp_path, env=variables, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        screen = b""
        while True:
            try:
                block = os.read(master, 65536)
            except OSError:
                break
            if not block:
                break
            screen += block
    os.close(master)
    assert process.returncode == 0
    lines = [line for line in re.split(r"[\r\n]+", ESCAPES.sub("", screen.decode())) if line.strip()]
    live = [line for line in lines if "stage" in line or line.startswith(("training", "measuring"))]
    assert max(len(line.rstrip()) for line in live) <= 80
    assert not any("…" in line for line in live)
    shown = r"stage 2/2  epoch 4/4  rate 7.20e-04  bound -\d+\.\d\d  [\d.]+ steps/s"
    assert any(re.search(shown, line) for line in live)
    assert any(line.startswith("training") and "100%" in line for line in live)
    assert any(line.startswith("measuring test likelihood, k=20") and "30/30" in line for line in live)
