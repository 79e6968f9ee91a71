"""The README's Python runs as it stands, and what it says of names and files is so."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import iwae
from helpers.toy import toy_dataset
from iwae.errors import IWAEError

ROOT = Path(__file__).parents[1]
README, LIBRARY = (ROOT / "README.md").read_text(), (ROOT / "docs" / "library.md").read_text()
EXAMPLE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)[0]
WEIGHTS = re.findall(r"```python\n(.*?)```", LIBRARY, flags=re.DOTALL)[0]


# NLL by L_100 of the first 500 test images after the example's one epoch, over seeds 0 to 4:
# 118.28, 117.13, 117.69, 116.73, 118.73, so a mean of 117.71 and a standard deviation of 0.82.
MEAN_NLL, SPREAD = 117.71, 0.82


# What a stranger might do next, printed as JSON.
AFTERWARDS = """
import json
found = iwae.likelihoods(model, data, num_samples=100, max_examples=500)
print(json.dumps({"shape": images.shape, "nll": found.nll, "stderr": found.stderr}))
"""


def test_the_library_example_runs(monkeypatch, capsys):
    """With a few images in the place of MNIST."""
    data = toy_dataset(dim=784)
    monkeypatch.setattr(iwae, "load_dataset", lambda _: data)
    names = {}
    exec(EXAMPLE, names)
    measured, active = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"test NLL \d+\.\d\d \+- \d+\.\d\d nats", measured)
    assert re.fullmatch(r"active units: \(\d+,\)", active)
    assert names["images"].shape == (100, 784)


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """The lines that the library example prints, and one that follows."""
    try:
        iwae.load_dataset("mnist")
    except IWAEError as error:
        pytest.skip(f"MNIST can't be had here: {error}")
    # A process of its own has the compiler's full optimization, and takes a quarter of the time.
    everyday = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", EXAMPLE + AFTERWARDS]
    done = subprocess.run(command, capture_output=True, text=True, env=everyday, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_library_example_prints_its_measurements_and_samples(printed):
    measured, active, _ = printed
    assert re.fullmatch(r"test NLL 1\d\d\.\d\d \+- \d\.\d\d nats", measured)
    assert re.fullmatch(r"active units: \(\d+,\)", active)


@pytest.mark.slow
def test_one_epoch_on_mnist_ends_where_it_should(printed):
    found = json.loads(printed[-1])
    # Two-sided: a likelihood that is too good is a mistake in the likelihood.
    assert abs(found["nll"] - MEAN_NLL) < 4 * SPREAD
    assert 1.0 < found["stderr"] < 2.0
    assert found["shape"] == [100, 784]


def test_weights_open_in_plain_numpy(tmp_path, monkeypatch):
    from iwae.models.architecture import Architecture
    from iwae.runs.checkpoint import save_checkpoint
    from iwae.training.loop import create_model
    from iwae.training.optim import paper_adam
    from iwae.training.step import TrainState

    monkeypatch.chdir(tmp_path)
    path = Path(re.search(r'load_file\("(.*?)"\)', WEIGHTS)[1])  # pyright: ignore
    path.parent.mkdir(parents=True)
    architecture = Architecture(784, latent=(50,), hidden=((200, 200),))
    state = TrainState.create(create_model(toy_dataset(dim=784), architecture, 0), paper_adam(), 0)
    save_checkpoint(path, state, architecture=architecture, seed=0, stages_done=4, seconds=0.0)
    names = {}
    exec(WEIGHTS, names)
    assert names["weights"]["model.encoder.0.hidden.0.weight"].shape == (784, 200)
    assert set(re.findall(r"`model\.(\w+)\.i`", LIBRARY)) == {"encoder", "decoder"}


def test_every_public_name_is_there():
    for name in iwae.__all__:
        assert getattr(iwae, name) is not None
    assert set(iwae.__all__) == set(dir(iwae))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        iwae.nothing  # noqa: B018
