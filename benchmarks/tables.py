"""The benchmark's figures as Markdown."""

import re
from pathlib import Path
from typing import Any


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the tables of that name in a document."""
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def replace_between(path: Path, name: str, tables: str) -> None:
    """Replaces what stands between the two marks of a document."""
    start, end = marks(name)
    text = path.read_text()
    pattern = re.compile(f"{re.escape(start)}.*{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{path} has no place for the tables: it needs {start} and {end}")
    path.write_text(pattern.sub(lambda _: f"{start}\n{tables}{end}", text))


def render(record: dict[str, Any]) -> str:
    """All tables, with the machine and the versions above them."""
    machine, versions = record["machine"], record["versions"]
    parts = [
        f"{machine['cores']} cores, {machine['processor']}; JAX {versions['jax']}, PyTorch {versions['torch']}.",
        _training(record["training"]),
        _measuring(record["measuring"]),
        _annealing(record["annealing"]),
        _footprint(record["footprint"]),
    ]
    return "\n\n".join(parts) + "\n"


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A table as Markdown."""
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
    return "**A training step, batch 20**\n\n" + table(headings, rows)


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
    return "**L_5000 of test images**\n\n" + table(headings, rows)


def _annealing(cells: list[dict[str, Any]]) -> str:
    headings = ["layers", "one temperature of 10 leapfrog steps / floor", "1,000 images by AIS / 10,000 by L_5000"]
    rows = [[str(cell["layers"]), f"{cell['over_floor']:.2f}", f"{cell['over_importance']:.2f}"] for cell in cells]
    return "**AIS, 16 chains of 100 steps**\n\n" + table(headings, rows)


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
    return "**Memory and start**\n\n" + table(["what", "how much"], rows) + f"\n\n{above}"


def render_accelerator(record: dict[str, Any]) -> str:
    """The tables of `benchmarks.accelerator`; of a part that failed or was not reached there is none."""
    versions = record["versions"]
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    device = record["device"]
    parts = [
        f"{device.get('kind', 'unknown device')}, {device.get('tflops', 0):.1f} TFLOP/s in float32 products; {named}."
    ]
    cells = record["training"] if isinstance(record["training"], list) else []
    if cells:
        sides = list(max((cell["steps_per_second"] for cell in cells), key=len))
        headings = ["layers", "k", *(f"{side}, steps/s" for side in sides), "kernels", "products' share"]
        rows = [
            [
                str(cell["layers"]),
                str(cell["k"]),
                *(f"{cell['steps_per_second'].get(side, float('nan')):,.0f}" for side in sides),
                str(cell["kernels"]),
                f"{cell['share_of_products']:.2f}",
            ]
            for cell in cells
        ]
        parts.append("**A training step, batch 20** (of several runs: all of them step)\n\n" + table(headings, rows))
    precisions = [cell for cell in record["precision"] if isinstance(cell, dict) and cell.get("ratios")]
    if precisions:
        rows = [
            [str(cell["layers"]), str(cell["k"]), *(f"{cell['ratios'][name]:.2f}" for name in ("bfloat16", "TF32"))]
            for cell in precisions
        ]
        parts.append(table(["layers", "k", "bfloat16 / float32", "TF32 / float32"], rows))
    if "failed" not in record["measuring"]:
        rows = [[name, f"{value:,.0f}"] for name, value in record["measuring"].items()]
        parts.append(table(["one layer", "examples/s"], rows))
    if "failed" not in record["trained"]:
        rows = [
            [name, f"{run['epochs']} of {run['of']}", f"{run['hours']:.2f}"]
            for name, run in record["trained"]["runs"].items()
            if run["epochs"]
        ]
        parts.append(table(["`--schedule fast`, all at once", "epochs", "hours in all"], rows))
    return "\n\n".join(parts) + "\n"
