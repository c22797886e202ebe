"""The joint test of a least-squares solution against the truth, under noise of known size."""

from __future__ import annotations

import numpy as np


def chance_of_gaps(factor: np.ndarray, gaps: np.ndarray, noise: float) -> np.ndarray:
    """Return the probability that noise alone puts the solution this far from the truth, or farther.

    factor: R with XᵀX = RᵀR, shape (..., p, p). gaps: solution minus truth, shape (..., p). noise: standard deviation
    of the noise in y.

    Returns: shape (...): (b - w)ᵀ XᵀX (b - w) / s² is chi-squared with p degrees of freedom
    (Seber and Lee, Linear Regression Analysis, 2003, theorem 3.5).
    """
    whitened = np.matmul(factor, gaps[..., None])[..., 0]
    return chi_squared_tail((whitened**2).sum(axis=-1) / noise**2, gaps.shape[-1])


def chi_squared_tail(statistic: np.ndarray | float, freedom: int) -> np.ndarray:
    """Return the probability that a chi-squared variable exceeds the statistic; has the shape of the statistic.

    freedom: degrees of freedom.
    """
    import torch

    half = torch.as_tensor(np.asarray(statistic, dtype=np.float64)) / 2
    tail: np.ndarray = torch.special.gammaincc(torch.full_like(half, freedom / 2), half).numpy()
    return tail
