"""Files that a stranger's run may hold in place of ours: pipes, links, bombs, paths that lead outside, checkpoints
with a digest that fits and content that does not.
"""

import json
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from safetensors.numpy import load_file

import iwae
from helpers.small_runs import go, small_config, write_data
from iwae.cli.analyze import Analyze
from iwae.cli.app import guarded
from iwae.cli.evaluate import Evaluate
from iwae.cli.report import Report
from iwae.cli.show import Show
from iwae.data.files import BadFileError
from iwae.data.formats import read_npy, read_npz
from iwae.errors import IWAEError
from iwae.io import json as typed_json
from iwae.io.files import open_regular, read_bounded, remove_leftovers
from iwae.io.json import read_json
from iwae.io.text import printable
from iwae.models.architecture import MAX_LAYERS, MAX_UNITS, Architecture
from iwae.report import embedding
from iwae.runs import checkpoint as checkpoint_module
from iwae.runs.analyze import AnalyzeOptions, analyze_run
from iwae.runs.checkpoint import CheckpointError, load_checkpoint
from iwae.runs.directory import Run
from iwae.runs.evaluate import read_likelihoods
from iwae.runs.records import EvaluationRecord


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished, analyzed run of images. Tests only read it."""
    directory = tmp_path_factory.mktemp("made")
    data = write_data(directory / "d.npz", shape=(5, 4))
    go(directory / "run", small_config(data), stages=1)
    analyze_run(directory / "run", options=AnalyzeOptions(samples=2, examples=3))
    return directory / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


@pytest.fixture
def writer() -> Iterator[Any]:
    """Ends a test that waits for a pipe: opens those that it is told of after half a minute, and so fails it."""
    pipes: list[Path] = []
    late = threading.Event()

    def open_all() -> None:
        late.set()
        for pipe in pipes:
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(30, open_all)
    timer.daemon = True
    timer.start()
    yield pipes.append
    timer.cancel()
    assert not late.is_set(), "waited for a pipe"


def fails(command: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line with which a command fails."""
    assert guarded(lambda: command.run([])) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("iwae: error: ")]
    return line


# Pipes, sizes, links


@pytest.mark.parametrize(
    "name",
    ["checkpoints/1.safetensors", "results.json", "metrics.jsonl", "evaluations/x.json", "analysis/analysis.json"],
)
def test_nothing_waits_for_a_pipe(run: Path, name: str, writer: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    writer(run / name)
    analysis_is_made_anew = name.startswith(("evaluations", "analysis"))
    for command in (Report((run,), samples=2, examples=3), Analyze(run, samples=2, examples=3)):
        if analysis_is_made_anew:
            assert guarded(lambda command=command: command.run([])) == 0
        elif name != "results.json":
            assert f"{run / name}: " in fails(command, capsys)
    if name == "results.json":
        assert "no regular file; delete it, and" in fails(Show((run,)), capsys)
    if name.startswith("checkpoints"):
        line = fails(Evaluate(run), capsys)
        assert "cannot be read, it is no regular file" in line
        assert "continue from it with checkpoint 0" in line


def test_pipes_devices_and_directories_are_no_files(tmp_path: Path, writer: Any) -> None:
    pipe, leftover = tmp_path / "pipe", tmp_path / ".x.123.partial"
    os.mkfifo(pipe)
    os.mkfifo(leftover)
    writer(pipe)
    writer(leftover)
    for path in (pipe, tmp_path, Path(os.devnull)):
        with pytest.raises(IWAEError, match="no regular file"):
            open_regular(path)
        with pytest.raises(IWAEError, match=r"no regular file.*; mend it"):
            read_json(path, dict, "mend it")
    remove_leftovers(tmp_path)
    assert leftover.exists()


def test_what_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.json"
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)
    with pytest.raises(IWAEError, match=r"large\.json: 1,099,511,627,776 bytes, more than the .*; mend it"):
        read_json(path, dict, "mend it")
    path.write_text('{"a": 1}')
    assert read_bounded(path, 8) == b'{"a": 1}'
    monkeypatch.setattr(typed_json, "MAX_JSON_BYTES", 7)
    with pytest.raises(IWAEError, match="more than the 7"):
        read_json(path, dict, "mend it")


