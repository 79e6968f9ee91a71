"""Draws docs/images/self_masking.png: what not-MIWAE assumes and finds. Run it as: python docs/self_masking.py"""

from pathlib import Path

import matplotlib
import numpy as np

from iwae.sklearn import IWAEImputer

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HOW = {"n_components": 1, "hidden": (), "random_state": 0, "learning_rate": 1e-2}


def main() -> None:
    """Fits both models to one table, and draws what they say of its first column."""
    rng = np.random.default_rng(0)
    whole = rng.normal(size=(1000, 1)) + 0.5 * rng.normal(size=(1000, 4))
    missing = np.zeros(whole.shape, bool)
    missing[:, 0] = rng.random(1000) < 1 / (1 + np.exp(-4 * whole[:, 0]))
    table, gone = np.where(missing, np.nan, whole), missing[:, 0]
    models = {kind: IWAEImputer(**HOW, missing=kind).fit(table) for kind in ("at-random", "self-masking")}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    bins = np.linspace(-3.5, 3.5, 36)
    left.hist(whole[~gone, 0], bins, color="0.8", label="observed")
    left.hist(whole[gone, 0], bins, color="C2", alpha=0.6, label="missing, in truth")
    for color, (kind, model) in zip(("C1", "C0"), models.items(), strict=True):
        left.hist(model.transform(table)[gone, 0], bins, histtype="step", color=color, lw=2, label=f"imputed, {kind}")
    left.set(xlabel="value of the first column", ylabel="rows")
    left.legend(fontsize=8)
    x, model = np.linspace(-3, 3, 200), models["self-masking"]
    process = model.model_.missing
    assert process is not None
    logits = process.slope[0] * (x - model._shift[0]) / model._spread[0] + process.intercept[0]
    right.plot(x, 1 / (1 + np.exp(-4 * x)), color="0.5", label="true")
    right.plot(x, 1 / (1 + np.exp(-np.asarray(logits))), color="C0", label="learned, self-masking")
    right.axhline(gone.mean(), color="C1", label="at-random: any constant")
    right.set(xlabel="value of the first column", ylabel="probability of being missing", ylim=(0, 1))
    right.legend(fontsize=8)
    figure.savefig(Path(__file__).parent / "images" / "self_masking.png", dpi=110)


if __name__ == "__main__":
    main()
