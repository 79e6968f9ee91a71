"""The benchmark's figures as Markdown."""

import re
from pathlib import Path
from typing import Any

START, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"


def write_into(path: Path, record: dict[str, Any]) -> None:
    """Replaces what stands between the two marks of a document."""
    text = path.read_text()
    pattern = re.compile(f"{re.escape(START)}.*{re.escape(END)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{path} has no place for the tables: it needs {START} and {END}")
    path.write_text(pattern.sub(lambda _: f"{START}\n{render(record)}{END}", text))


def render(record: dict[str, Any]) -> str:
    """All tables, with the machine and the versions above them."""
    machine, versions = record["machine"], record["versions"]
    parts = [
        f"{machine['cores']} cores, {machine['processor']}; JAX {versions['jax']}, PyTorch {versions['torch']}.",
        _training(record["training"]),
        _measuring(record["measuring"]),
        _footprint(record["footprint"]),
    ]
    return "\n\n".join(parts) + "\n"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _training(cells: list[dict[str, Any]]) -> str:
    # The cell with most samples has them all.
    names = list(max((cell["ratios"] for cell in cells), key=len, default={}))
    headings = ["layers", "k", "ours", "ours / floor", *names]
    rows = [
        [
            str(cell["layers"]),
            str(cell["k"]),
            f"{1e3 * cell['seconds']['ours']:.2f} ms",
            f"{cell['over_floor']:.2f}",
            *[f"{cell['ratios'][name]:.2f}" if name in cell["ratios"] else "" for name in names],
        ]
        for cell in cells
    ]
    return "**A training step, batch 20**\n\n" + _table(headings, rows)


def _measuring(cells: list[dict[str, Any]]) -> str:
    headings = ["layers", "PyTorch / ours", "ours / floor", "ours", "floor"]
    rows = [
        [
            str(cell["layers"]),
            f"{cell['ratios']['PyTorch / ours']:.2f}",
            f"{cell['over_floor']:.2f}",
            f"{cell['examples'] / cell['seconds']['ours']:.1f} examples/s",
            f"{cell['examples'] / cell['seconds'][cell['floor']]:.1f} examples/s",
        ]
        for cell in cells
    ]
    return "**L_5000 of test images**\n\n" + _table(headings, rows)


def _footprint(found: dict[str, Any]) -> str:
    base, start = found["nothing"]["peak_mib"], found["start_seconds"]
    rows = [
        ["peak memory of training, 1 layer, k = 50", f"{found['training']['peak_mib'] - base:.0f} MiB"],
        ["peak memory of measuring L_5000", f"{found['measuring']['peak_mib'] - base:.0f} MiB"],
        ["compilation of the training step, k = 50", f"{found['training']['compile_seconds']:.1f} s"],
        ["`iwae --help`", f"{start['iwae --help'] - start['python']:.2f} s"],
        ["`import iwae`", f"{start['import iwae'] - start['python']:.2f} s"],
    ]
    above = f"Memory is above that of Python with JAX started ({base:.0f} MiB), times are above starting Python."
    return "**Memory and start**\n\n" + _table(["what", "how much"], rows) + f"\n\n{above}"
