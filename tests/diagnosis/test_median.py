"""The median against NumPy's."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sightline.diagnosis.median import median


@given(arrays(float, array_shapes(min_dims=1, max_dims=3), elements=st.floats(-1e300, 1e300) | st.just(np.nan)))
def test_median_is_numpys(values: np.ndarray) -> None:
    """Along the last axis, to the last bit."""
    np.testing.assert_array_equal(median(values), np.median(values, axis=-1))


def test_median_of_nothing_is_nan() -> None:
    """Without a warning."""
    assert np.isnan(median([]))
