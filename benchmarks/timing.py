"""Timing of several sides in one run, alternating, so that what else the machine does falls on all of them."""

import statistics
import time
from collections.abc import Callable

# Runs the given number of steps (or examples) and returns when they are done.
Side = Callable[[int], object]

ROUNDS = 11
SECONDS_A_ROUND = 0.4


def alternate(
    sides: dict[str, Side], *, rounds: int = ROUNDS, seconds: float = SECONDS_A_ROUND
) -> dict[str, list[float]]:
    """Seconds per step of each side, round by round; the order turns from round to round."""
    counts = {}
    for name, run in sides.items():
        run(1)
        start = time.perf_counter()
        run(2)
        counts[name] = max(1, round(seconds * 2 / (time.perf_counter() - start)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            sides[name](counts[name])
            found[name].append((time.perf_counter() - start) / counts[name])
    return found


def ratio(found: dict[str, list[float]], name: str, to: str) -> float:
    """Median over rounds of one side's time over another's of the same round."""
    return statistics.median(a / b for a, b in zip(found[name], found[to], strict=True))
