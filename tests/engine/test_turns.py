"""Turns: order, slices, fairness, and what an exception may spoil."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from edda.engine.turns import SLICE_TURNS, Turns
from tests.engine.virtual_time import in_virtual_time


async def one_iteration() -> None:
    """Until every callback that the loop has now was called."""
    await asyncio.sleep(0)


@in_virtual_time
async def test_turns_are_taken_later_in_the_order_they_were_asked_for() -> None:
    turns, taken = Turns(), list[int]()
    for number in range(3):
        turns.soon(lambda number=number: taken.append(number))
    assert taken == []
    await one_iteration()
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("waiting", [1, SLICE_TURNS, SLICE_TURNS + 1, SLICE_TURNS * 3])
@in_virtual_time
async def test_between_two_slices_the_loop_has_its_turn(waiting: int) -> None:
    turns, taken = Turns(), list[int]()
    for number in range(waiting):
        turns.soon(lambda number=number: taken.append(number))
    seen: list[int] = []
    while len(taken) < waiting:
        await one_iteration()
        seen.append(len(taken))
    assert seen == [min(SLICE_TURNS * slices, waiting) for slices in range(1, len(seen) + 1)]
    assert taken == list(range(waiting))


@in_virtual_time
async def test_who_asks_again_and_again_does_not_keep_others_from_their_turn() -> None:
    turns, greedy, others = Turns(), list[int](), list[int]()

    def again() -> None:
        greedy.append(1)
        if len(greedy) < 10_000:
            turns.soon(again)

    turns.soon(again)
    for number in range(5):
        turns.soon(lambda number=number: others.append(number))
    await one_iteration()
    assert others == [0, 1, 2, 3, 4]
    assert len(greedy) == 1  # what is asked for in a slice belongs to the next
    await one_iteration()
    assert len(greedy) == 2


@pytest.mark.parametrize("at", [0, 1, SLICE_TURNS - 1, SLICE_TURNS, SLICE_TURNS * 2 - 1])
@in_virtual_time
async def test_an_exception_in_one_turn_loses_no_other(at: int) -> None:
    turns, taken, told = Turns(), list[int](), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def turn(number: int) -> Callable[[], None]:
        def take() -> None:
            if number == at:
                raise RuntimeError("a defect")
            taken.append(number)

        return take

    for number in range(SLICE_TURNS * 2):
        turns.soon(turn(number))
    for _ in range(5):
        await one_iteration()
    assert taken == [number for number in range(SLICE_TURNS * 2) if number != at]
    assert [str(context["exception"]) for context in told] == ["a defect"]
    turns.soon(lambda: taken.append(-1))
    await one_iteration()
    assert taken[-1] == -1
