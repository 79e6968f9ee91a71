"""Colours that can be seen, and commands that can be given again."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from iwae.cli.app import parse
from iwae.cli.train import Train
from iwae.figures import charts
from iwae.report import page
from iwae.report.captions import CAPTIONS
from iwae.report.labels import making_commands
from iwae.runs.config import RunConfig


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig.of(model="iwae", k=50, layers=2, seed=7, beta1=0.9, batch_size=5, schedule="quick"),
        RunConfig.of(latent=(3, 2), hidden=(5, 4)),
        RunConfig.of(dataset="/data/my table.csv", target=("label",), columns=("a", "b"), order="file"),
        RunConfig.of(init_from="/runs/a b", epochs=3, learning_rate=2e-5, fresh_optimizer=True),
    ],
)
def test_train_commands_give_the_same_configuration(config: RunConfig) -> None:
    analysis: Any = {"stages_done": 1, "stages_total": 1}
    (command,) = making_commands(Path("a run"), None, config, analysis)
    asked = parse(Train, shlex.split(command)[2:], prog="iwae train")
    assert asked.configuration == config
    assert asked.training.stages is None


def test_the_share_of_the_weight_above_the_mean_is_said() -> None:
    analysis: Any = {
        "log_weights": {"quantiles": dict.fromkeys(("0.5", "0.05", "0.95"), -1.0), "weight_above_mean": 0.437}
    }
    assert "44% of the weight is on samples above 0" in CAPTIONS["log_weights"].alt(analysis)


def contrast(one: str, other: str) -> float:
    """WCAG's contrast ratio of two colours `#rrggbb`."""

    def luminance(color: str) -> float:
        channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colours_can_be_told_from_their_ground() -> None:
    css = Path(page.__file__).with_name("page.css").read_text()
    names = ("ground", "card", "text", "soft", "line", "link", "no", "yes")
    schemes = zip(*(re.findall(rf"--{name}: (#[0-9a-f]{{6}});", css) for name in names), strict=True)
    for colors in [dict(zip(names, scheme, strict=True)) for scheme in schemes]:
        for ground in ("ground", "card"):
            assert contrast(colors["text"], colors[ground]) >= 7
            assert min(contrast(colors[name], colors[ground]) for name in ("soft", "link")) >= 4.5
            assert min(contrast(colors[name], colors[ground]) for name in ("no", "yes")) >= 3
    assert css.count("--ground: #") == 2
    assert min(contrast(color, "#FFFFFF") for color in (*charts.COLORS, charts.GREY)) >= 3
