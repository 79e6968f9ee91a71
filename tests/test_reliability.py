"""docs/reliability.md names tests that exist, and the numbers that they count up to."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
KILLS = ROOT / "tests" / "torture" / "test_kills.py"
TABLES = ROOT / "tests" / "torture" / "test_kills_of_tables.py"


def constants(path: Path) -> dict[str, int]:
    """The whole numbers that a file names at its top, read without running it."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign):
            names, value = node.targets[0], node.value
            pairs = zip(names.elts, value.elts, strict=True) if isinstance(names, ast.Tuple) else [(names, value)]  # pyright: ignore[reportAttributeAccessIssue]
            for name, constant in pairs:
                if (
                    isinstance(name, ast.Name)
                    and isinstance(constant, ast.Constant)
                    and isinstance(constant.value, int)
                ):
                    found[name.id] = constant.value
    return found


def row(words: str) -> str:
    (line,) = [line for line in PAGE.splitlines() if line.startswith("|") and words in line]
    return line.rpartition(" | ")[2]


def test_the_tests_that_it_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 30
    for path, test in named:
        assert f"def {test}" in (ROOT / path).read_text(), (path, test)


def test_no_row_leaves_out_what_was_injected() -> None:
    rows = [line for line in PAGE.partition("## What of the long form")[0].splitlines() if line.startswith("| ")]
    assert len(rows) > 20
    assert not [line for line in rows if re.search(r"\|\s*\|$", line)]


@pytest.mark.parametrize(
    ("path", "words", "said"),
    [
        (KILLS, "test_kills_of_a_run`", "{LANES} times {KILLS}, "),
        (KILLS, "test_kills_of_a_run`", "at least {LANES} times {HALF_WRITTEN} of them"),
        (KILLS, "test_kills_of_seeds", "`kill -9`, {SEED_KILLS}, at least {SEED_HALF_WRITTEN} of them"),
        (KILLS, "test_kills_of_what_comes", "`kill -9`, {AFTER_KILLS} each"),
        (TABLES, "test_kills_of_tables", "at least {PARENTS} of the parent and {CELLS} of cells"),
        (
            TABLES,
            "test_kills_of_tables",
            "of cells that share a process at least {TOGETHER_PARENTS} and {TOGETHER_CELLS}",
        ),
        (TABLES, "test_kills_of_tables", "at least {INSTALLED_PARENTS} and {INSTALLED_CELLS}"),
    ],
)
def test_the_numbers_of_kills_are_those_of_the_tests(path: Path, words: str, said: str) -> None:
    assert said.format(**constants(path)) in row(words)
