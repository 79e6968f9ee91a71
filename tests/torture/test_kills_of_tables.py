"""`kill -9` of a table run: of the process that hands out the cells, and of the cells' own processes."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.killing import after, children, content, kill_children, no_half_files
from helpers.small_runs import COMMAND, environment, same_training, write_data
from helpers.workshop import DEADLINE
from iwae.data import obtain
from iwae.errors import IWAEError

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finding a process's children needs Linux's /proc"),
]

PARENTS, CELLS = 20, 20
TOGETHER_PARENTS, TOGETHER_CELLS = 6, 6
# Each takes as long as training an epoch of MNIST.
INSTALLED_PARENTS, INSTALLED_CELLS = 4, 4

SMALL_TABLE = """
import sys
from pathlib import Path
from iwae.cli.app import guarded
from iwae.paper.cells import Cell, Published
from iwae.paper.plan import make_plan
from iwae.paper.runner import orders_of
from iwae.runs.config import RunConfig
from iwae.runs.options import MeasureOptions
from iwae.runs.processes import run_orders
measure = MeasureOptions(test_samples=50)
small = dict(dataset={data!r}, latent=(3,), hidden=(8,), schedule="quick")
cells = [Cell("1", RunConfig.of(**small, **own), Published(1.0, None)) for own in {cells!r}]
results = Path({results!r})
plan = make_plan(cells, results, None, measure)
failures = run_orders(orders_of(plan, results, jobs={jobs}, measure=measure), jobs={jobs})
print(*failures, sep="\\n", file=sys.stderr)
sys.exit(len(failures))
"""


Start = Callable[[str], subprocess.Popen[str]]


class TableKiller:
    """Kills table runs again and again, and counts: `parents` and `cells` are processes killed, `tables` are runs
    that were completed afterwards and compared with one that nothing interrupted.

    `start` begins or continues the table run of that name below `path`.
    """

    def __init__(self, start: Start, path: Path, rng: random.Random):
        self.start, self.path = start, path
        self.parents = self.cells = self.tables = 0
        self._rng = rng
        # The first fills the cache of compiled programs, the second shows how long it takes.
        complete(lambda: start("whole"))
        began = time.monotonic()
        self._complete("timed")
        self.longest = time.monotonic() - began

    def kill_tables(self, *, parents: int, cells: int, kills: int) -> str:
        """Until so many processes are killed: tables of at most `kills` each, completed and compared. Returns what
        was done, in words.
        """
        while self.parents < parents or self.cells < cells:
            name = f"table{self.tables}"
            for _ in range(kills):
                ended = self._kill(name)
                no_half_files(self.path)
                if ended:
                    break
            self._complete(name)
            self.tables += 1
        return f"{self.parents} parents and {self.cells} cells killed, {self.tables} tables"

    def _complete(self, name: str) -> None:
        complete(lambda: self.start(name))
        same_runs(self.path / name, self.path / "whole")

    def _kill(self, name: str) -> bool:
        """One start: some of its cells are killed, or none, and the parent at the same moment or later. Returns
        whether it had ended all its work before.
        """
        process = self.start(name)
        _wait(process, after(self._rng.uniform(0.0, self.longest / 2)))
        if most := self._rng.choice((0, 1, 2)):
            _wait(process, lambda: bool(children(process.pid)))
            # A parent that lives on takes note of a cell that died, and goes on with the others.
            self.cells += kill_children(process, self._rng, most=most)
        _wait(process, after(self._rng.choice((0.0, self._rng.uniform(0.0, self.longest / 4)))))
        process.kill()
        process.communicate()
        self.parents += process.returncode == -signal.SIGKILL
        return process.returncode == 0


def _wait(process: subprocess.Popen[str], moment: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while process.poll() is None and not moment():
        assert time.monotonic() < end
        time.sleep(0.001)


def complete(start: Callable[[], subprocess.Popen[str]]) -> None:
    """Gives the command until it is done; nothing may hinder it but cells of a killed one that still save."""
    end = time.monotonic() + 3 * DEADLINE
    while True:
        process = start()
        _, err = process.communicate(timeout=3 * DEADLINE)
        if process.returncode == 0:
            return
        assert "another process is working on this run" in err, err
        assert time.monotonic() < end


def same_runs(results: Path, whole: Path) -> None:
    """Asserts that a table's runs are those of one that nothing interrupted."""
    runs = [path for path in sorted(whole.iterdir()) if path.is_dir()]
    assert runs
    for run in runs:
        mine = results / run.name
        for checkpoint in run.glob("checkpoints/*.safetensors"):
            same_training(mine, run, int(checkpoint.stem))
        found, expected = content(mine), content(run)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            # Checkpoints, just compared, and pages of figures say how long training took.
            assert found[name] == value or name.endswith(".safetensors"), name


