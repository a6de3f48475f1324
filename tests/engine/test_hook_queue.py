"""The queue of hooks: in order, bounded in number and in time, and nothing that a hook does changes anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from edda.engine import hook_queue as module
from edda.engine.hook_queue import HOOK_SECONDS_MAX, HookQueue
from tests.engine.virtual_time import in_virtual_time, now_us


class Observer:
    """Remembers what it hears; some hooks misbehave."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def on_sync(self, *args: Any, **kwargs: Any) -> None:
        self.heard.append((*args, kwargs) if kwargs else args[0])

    async def on_async(self, what: object) -> None:
        await asyncio.sleep(0.01)
        self.heard.append(what)

    async def on_hanging(self) -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            self.heard.append("given up")

    def on_raising(self) -> None:
        raise ValueError("no")

    async def on_raising_later(self) -> None:
        await asyncio.sleep(0.01)
        raise ValueError("no")

    async def on_timed_out_itself(self) -> None:
        raise TimeoutError("of its own")

    async def on_cancelled_itself(self) -> None:
        other = asyncio.create_task(asyncio.sleep(1))
        other.cancel()
        await other


async def quiet() -> None:
    await asyncio.sleep(60)


@in_virtual_time
async def test_hooks_run_beside_the_work_in_the_order_of_their_calls() -> None:
    observer = Observer()
    hooks = HookQueue(observer)
    for number in range(6):
        hooks.call("on_async" if number % 2 else "on_sync", number)
    assert observer.heard == []
    await quiet()
    assert observer.heard == [0, 1, 2, 3, 4, 5]
    hooks.call("on_sync", "later", key="word")
    await quiet()
    assert observer.heard[-1] == ("later", {"key": "word"})


@in_virtual_time
async def test_one_hook_runs_at_a_time() -> None:
    running, most = 0, 0

    class Counting:
        async def on_it(self) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

    hooks = HookQueue(Counting())
    for _ in range(5):
        hooks.call("on_it")
        await asyncio.sleep(0.005)
    await quiet()
    assert most == 1


def test_without_an_observer_a_call_costs_nothing_not_even_a_loop() -> None:
    hooks = HookQueue(None)
    hooks.call("on_sync", 1)
    assert not hooks.observed
    assert not hooks.wants("on_sync")


def test_a_hook_that_the_observer_does_not_have_is_not_called() -> None:
    hooks = HookQueue(Observer())
    hooks.call("on_nothing", 1)
    assert hooks.observed
    assert hooks.wants("on_sync")
    assert not hooks.wants("on_nothing")


@pytest.mark.parametrize("hook", ["on_raising", "on_raising_later", "on_timed_out_itself", "on_cancelled_itself"])
@in_virtual_time
async def test_a_hook_that_raises_changes_nothing_for_the_next(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer()
    hooks = HookQueue(observer)
    hooks.call("on_sync", "before")
    hooks.call(hook)
    hooks.call("on_sync", "after")
    await quiet()
    assert observer.heard == ["before", "after"]
    (record,) = caplog.records
    assert "raised" in record.getMessage()
    assert record.exc_info


@in_virtual_time
async def test_a_hook_that_hangs_is_given_up_after_its_time(caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer()
    hooks = HookQueue(observer)
    began_us = now_us()
    hooks.call("on_hanging")
    hooks.call("on_sync", "after")
    await asyncio.sleep(HOOK_SECONDS_MAX - 0.1)
    assert observer.heard == []
    await asyncio.sleep(0.2)
    assert observer.heard == ["given up", "after"]
    assert now_us() - began_us < HOOK_SECONDS_MAX * 1_000_000 + 200_000
    assert "took longer" in caplog.text


@in_virtual_time
async def test_beyond_the_bound_the_oldest_calls_are_dropped_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer()
    hooks = HookQueue(observer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "QUEUE_MAX", 10)
        for number in range(25):
            hooks.call("on_sync", number)
    await quiet()
    assert observer.heard == list(range(15, 25))
    assert caplog.text.count("dropped") == 1


@in_virtual_time
async def test_draining_waits_for_what_is_queued() -> None:
    observer = Observer()
    hooks = HookQueue(observer)
    for number in range(3):
        hooks.call("on_async", number)
    await hooks.drain(seconds_max=5)
    assert observer.heard == [0, 1, 2]
    await hooks.drain(seconds_max=5)


@in_virtual_time
async def test_draining_does_not_wait_for_ever() -> None:
    observer = Observer()
    hooks = HookQueue(observer)
    hooks.call("on_hanging")
    hooks.call("on_sync", "after")
    began_us = now_us()
    await hooks.drain(seconds_max=1)
    assert now_us() - began_us < 1_100_000
    await asyncio.sleep(0.1)
    assert observer.heard == ["given up"]