def test_an_archive_that_unpacks_to_more_than_its_examples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    zeros = np.zeros(300_000)
    np.savez_compressed(path, log_likelihood=zeros, effective_sample_size=zeros)
    record: Any = {"num_examples": 3, "num_samples": 2}
    typed: EvaluationRecord = record
    with pytest.raises(BadFileError, match="unpacks to more than"):
        read_likelihoods(path, typed)
    np.savez(path, log_likelihood=zeros, effective_sample_size=zeros)
    with pytest.raises(BadFileError, match="more than four arrays of 3 numbers"):
        read_likelihoods(path, typed)


def test_a_length_that_is_true_is_no_length(tmp_path: Path) -> None:
    content = tmp_path / "x.npy"
    np.save(content, np.zeros((1, 60), np.uint8))
    content.write_bytes(content.read_bytes().replace(b"(1, 60), }   ", b"(True, 60), }"))
    with pytest.raises(BadFileError, match=r"claims shape \(True, 60\)"):
        read_npy(content)


def test_an_archive_member_before_the_file_is_refused(tmp_path: Path) -> None:
    found = Path(__file__).parents[1] / "data/found_by_fuzzing/npz-member-before-the-beginning"
    with zipfile.ZipFile(found) as archive:
        assert min(member.header_offset for member in archive.infolist()) < 0
    with pytest.raises(BadFileError, match="before the beginning of the file"):
        read_npz(found, ("train", "test"))


# Pictures


def with_picture(run: Path, name: str) -> None:
    path = run / "analysis/analysis.json"
    analysis = json.loads(path.read_text())
    analysis["pictures"]["samples"] = name
    path.write_text(json.dumps(analysis))


