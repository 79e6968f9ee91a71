"""The house: a room imports only rooms below it, no file grows too long, core errors speak of arguments."""

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "iwae"
# From the top down, as in CONTRIBUTING.md.
ROOMS = (
    "cli",
    "sklearn",
    "report",
    "explore",
    "paper",
    "runs",
    "figures",
    "evaluation",
    "training",
    "estimators",
    "models",
    "data",
)
BELOW = ("bounds", "io", "devices", "arithmetic", "errors", "randomness", "version")
ORDER = {room: place for place, room in enumerate((*ROOMS, *BELOW))}
MOST_LINES = 400


def imports() -> list[tuple[Path, str]]:
    """Every file in a room, with each room that it imports, also where only types are meant."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.parent == SOURCE and path.stem not in ORDER:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == "iwae":
                names = [f"iwae.{alias.name}" for alias in node.names]
            found += [(path, name.split(".")[1]) for name in names if name.startswith("iwae.")]
    return found


def test_a_room_imports_only_rooms_below_it() -> None:
    upwards = []
    for path, room in imports():
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room in ORDER and ORDER[room] < ORDER[own]:
            upwards.append(f"{path.relative_to(SOURCE)} imports iwae.{room}")
    assert upwards == []


def test_the_rooms_are_all_there_and_none_besides() -> None:
    there = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert there == {*ROOMS, "io"}


def test_no_file_is_too_long() -> None:
    files = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.js"), *SOURCE.rglob("*.html"), *SOURCE.rglob("*.css")]
    assert [str(path) for path in files if len(path.read_text().splitlines()) > MOST_LINES] == []


def errors() -> set[str]:
    """Names of `IWAEError` and of every class of the package that descends from it."""
    found = {"IWAEError"}
    trees = [ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")]
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while more := {c.name for c in classes if any(ast.unparse(b).split(".")[-1] in found for b in c.bases)} - found:
        found |= more
    return found


def test_core_errors_speak_of_arguments_and_not_of_options() -> None:
    names, wrong = errors(), []
    assert {"RunBusyError", "CheckpointError", "Divergence"} <= names
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE).parts[0] == "cli":
            continue
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in names:
                parts = [part.value for part in ast.walk(call) if isinstance(part, ast.Constant)]
                spoken = [part for part in parts if isinstance(part, str) and re.search(r"(?<![\w-])--[a-z]", part)]
                wrong += [f"{path.relative_to(SOURCE)}:{call.lineno} {part!r}" for part in spoken]
    assert wrong == []