def kills_of_a_small_table(
    tmp_path: Path, cells: list[dict[str, object]], *, jobs: int, parents: int, killed_cells: int
) -> None:
    """The runner of `iwae paper run` and the cells' processes that it starts, on networks and data that train in
    seconds: the command itself has the paper's alone.
    """
    data, settings = str(write_data(tmp_path / "small.npz", num_train=1500)), environment()

    def start(results: str) -> subprocess.Popen[str]:
        program = SMALL_TABLE.format(data=data, results=str(tmp_path / results), cells=cells, jobs=jobs)
        return subprocess.Popen([sys.executable, "-c", program], env=settings, stderr=subprocess.PIPE, text=True)

    print(TableKiller(start, tmp_path, random.Random(0)).kill_tables(parents=parents, cells=killed_cells, kills=5))


def test_kills_of_a_table_of_small_cells(tmp_path: Path) -> None:
    """Each cell has a process of its own, two at once."""
    cells: list[dict[str, object]] = [{"k": k} for k in (1, 5, 20)]
    kills_of_a_small_table(tmp_path, cells, jobs=2, parents=PARENTS, killed_cells=CELLS)


def test_kills_of_a_table_whose_cells_share_a_process(tmp_path: Path) -> None:
    """They differ in objective and estimator alone. A kill ends all of them, some ahead of others by a checkpoint."""
    cells: list[dict[str, object]] = [
        {"k": 5},
        {"model": "iwae", "k": 5},
        {"model": "iwae", "k": 5, "estimator": "dreg"},
    ]
    kills_of_a_small_table(tmp_path, cells, jobs=1, parents=TOGETHER_PARENTS, killed_cells=TOGETHER_CELLS)


def test_kills_of_the_installed_command(tmp_path: Path) -> None:
    """`iwae paper run` itself: two of the paper's cells, one epoch each, measured with few samples of few examples."""
    try:
        obtain("mnist")
    except IWAEError as error:
        pytest.skip(f"MNIST is neither there nor to be had: {error}")
    options = "--table 1 --datasets mnist --models vae iwae --k 1 --layers 1 --stages 1 --jobs 2"
    measure = "--test-samples 10 --test-examples 20"

    def start(results: str) -> subprocess.Popen[str]:
        words = [str(COMMAND), "paper", "run", *options.split(), *measure.split(), "--results-dir", results]
        return subprocess.Popen(
            words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    killer = TableKiller(start, tmp_path, random.Random(1))
    print(f"`iwae paper run`: {killer.kill_tables(parents=INSTALLED_PARENTS, cells=INSTALLED_CELLS, kills=3)}")


def test_the_processes_that_one_started_are_found_and_killed() -> None:
    """Or nothing above would be killed, and all would pass."""
    program = "import subprocess, sys; [subprocess.Popen(['sleep', '100']) for _ in 'ab']; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(children(process.pid)) == 2
        assert kill_children(process, random.Random(0), most=3) == 2
        process.kill()
