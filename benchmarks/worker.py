"""Each library works in a process of its own, as at its users': in one that has imported PyTorch as well, our step at
k = 1 takes half as long again.
"""

import importlib
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.timing import Side

_made: dict[str, Callable[[int], object]] = {}


def _call(function: str, arguments: tuple[Any, ...]) -> Any:
    module, _, name = function.rpartition(".")
    return getattr(importlib.import_module(module), name)(*arguments)


def _make(name: str, maker: str, arguments: tuple[Any, ...]) -> None:
    _made[name] = _call(maker, arguments)


def _seconds(name: str, times: int) -> float:
    start = time.perf_counter()
    _made[name](times)
    return time.perf_counter() - start


class Worker:
    """A process that makes sides and times them; it ends with the `with` statement.

    Functions are given as `package.module.name`, so that the caller imports no library of theirs.
    """

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def call(self, function: str, *arguments: Any) -> Any:
        """What a function returns there."""
        return self._pool.submit(_call, function, arguments).result()

    def side(self, name: str, maker: str, *arguments: Any) -> Side:
        """What a function makes there, to be run from here: returns the seconds that it took there."""
        self._pool.submit(_make, name, maker, arguments).result()
        return lambda times: self._pool.submit(_seconds, name, times).result()
