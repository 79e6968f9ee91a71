"""What SciPy would have for the likelihoods that it lacks: densities, distribution functions and means."""

from typing import Any

import numpy as np
import scipy.special
import scipy.stats


class ZeroInflated:
    """Counts that are zero with probability `zeros`, and else those of a distribution of SciPy."""

    def __init__(self, counts: Any, zeros: np.ndarray):
        self.counts, self.zeros = counts, zeros

    def logpmf(self, rows: np.ndarray) -> np.ndarray:
        return np.log(self.zeros * (rows == 0) + (1 - self.zeros) * self.counts.pmf(rows))

    def cdf(self, rows: np.ndarray) -> np.ndarray:
        return (rows >= 0) * self.zeros + (1 - self.zeros) * self.counts.cdf(rows)

    def mean(self) -> np.ndarray:
        return (1 - self.zeros) * self.counts.mean()


class Categories:
    """Levels with `shares` `[rows, units, levels]`, where `scipy.stats.rv_discrete` takes no arrays."""

    def __init__(self, outputs: np.ndarray, levels: tuple[int, ...]):
        self.shares = np.zeros((*outputs.shape[:-1], len(levels), max(levels)))
        for unit, (end, count) in enumerate(zip(np.cumsum(levels), levels, strict=True)):
            self.shares[..., unit, :count] = scipy.special.softmax(outputs[..., end - count : end], axis=-1)

    def logpmf(self, rows: np.ndarray) -> np.ndarray:
        at = np.nan_to_num(rows).astype(int)[..., None]
        return np.where(np.isnan(rows), np.nan, np.log(np.take_along_axis(self.shares, at, axis=-1)[..., 0]))

    def cdf(self, rows: np.ndarray) -> np.ndarray:
        sums = np.concatenate([np.zeros_like(self.shares[..., :1]), np.cumsum(self.shares, axis=-1)], axis=-1)
        at = np.clip(rows.astype(int) + 1, 0, sums.shape[-1] - 1)[..., None]
        return np.take_along_axis(np.broadcast_to(sums, (len(rows), *sums.shape[1:])), at, axis=-1)[..., 0]

    def mean(self) -> np.ndarray:
        return self.shares.argmax(axis=-1)


class Pixels:
    """A logistic distribution of SciPy whose values are rounded to 0 to 255."""

    def __init__(self, logistic: Any):
        self.logistic = logistic

    def cdf(self, rows: np.ndarray) -> np.ndarray:
        return np.where(rows >= 255, 1.0, np.where(rows < 0, 0.0, self.logistic.cdf(rows + 0.5)))

    def logpmf(self, rows: np.ndarray) -> np.ndarray:
        cdf, sf = self.logistic.cdf, self.logistic.sf
        # By whichever tail is the smaller one.
        upper, lower = sf(rows - 0.5) - sf(rows + 0.5), cdf(rows + 0.5) - cdf(rows - 0.5)
        inner = np.where(rows > self.logistic.mean(), upper, lower)
        return np.log(np.where(rows == 0, cdf(0.5), np.where(rows == 255, sf(254.5), inner)))

    def mean(self) -> np.ndarray:
        return self.logistic.sf(np.arange(255)[:, None, None] + 0.5).sum(axis=0)


class Tilted:
    """The density proportional to exp(logit x) on [0, 1]: a truncated exponential, or its mirror image."""

    def __init__(self, logits: np.ndarray):
        self.mirrored, size = logits > 0, np.abs(logits)
        self.peer = scipy.stats.truncexpon(size, scale=1 / size)

    def logpdf(self, rows: np.ndarray) -> np.ndarray:
        return self.peer.logpdf(np.where(self.mirrored, 1 - rows, rows))

    def cdf(self, rows: np.ndarray) -> np.ndarray:
        return np.where(self.mirrored, self.peer.sf(1 - rows), self.peer.cdf(rows))

    def mean(self) -> np.ndarray:
        return np.where(self.mirrored, 1 - self.peer.mean(), self.peer.mean())
