"""Timing of several sides in one run, alternating, so that what else the machine does falls on all of them."""

import statistics
from collections.abc import Callable

# Runs the given number of steps (or groups of examples) and returns the seconds that they took.
Side = Callable[[int], float]

ROUNDS = 9
SECONDS_A_ROUND = 0.4


def alternate(
    sides: dict[str, Side], *, rounds: int = ROUNDS, seconds: float = SECONDS_A_ROUND
) -> dict[str, list[float]]:
    """Seconds per step of each side, round by round; the order turns from round to round."""
    counts = {}
    for name, run in sides.items():
        run(1)
        counts[name] = max(1, round(seconds * 2 / run(2)))
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            # After a pause its threads and caches are cold: the first tenth of a second took half as long again.
            sides[name](max(1, counts[name] // 2))
            found[name].append(sides[name](counts[name]) / counts[name])
    return found


def ratio(found: dict[str, list[float]], name: str, to: str) -> float:
    """Median over rounds of one side's time over another's of the same round."""
    return statistics.median(a / b for a, b in zip(found[name], found[to], strict=True))
