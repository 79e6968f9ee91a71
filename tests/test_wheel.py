"""The wheel, installed into an environment of its own, works outside the checkout."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from helpers.small_runs import environment, write_data

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", str(directory), str(ROOT)], check=True)
    (path,) = directory.glob("*.whl")
    return path


def test_it_has_every_file(wheel: Path) -> None:
    """Templates, styles, scripts and the mark of a typed package too."""
    tracked = subprocess.run(
        ["git", "ls-files", "src/iwae"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    assert {path.removeprefix("src/") for path in tracked} <= packed
    assert "iwae/py.typed" in packed


def test_it_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, cwd=tmp_path
    )
    # The packages that it needs are those of the tests; that of this checkout is not among them.
    (packages,) = (tmp_path / "env/lib").glob("python*/site-packages")
    (packages / "needed.pth").write_text(sysconfig.get_path("purelib"))
    write_data(tmp_path / "d.npz", shape=(4, 4))

    def run(*words: str) -> str:
        done = subprocess.run(
            [python, "-m", *words], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    (tmp_path / "where.py").write_text("import iwae; print(iwae.__file__, iwae.__version__)")
    file, version = run("where").split()
    assert Path(file).is_relative_to(tmp_path / "env")
    assert run("iwae", "--version") == f"iwae {version}\n"
    options = "--latent 3 --hidden 8 --stages 1 --test-samples 5 --run-dir run"
    assert "Test NLL" in run("iwae", "train", "--dataset", "d.npz", *options.split())
    assert "run" in run("iwae", "show", "run")
    run("iwae", "report", "run", "--samples", "5")
    assert "<html" in (tmp_path / "run/report.html").read_text()
