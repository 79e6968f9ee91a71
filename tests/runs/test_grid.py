"""What a sweep is over: names and values from the command line and from files, and the runs that they make."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iwae import IWAEError, RunConfig
from iwae.runs.grid import Definition, option_types, read_axes, read_file, read_grid, read_options

SMALL = {"latent": (3,), "hidden": (8,)}


def grid(*axes: str) -> dict[str, tuple[object, ...]]:
    return read_grid(read_axes(axes))


def test_values_are_those_that_iwae_train_takes() -> None:
    found = grid(
        "k=1,5,50",
        "estimator=reparameterized,dreg",
        "latent=50,100+50",
        "learning-rate=1e-3,0.01",
        "fresh-optimizer=true",
        "network=gated",
        "patience=3",
        "dataset=a.npy,b.npz",
    )
    assert found == {
        "k": (1, 5, 50),
        "estimator": ("reparameterized", "dreg"),
        "latent": ((50,), (100, 50)),
        "learning_rate": (0.001, 0.01),
        "fresh_optimizer": (True,),
        "network": ("gated",),
        "patience": (3,),
        "dataset": ("a.npy", "b.npz"),
    }


@pytest.mark.parametrize(
    ("axis", "match"),
    [
        ("kk=1", r"`grid` kk: there is no such option of a run: did you mean k\?"),
        ("estimtor=dreg", r"did you mean estimator\?"),
        ("zzz=1", "there are .*dataset, "),
        ("estimator=dregg", r"`grid` estimator must be one of .*, got 'dregg': did you mean dreg\?"),
        ("k=five", r"`grid` k: expected a whole number, got 'five'"),
        ("k=1.5", "expected a whole number"),
        ("latent=3+x", r"`grid` latent: expected whole numbers, such as 100\+50, got '3\+x'"),
        ("learning_rate=fast", "expected a number"),
        ("k=", "such as k=1,5,50, got 'k='"),
        ("k", "such as k=1,5,50, got 'k'"),
        ("k=1,1", "its values must differ, got 1, 1"),
        ("seed=1,2", "seeds are given by `seeds`"),
    ],
)
def test_a_wrong_name_or_value_is_one_line(axis: str, match: str) -> None:
    with pytest.raises(IWAEError, match=match) as error:
        grid(axis)
    assert "\n" not in str(error.value)


def test_an_option_is_given_once() -> None:
    with pytest.raises(IWAEError, match="learning-rate was given twice"):
        grid("learning_rate=1e-3", "learning-rate=1e-2")
    with pytest.raises(IWAEError, match="`grid` k: this option was given beside the grid too"):
        Definition({"k": 1}, grid("k=1,5"), (0,)).points()


def test_every_option_of_a_run_can_be_in_a_grid() -> None:
    """Those that its record has, but the seed; and a run can be made of its own record's values."""
    record = RunConfig.of(objective="beta-vae", beta=2.0, **SMALL).to_json()
    assert record.keys() - {"seed"} <= option_types().keys()
    values = {name: value for name, value in record.items() if value is not None and name not in ("seed", "model")}
    assert RunConfig.of(**read_options(values)) == RunConfig.from_json(record)


@given(
    st.sets(st.sampled_from([1, 2, 5]), min_size=1),
    st.sets(st.sampled_from(["elbo", "iwae"]), min_size=1),
    st.sets(st.integers(0, 9), min_size=1, max_size=4),
)
def test_the_runs_are_the_product_of_all_values_and_seeds(ks: set[int], objectives: set[str], seeds: set[int]) -> None:
    definition = Definition(SMALL, {"k": tuple(ks), "objective": tuple(objectives)}, tuple(seeds))
    points = definition.points()
    expected = [
        RunConfig.of(k=k, objective=objective, seed=seed, **SMALL)
        for k, objective, seed in itertools.product(ks, objectives, seeds)
    ]
    assert [RunConfig.from_json(point["config"]) for point in points] == expected
    assert [point["run"] for point in points] == [config.name() for config in expected]
    assert [(point["point"]["k"], point["seed"]) for point in points] == [(c.k, c.seed) for c in expected]


def test_what_a_schedule_brings_along_is_that_of_each_run() -> None:
    points = Definition(SMALL, {"schedule": ("paper", "fast")}, (0,)).points()
    assert [RunConfig.from_json(point["config"]).batch_size for point in points] == [20, 100]


def test_combinations_without_meaning_are_named() -> None:
    with pytest.raises(IWAEError, match=r"^objective=elbo backward=4 seed=0: .*backward"):
        Definition(SMALL, grid("objective=elbo,iwae", "backward=4"), (0,)).points()
    with pytest.raises(IWAEError, match="model=iwae objective=iwae seed=1 is the same run as another"):
        Definition(SMALL, {"model": (None, "iwae"), "objective": ("iwae",)}, (1,)).points()
    with pytest.raises(IWAEError, match="`seed` must be an integer from 0"):
        Definition(SMALL, {}, (-1,)).points()


def test_custom_data_are_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (point,) = Definition({"dataset": "d.npy", **SMALL}, {}, (0,)).points()
    assert point["config"]["dataset"] == str(tmp_path / "d.npy")


TEXT = """
seeds = [0, 1]
[options]
learning-rate = 0.01
epochs = 3
[grid]
k = [1, 5]
latent = [[50], [100, 50]]
"""
VALUE = {
    "seeds": [0, 1],
    "options": {"learning-rate": 0.01, "epochs": 3},
    "grid": {"k": [1, 5], "latent": [[50], [100, 50]]},
}


def test_files_are_toml_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(TEXT)
    (tmp_path / "a.json").write_text(json.dumps(VALUE))
    assert read_file(tmp_path / "a.toml") == read_file(tmp_path / "a.json") == VALUE
    assert read_options(VALUE["options"]) == {"learning_rate": 0.01, "epochs": 3}  # pyright: ignore[reportArgumentType]
    assert read_grid(VALUE["grid"]) == {"k": (1, 5), "latent": ((50,), (100, 50))}  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.toml", "k = [1", r"a\.toml: no TOML"),
        ("a.json", '{"k": NaN}', r"a\.json: no JSON \(NaN is no JSON\)"),
        ("a.json", "[1]", r"expected tables \[options\] and \[grid\] and a list 'seeds', got"),
        ("a.toml", "grids = 1", "got 'grids'"),
        ("a.toml", "grid = 1", "grid must be a table, got 1"),
        ("a.toml", "\xff", "no TOML"),
    ],
)
def test_other_files_are_one_line(tmp_path: Path, name: str, content: str, match: str) -> None:
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(IWAEError, match=match) as error:
        read_file(tmp_path / name)
    assert "\n" not in str(error.value)
    with pytest.raises(IWAEError, match="there is no such file"):
        read_file(tmp_path / "gone.toml")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"k": 1}, "expected a list of values, got 1"),
        ({"k": []}, "got"),
        ({"k": [True]}, "expected a whole number, got 'True'"),
    ],
)
def test_values_of_a_file_have_their_types(given: dict[str, object], match: str) -> None:
    with pytest.raises(IWAEError, match=match):
        read_grid(given)
