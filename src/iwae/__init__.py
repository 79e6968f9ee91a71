"""Importance weighted autoencoders (Burda, Grosse & Salakhutdinov 2015), on JAX.

Names are imported when first used, so that `import iwae` is quick and starts no JAX backend.
"""

import re
from importlib import import_module
from pathlib import Path
from typing import Any

# Each line of the stub is one public name: its home, and what it is called there.
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOME_OF = {name: home for home, name in re.findall(r"^from (\S+) import (\w+) as", _STUB, re.MULTILINE)}

__all__ = sorted(_HOME_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'iwae' has no attribute {name!r}")
    home = _HOME_OF[name]
    return import_module(f"iwae.{name}") if home == "iwae" else getattr(import_module(home), name)


def __dir__() -> list[str]:
    return __all__
