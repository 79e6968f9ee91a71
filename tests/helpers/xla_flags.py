"""Flags of XLA that let the tests compile faster."""

import re
from importlib.metadata import version


def xla_flags() -> str:
    """Compiling takes a quarter of the time with these. A version that does not know one of them aborts the process."""
    flags = ["--xla_backend_optimization_level=0"]
    if _numbers(version("jaxlib")) < [0, 11, 1]:
        # A program in parts is compiled sooner by idle cores, of which the tests leave none.
        flags += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
    return " ".join(flags)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)][:3]
