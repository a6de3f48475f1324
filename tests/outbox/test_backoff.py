"""How long a message waits: pure arithmetic."""

from __future__ import annotations

from random import Random

import pytest

from edda.outbox.backoff import delay_us

RANDOM = Random(1)


@pytest.mark.parametrize(("attempts", "longest"), [(0, 1), (1, 2), (5, 32), (8, 256), (9, 300), (1000, 300)])
def test_it_is_fully_jittered_and_doubles_up_to_five_minutes(attempts: int, longest: int) -> None:
    delays = [delay_us(attempts, None, RANDOM) / 1_000_000 for _ in range(500)]
    assert 0 <= min(delays) < longest * 0.05
    assert longest * 0.95 < max(delays) <= longest


def test_what_the_receiver_asks_for_is_kept_but_for_no_more_than_an_hour() -> None:
    assert 60 <= delay_us(0, 60, RANDOM) / 1_000_000 <= 66
    assert 3600 <= delay_us(0, 10**9, RANDOM) / 1_000_000 <= 3960
    assert delay_us(0, 0, RANDOM) <= 1_000_000
    assert delay_us(0, -5, RANDOM) <= 1_000_000


def test_those_who_were_told_the_same_do_not_come_back_together() -> None:
    assert len({delay_us(0, 60, RANDOM) for _ in range(100)}) > 90
