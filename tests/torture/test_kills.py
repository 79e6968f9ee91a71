"""`kill -9` at random moments, again and again: every run ends with the bits of one that nothing interrupted."""

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.killing import Killer, content, no_half_files
from helpers.small_runs import COMMAND
from helpers.workshop import Workshop, make_workshop
from iwae.io.files import is_leftover

pytestmark = pytest.mark.torture

KILLS = 50
LANES = 4
# Half of the kills wait for a moment at which a file is half written; some come too late for it.
HALF_WRITTEN = 10
SEED_KILLS = 30
SEED_HALF_WRITTEN = 3
AFTER_KILLS = 10


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("kills"))


def seconds_of(work: Callable[[], object]) -> float:
    """How long something takes on this machine, now: kills are spread over as much."""
    start = time.monotonic()
    work()
    return time.monotonic() - start


@pytest.mark.parametrize("lane", range(LANES))
def test_kills_of_a_run(workshop: Workshop, lane: int) -> None:
    """At any moment from the first, while a file is written, and while measuring."""
    rng = random.Random(lane)
    longest = seconds_of(
        lambda: workshop.completes(workshop.train(f"timed{lane}"), workshop.directory / f"timed{lane}")
    )
    killed = half_written = finished = 0
    while killed < KILLS:
        run = workshop.directory / f"lane{lane}-{finished}"
        command = workshop.train(run.name)
        killer = Killer(run, rng)
        done = False
        while not done and killed + killer.killed < KILLS:
            process = killer.kill(lambda command=command: workshop.start(command), longest)
            done = process.returncode == 0
            assert done or process.returncode == -9, process.returncode
            if run.is_dir():
                no_half_files(run)
        workshop.completes(command, run)
        killed, half_written = killed + killer.killed, half_written + killer.half_written
        finished += 1
    print(f"{killed} kills, {half_written} of them while a file was half written, {finished} runs")
    assert half_written >= HALF_WRITTEN


def test_kills_of_seeds_that_train_together(workshop: Workshop) -> None:
    """Some seeds are then ahead of others by a checkpoint or more; all end as if nothing had happened."""
    workshop.whole_seeds()
    longest = seconds_of(lambda: workshop.completes_seeds("timed seeds"))
    rng = random.Random(0)
    killed = half_written = finished = 0
    while killed < SEED_KILLS:
        results = workshop.directory / f"seeds{finished}"
        killer = Killer(results, rng)
        done = False
        while not done and killed + killer.killed < SEED_KILLS:
            process = killer.kill(lambda results=results: workshop.start(workshop.train_seeds(results.name)), longest)
            done = process.returncode == 0
            assert done or process.returncode == -9, process.returncode
            no_half_files(results)
        workshop.completes_seeds(results.name)
        killed, half_written = killed + killer.killed, half_written + killer.half_written
        finished += 1
    print(f"{killed} kills, {half_written} of them while a file was half written, {finished} times three runs")
    assert half_written >= SEED_HALF_WRITTEN


class Finished:
    """A run that is trained, alone in a directory, and what one command makes there when nothing interrupts it."""

    def __init__(self, workshop: Workshop, name: str, words: list[str]):
        self.directory = workshop.directory / name
        self.directory.mkdir()
        self.run = self.directory / "run"
        self._workshop = workshop
        # The ELBO, and more units than the data has use for, so that there is something to prune.
        changes = {"--latent": "30", "--model": "vae", "--k": "1"}
        training = workshop.train(str(self.run))
        for option, value in changes.items():
            training[training.index(option) + 1] = value
        done = workshop.run(training)
        assert done.returncode == 0, done.stderr
        self.trained = content(self.run)
        self._pristine = workshop.directory / f"{name} pristine"
        shutil.copytree(self.directory, self._pristine)
        self.command = [str(COMMAND), *words, str(self.run)]
        # The first time compiles, the second shows how long it takes and that it does the same again.
        self.made = self._made_by_one_that_nothing_interrupts()
        again: list[dict[str, object]] = []
        self.seconds = seconds_of(lambda: again.append(self._made_by_one_that_nothing_interrupts()))
        assert again == [self.made]

    def _made_by_one_that_nothing_interrupts(self) -> dict[str, object]:
        self.reset()
        done = self._workshop.run(self.command)
        assert done.returncode == 0, done.stderr
        return content(self.directory)

    def start(self) -> subprocess.Popen[str]:
        return self._workshop.start(self.command)

    def reset(self) -> None:
        """As after training."""
        shutil.rmtree(self.directory)
        shutil.copytree(self._pristine, self.directory)


WORDS = {
    "prune": ["prune", "--samples", "200"],
    "analyze": ["analyze", "--samples", "50"],
    "report": ["report", "--samples", "50"],
    "evaluate": ["evaluate", "--samples", "300"],
}


@pytest.mark.parametrize("command", WORDS)
def test_kills_of_what_comes_after_training(workshop: Workshop, command: str) -> None:
    """A command killed at any moment, given again, makes what it would have made, byte for byte but for how long it
    took; the run's own files stay.
    """
    finished = Finished(workshop, command, WORDS[command])
    killer = Killer(finished.directory, random.Random(command))
    # What is killed late has done its work: one that is given again then may have nothing left to do.
    for _ in range(4 * AFTER_KILLS):
        process = killer.kill(finished.start, finished.seconds)
        no_half_files(finished.directory)
        mine = content(finished.run)
        assert all(mine[name] == value for name, value in finished.trained.items())
        if process.returncode != -9:
            # Killed after its result had got its name, `prune` finds the place taken.
            assert process.returncode == 0 or (command == "prune" and process.returncode == 1)
            assert content(finished.directory) == finished.made
            finished.reset()
        if killer.killed >= AFTER_KILLS:
            break
    assert killer.killed >= AFTER_KILLS
    done = workshop.run(finished.command)
    assert done.returncode == 0 or (command == "prune" and "is not empty" in done.stderr), done.stderr
    assert content(finished.directory) == finished.made
    assert not [path for path in finished.directory.rglob("*") if is_leftover(path)]
    print(f"{command}: {killer.killed} kills, {killer.half_written} of them while a file was half written")
    assert killer.half_written >= 1


class FirstWhileWriting(random.Random):
    """Has the first kill wait for a file that is half written, and no other."""

    def __init__(self) -> None:
        super().__init__(0)
        self._kills = iter((0, 1))

    def randrange(self, *_: object) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return next(self._kills)


def test_the_hidden_parts_of_files_are_told_from_earlier_ones(tmp_path: Path) -> None:
    """Of two kills, one that leaves a part and one that finds it there, one is counted."""
    killer = Killer(tmp_path, FirstWhileWriting())
    part = tmp_path / ".a.json.1.partial"
    script = ["sh", "-c", f"touch {part}; sleep 100"]
    for _ in range(2):
        killer.kill(lambda: subprocess.Popen(script, stdout=subprocess.PIPE, text=True), 0.0)
    assert part.exists()
    assert (killer.killed, killer.half_written) == (2, 1)
