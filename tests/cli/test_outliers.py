"""`iwae outliers`: a table in, its least likely rows out."""

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from iwae.cli import main

pytest.importorskip("sklearn")


def test_the_rows_that_contradict_the_others_come_first(tmp_path: Path, capsys) -> None:
    """Rows that are usual in each column, but not together."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=200)
    age, city = 50 + 10 * hidden + rng.normal(size=200), np.where(hidden > 0, "Oslo", "Rome")
    age[[17, 150]], city[[17, 150]] = [35.0, 65.0], ["Oslo", "Rome"]
    frame = pl.DataFrame({"name": [f"p{row}" for row in range(200)], "age": age, "city": city})
    frame.write_csv(tmp_path / "d.csv")
    files = ["outliers", str(tmp_path / "d.csv"), "--output", str(tmp_path / "o.csv"), "--target", "name"]
    assert main([*files, "--rows", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["age: real -> gaussian", "city: text -> categorical (2 levels: Oslo, Rome)", lines[2]]
    assert lines[2] == "row  log density (nats)"
    shown = [int(line.split()[0]) for line in lines[3:7]]
    assert {17, 150} <= set(shown)
    with open(tmp_path / "o.csv", newline="") as file:
        written = [float(row["log_density"]) for row in csv.DictReader(file)]
    assert len(written) == 200
    assert shown == np.argsort(written)[:4].tolist()
    assert lines[-1] == f"Written: {tmp_path / 'o.csv'}"
    assert main(files) == 1
    assert "o.csv is there already" in capsys.readouterr().err
    assert main(["outliers", str(tmp_path / "none.csv")]) == 1
    assert "there is no file" in capsys.readouterr().err
