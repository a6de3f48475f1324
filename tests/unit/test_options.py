"""Options that are numbers: the wrong kind is a TypeError, the wrong size a ValueError; both name option and value."""

from fractions import Fraction
from typing import Any

import pytest

from edda.core.options import check_count, check_seconds


@pytest.mark.parametrize("value", ["5", None, True, [5], 1j])
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^pause must be a number of seconds, not "):
        check_seconds("pause", value)
    with pytest.raises(TypeError, match=r"^room must be a whole number, 1 or more, not "):
        check_count("room", value)


@pytest.mark.parametrize("value", [-1, -0.1, float("nan"), float("inf")])
def test_seconds_are_finite_and_have_a_bound(value: float) -> None:
    with pytest.raises(ValueError, match=rf"^pause must be a finite number of seconds, 0 or more, not {value!r}$"):
        check_seconds("pause", value)
    with pytest.raises(ValueError, match=r"more than 0, not 0$"):
        check_seconds("pause", 0, above=0)


def test_counts_have_a_bound() -> None:
    with pytest.raises(ValueError, match=r"^room must be a whole number, 1 or more, not 0$"):
        check_count("room", 0)
    with pytest.raises(TypeError, match=r"not 1\.5$"):
        check_count("room", 1.5)


def test_what_fits_passes() -> None:
    for seconds in (0, 0.0, 1, 2.5, Fraction(1, 3)):
        check_seconds("pause", seconds)
    check_seconds("pause", 0.001, above=0)
    check_count("room", 1)
    check_count("room", 0, at_least=0)
