"""When a message is tried again: full jitter, up to five minutes, for ever. Pure; chance is passed in."""

from __future__ import annotations

from random import Random
from typing import Final

FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 300.0
RETRY_AFTER_SECONDS_MAX: Final = 3600.0
"""A receiver may ask for more; after an hour it is asked whether it has changed its mind."""
DOUBLINGS_MAX: Final = 20
SPREAD: Final = 0.1
"""Those who were told the same `Retry-After` come back within this part of it, not all at once."""


def delay_us(attempts: int, after_seconds: float | None, random: Random) -> int:
    """Until the next delivery, after `attempts` failures before this one, and what the receiver asked for."""
    longest = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(attempts, DOUBLINGS_MAX))
    seconds = random.uniform(0, longest)
    if after_seconds is not None and after_seconds > 0:
        asked = min(after_seconds, RETRY_AFTER_SECONDS_MAX)
        seconds = max(seconds, random.uniform(asked, asked * (1 + SPREAD)))
    return round(seconds * 1_000_000)
