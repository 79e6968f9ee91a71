"""What is chosen to be shown of a model."""

import numpy as np

from iwae.evaluation.visualization import traversed_units


def test_traversed_units_are_active_and_in_order() -> None:
    assert list(traversed_units(np.array([0.3, 0.01, 0.9, -0.1, 0.02]))) == [2, 0, 4]
    assert len(traversed_units(np.ones(80))) == 25
