"""Fakes of activities: everything but the activity itself is real."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from edda import RetryExhaustedError, SerializationError, WorkflowContext, workflow
from edda.testing import FakeCall, InMemoryApp, fake
from tests.testing.workflows import ALL, NOTES, add, book, charge, months, pay, undone


@pytest.fixture
async def app() -> AsyncIterator[InMemoryApp]:
    async with InMemoryApp(workflows=ALL) as app:
        yield app


async def test_it_returns_what_it_is_told_to_and_notes_its_calls(app: InMemoryApp) -> None:
    with fake(add, returns=42) as adding:
        assert await (await app.start(months, 2)).result() == [42, 42]
    assert adding.calls == [FakeCall((0,), {"to": 30}, 1), FakeCall((1,), {"to": 30}, 1)]


async def test_the_activity_is_itself_again_afterwards(app: InMemoryApp) -> None:
    with pytest.raises(KeyError), fake(pay, returns="fake"):
        raise KeyError
    assert await (await app.start(charge, 5)).result() == "paid 5"


async def test_it_may_fail_for_good(app: InMemoryApp) -> None:
    with fake(pay, raises=ConnectionError("away")) as paying:
        handle = await app.start(charge, 5)
        with pytest.raises(RetryExhaustedError):
            await handle.result()
    assert [call.attempt for call in paying.calls] == [1, 2, 3]


async def test_it_may_have_another_outcome_in_each_attempt(app: InMemoryApp) -> None:
    with fake(add, outcomes=[1, OSError("now and then"), 2]) as adding:
        assert await (await app.start(months, 3)).result() == [1, 2, 2]
    assert len(adding.calls) == 4


async def test_it_may_be_a_function_of_its_own(app: InMemoryApp) -> None:
    def add_slowly(ctx: WorkflowContext, number: int, to: int = 1) -> int:
        return number - to

    with fake(add, by=add_slowly):
        assert await (await app.start(months, 2)).result() == [-30, -29]


async def test_fakes_of_one_activity_may_be_nested(app: InMemoryApp) -> None:
    with fake(add, returns=1):
        with fake(add, returns=2):
            assert await (await app.start(months, 1)).result() == [2]
        assert await (await app.start(months, 1)).result() == [1]


async def test_its_result_goes_through_the_codec_of_the_real_one(app: InMemoryApp) -> None:
    @workflow(name="testing.unstorable")
    async def unstorable(ctx: WorkflowContext) -> Any:
        return await add(ctx, 1)

    impossible: Any = object()
    async with InMemoryApp(workflows=[unstorable]) as app:
        with fake(add, returns=impossible), pytest.raises(SerializationError):
            await (await app.start(unstorable)).result()


async def test_what_a_fake_did_is_undone_as_if_it_were_real(app: InMemoryApp) -> None:
    await app.create_tables(NOTES)
    with fake(book, returns="B"):
        handle = await app.start(undone, ["a"])
        with pytest.raises(Exception, match="no seats left"):
            await handle.result()
    assert "CompensationExecuted" in [entry.event_type for entry in await handle.history()]


@pytest.mark.parametrize("behaviour", [{}, {"returns": 1, "raises": OSError()}, {"outcomes": []}, {"return": 1}])
def test_exactly_one_behaviour_is_given(behaviour: dict[str, Any]) -> None:
    faking: Any = fake
    with pytest.raises(TypeError, match="exactly one"):
        faking(add, **behaviour)


def test_only_activities_are_faked() -> None:
    faking: Any = fake
    with pytest.raises(TypeError, match="only an activity"):
        faking(months, returns=1)
