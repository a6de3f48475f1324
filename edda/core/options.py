"""Options that users set: numbers of the right kind and size, refused where they are set, by name and value."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_seconds(option: str, value: object, *, at_least: float = 0.0, above: float | None = None) -> None:
    """A finite number of seconds in the range, else TypeError or ValueError."""
    seconds = check_number(option, value, what="a number of seconds")
    fits = seconds >= at_least if above is None else seconds > above
    if not fits or not math.isfinite(seconds):
        bound = f"{at_least:g} or more" if above is None else f"more than {above:g}"
        raise ValueError(f"{option} must be a finite number of seconds, {bound}, not {value!r}")


def check_count(option: str, value: object, *, at_least: int = 1) -> None:
    """A whole number, `at_least` or more, else TypeError or ValueError."""
    if check_whole(option, value, what=f"a whole number, {at_least} or more") < at_least:
        raise ValueError(f"{option} must be a whole number, {at_least} or more, not {value!r}")


def check_number(option: str, value: object, *, what: str = "a number") -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{option} must be {what}, not {value!r}")
    return float(value)


def check_whole(option: str, value: object, *, what: str = "a whole number") -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{option} must be {what}, not {value!r}")
    return int(value)