@pytest.mark.parametrize(
    "name", ["../../secret.png", "{absolute}", "../analysis/samples.png", "..", "", "a\\b", "x\0y"]
)
def test_pictures_lie_in_the_analysis(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = run.parent / "secret.png"
    Image.new("L", (8, 8)).save(secret)
    with_picture(run, name.format(absolute=secret))
    line = fails(Report((run,)), capsys)
    assert f"{run / 'analysis/analysis.json'}: names " in line
    assert f"`iwae analyze {run}` makes it anew" in line
    assert not (run / "report.html").exists()


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.unlink()
    if how == "link":
        elsewhere = path.parents[2] / "secret.png"
        elsewhere.write_bytes(content)
        path.symlink_to(elsewhere)
    elif how == "directory":
        path.mkdir()
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "text":
        path.write_text("no picture")
    elif how == "large":
        path.write_bytes(content)
        os.truncate(path, embedding.MAX_BYTES + 1)
    else:
        Image.new("1", (12_000, 12_000)).save(path) if how == "pixels" else Image.new("1", (20_000, 20_000)).save(path)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("link", "is a link, not a picture"),
        ("directory", "no regular file"),
        ("cut", "not an intact PNG"),
        ("text", "not an intact PNG"),
        ("large", "more than the"),
        ("pixels", "more than 89,478,485 pixels"),
        ("more pixels", "more than 89,478,485 pixels"),
    ],
)
def test_pictures_that_are_none_are_one_line(
    run: Path, how: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "analysis/samples.png"
    damage(path, how)
    line = fails(Report((run,)), capsys)
    assert f"{path}: " in line
    assert expected in line
    assert f"`iwae analyze {run}` makes it anew" in line


# Checkpoints


def resigned(path: Path, arrays: dict[str, Any] | None = None, **changes: Any) -> None:
    """Changes a checkpoint and gives it the digest that fits: None removes a tensor or a field of the record."""
    with safetensors.safe_open(path, framework="numpy") as file:
        record = json.loads(file.metadata()["iwae"])
    tensors = {name: array for name, array in (load_file(path) | (arrays or {})).items() if array is not None}
    record = {name: value for name, value in (record | changes).items() if value is not None and name != "digest"}
    record["digest"] = checkpoint_module.digest(tensors, record)
    path.write_bytes(safetensors.numpy.save(tensors, {"iwae": json.dumps(record)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"stages_done": "x"},
        {"stages_done": None},
        {"stages_done": -1},
        {"seconds": "x"},
        {"seconds": float("nan")},
        {"seconds": -1.0},
        {"seed": 2**32},
        {"seed": "0"},
        {"format": "1"},
        {"architecture": {"visible": 20, "latent": [1] * 3000, "hidden": [[]] * 3000}},
        {"architecture": {"visible": 20, "latent": [10**9], "hidden": [[8, 8]]}},
        {"architecture": 3},
        {"arrays": {"step": None}},
        {"arrays": {"step": np.zeros(3, np.int32)}},
        {"arrays": {"step": np.array(1, np.float32)}},
        {"arrays": {"step": np.array(-1, np.int32)}},
        {"arrays": {"more": np.zeros(3, np.float32)}},
        {"arrays": {"optimizer.count": np.array(3)}},
        {"arrays": {"model.encoder.0.mean.bias": np.zeros(3, np.float64)}},
        {"arrays": {"model.encoder.0.mean.bias": np.zeros((3, 1), np.float32)}},
    ],
)
def test_a_digest_that_fits_is_not_enough(made: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "1.safetensors"
    shutil.copy(made / "checkpoints/1.safetensors", path)
    resigned(path)
    assert load_checkpoint(path).step > 0
    resigned(path, **changes)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value)) < 600
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F4", "BF16", "BOOL"])
def test_types_that_no_checkpoint_has_are_refused(made: Path, tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "1.safetensors"
    content = (made / "checkpoints/1.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    for tensor in header.values():
        # As many bytes as before, as the format asks for.
        if tensor.get("dtype") == "F32" and tensor["shape"]:
            tensor["shape"][0] *= {"F4": 8, "BF16": 2}.get(dtype, 4)
            tensor["dtype"] = dtype
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_deep_metadata_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1.safetensors"
    for text in ("[" * 100_000, '{"format": 1, "x": ' + "[" * 100_000, " " * (2 << 20)):
        path.write_bytes(safetensors.numpy.save({"step": np.array(1, np.int32)}, {"iwae": text}))
        with pytest.raises(CheckpointError, match="not an intact checkpoint"):
            load_checkpoint(path)


def test_other_spellings_of_a_number_are_no_checkpoints(run: Path) -> None:
    for name in ("0009", "٣", "-1", "1e3"):
        shutil.copy(run / "checkpoints/1.safetensors", run / f"checkpoints/{name}.safetensors")
    assert Run(run).stage_checkpoints() == [0, 1]
    assert iwae.load(run).latent == (3,)


def test_architectures_have_limits_far_above_what_is_trained() -> None:
    Architecture(10_000, (1000,) * MAX_LAYERS, ((1000, 1000),) * MAX_LAYERS)
    for arguments in (
        (4, (1,) * (MAX_LAYERS + 1), ((),) * (MAX_LAYERS + 1)),
        (4, (1,), ((1,) * 1000,)),
        (MAX_UNITS + 1, (1,), ((),)),
    ):
        with pytest.raises(IWAEError, match="at most"):
            Architecture(*arguments)


# Terminals


def test_names_in_files_do_not_control_a_terminal(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((run / "run.json").read_text())
    record["data"]["name"] = "\x1b]0;owned\x07\x9b31m[bold]\u202e"
    record["config"]["dataset"] = "/nowhere/\x1b[2J.npz"
    (run / "run.json").write_text(json.dumps(record))
    assert guarded(lambda: Show((run,)).run([])) == 0
    assert "�]0;owned��31m[bold]�" in capsys.readouterr().out
    line = fails(Evaluate(run), capsys)
    assert "there is no file /nowhere/�[2J.npz" in line


def test_what_can_be_printed_is_left_alone() -> None:
    assert printable("résumé ± → 数 🎉 [b]") == "résumé ± → 数 🎉 [b]"
    assert printable("a\nb\tc\x85\u2028") == "a�b�c��"
