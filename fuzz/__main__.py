"""`python -m fuzz READER [options of libFuzzer]`: fuzzes one reader; what it finds is written as `crash-*`."""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["iwae", "zipfile", "gzip", "json", "safetensors", "numpy.lib", "PIL"]):
    from fuzz.readers import READERS, attempt
    from fuzz.seeds import seeds


def main() -> None:
    """Starts from the reader's valid files, in `results/fuzz/READER`."""
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        raise SystemExit(f"usage: python -m fuzz {{{','.join(READERS)}}} [-max_total_time=600 ...]")
    name = sys.argv.pop(1)
    corpus = Path("results/fuzz") / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(seeds()[name]):
        (corpus / f"valid-{number}").write_bytes(content)
    limits = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=8192", f"-artifact_prefix={corpus}-"]
    atheris.Setup([*sys.argv, *limits, str(corpus)], lambda content: attempt(name, content))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
