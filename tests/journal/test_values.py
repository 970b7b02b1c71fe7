"""What counts as a number, and what JSON makes of it."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.journal.values import Refused, from_json_number, metric_value, step_value, to_json_number


@pytest.mark.parametrize(
    ("given_value", "stored"),
    [
        (1, 1.0),
        (True, 1.0),
        (float("1e400"), math.inf),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3.0),
        (np.bool_(True), 1.0),
        (np.array(2.5), 2.5),
        (np.array([2.5]), 2.5),
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (None, None),
    ],
)
def test_numbers_of_every_kind_are_stored_as_float64(given_value, stored):
    """Whatever holds one number is taken."""
    value = metric_value(given_value)
    assert value == stored and (value is None or type(value) is float)


@pytest.mark.parametrize(
    "no_number", ["1.0", b"1", 1j, np.complex128(1j), 10**400, [1.0], {}, np.array([1.0, 2.0]), object(), np.str_("3")]
)
def test_what_is_no_number_is_refused_with_a_reason(no_number):
    """Nothing is guessed and no other exception comes out."""
    with pytest.raises(Refused, match=r"."):
        metric_value(no_number)


def test_tensors_of_one_element_are_taken_and_others_refused():
    """A loss is often still a tensor."""
    torch = pytest.importorskip("torch")
    assert metric_value(torch.tensor(1.5, requires_grad=True)) == 1.5
    assert metric_value(torch.tensor([2], dtype=torch.int32)) == 2.0
    with pytest.raises(Refused):
        metric_value(torch.zeros(2))


@pytest.mark.parametrize("step", [7, np.int32(7), 7.0, np.array(7), True + 6])
def test_whole_steps_of_every_kind_are_taken(step):
    """A step is one whole number."""
    assert step_value(step) == 7 and type(step_value(step)) is int


@pytest.mark.parametrize("step", ["7", None, 7.5, math.nan, math.inf, 2**63, [7], 10**30])
def test_what_is_no_whole_step_is_refused(step):
    """A step past 64 bits is none either."""
    with pytest.raises(Refused):
        step_value(step)


@given(st.floats())
def test_every_float_comes_back_from_json(value):
    """NaN and infinities, too."""
    back = from_json_number(to_json_number(value))
    assert back == value or (math.isnan(back) and math.isnan(value))


@pytest.mark.parametrize("bad", ["nan", "1.0", None, True, [], {}])
def test_what_is_no_number_in_json_is_refused(bad):
    """Only what the recorder writes is read."""
    with pytest.raises(ValueError, match="is no number"):
        from_json_number(bad)
