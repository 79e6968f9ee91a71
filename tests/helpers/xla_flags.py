"""Flags of XLA that let the tests compile faster."""

import re
from importlib.metadata import version


def xla_flags() -> str:
    """Compiling takes a third as long with these. A version that does not know one of them aborts the process."""
    fusion = "" if _numbers(version("jaxlib")) >= [0, 11, 1] else " --xla_cpu_use_fusion_emitters=false"
    return f"--xla_backend_optimization_level=0{fusion}"


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)][:3]
