"""The median, without what NumPy's own brings along: it imports masked arrays, a tenth of the reading of a small log."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def median(values: ArrayLike) -> NDArray[np.float64]:
    """Return the median along the last axis, NaN where a value is NaN or there is none.

    Parameters
    ----------
    values : array_like of float, shape (..., n)

    Returns
    -------
    ndarray of float64, shape (...)

    Examples
    --------
    >>> median([3.0, 1.0, 2.0, 10.0]), median([[1.0, 5.0, 2.0], [7.0, 7.0, 8.0]])
    (array(2.5), array([2., 7.]))
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    count = ordered.shape[-1]
    if not count:
        return np.full(ordered.shape[:-1], np.nan)
    middle = (ordered[..., (count - 1) // 2] + ordered[..., count // 2]) / 2.0
    return np.where(np.isnan(ordered[..., -1]), np.nan, middle)  # sorting puts NaN last
