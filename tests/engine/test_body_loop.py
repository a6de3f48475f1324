"""What the body loop promises, one behaviour at a time.

That replays agree, whatever the body does, is the subject of `test_body_loop_programs`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import logging
import math
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from edda.engine.body_eviction import THROWS_MAX
from edda.engine.body_loop import BodyFuture, BodyLoop, BodyTask, Evicted
from edda.engine.body_timers import NEVER_US
from edda.exceptions import ForbiddenInBody

START_US = 1_700_000_000_000_000
HERE = __file__


class Bench:
    """A body on its loop, and the calls that it has made."""

    def __init__(self, freeze_after: int = 1_000, seed: int = 0) -> None:
        self.loop = BodyLoop(now_us=START_US, freeze_after=freeze_after, seed=seed)
        self.futures: dict[str, BodyFuture] = {}
        self.trace: list[Any] = []

    async def call(self, name: str) -> Any:
        self.futures[name] = self.loop.future()
        self.trace.append(f"call {name}")
        return await self.futures[name]

    def run(self, body: Callable[[], Coroutine[Any, Any, Any]]) -> BodyTask:
        root = self.loop.start(body(), context=contextvars.Context())
        assert self.loop.drain()
        return root

    def end(self, name: str, value: Any = None) -> None:
        self.loop.resolve(self.futures[name], value, at_us=self.loop.now_us + 1_000)
        assert self.loop.drain()

    def fire(self, timer_id: str) -> bool:
        fired = self.loop.fire(timer_id, at_us=self.loop.timers().get(timer_id, 0))
        assert self.loop.drain()
        return fired


@pytest.fixture
def new_bench() -> Iterator[Callable[..., Bench]]:
    """Benches whose bodies are unloaded in the end, as the engine does it: never left to the garbage collector."""
    benches: list[Bench] = []

    def new(**options: int) -> Bench:
        benches.append(Bench(**options))
        return benches[-1]

    yield new
    for bench in benches:
        bench.loop.evict()


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    return new_bench()


# -- running -------------------------------------------------------------------------------------------------------


def test_a_body_runs_until_it_waits_for_a_call_and_goes_on_when_that_is_delivered(bench: Bench) -> None:
    async def body() -> str:
        return await bench.call("a") + await bench.call("b")

    root = bench.run(body)
    bench.end("a", "1")
    assert not root.done()
    bench.end("b", "2")
    assert root.result() == "12"


def test_a_failed_call_raises_at_the_call(bench: Bench) -> None:
    async def body() -> str:
        try:
            return await bench.call("a")
        except ValueError as error:
            return f"caught {error}"

    root = bench.run(body)
    bench.loop.reject(bench.futures["a"], ValueError("no"), at_us=START_US)
    bench.loop.drain()
    assert root.result() == "caught no"


def test_a_call_that_raised_stop_iteration_does_not_end_the_body_quietly(bench: Bench) -> None:
    root = bench.run(lambda: bench.call("a"))
    bench.loop.reject(bench.futures["a"], StopIteration(3), at_us=START_US)
    bench.loop.drain()
    with pytest.raises(RuntimeError, match="StopIteration"):
        root.result()


def test_a_delivery_to_a_cancelled_call_is_skipped_but_moves_the_clock(bench: Bench) -> None:
    async def body() -> Any:
        task = asyncio.create_task(bench.call("a"))
        await asyncio.sleep(0)
        task.cancel()
        return await bench.call("b")

    root = bench.run(body)
    bench.end("a", "late")
    assert bench.loop.now_us == START_US + 1_000
    bench.end("b", "in time")
    assert root.result() == "in time"


def test_the_root_runs_in_the_context_it_is_given(bench: Bench) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("of the starter")

    async def body() -> str:
        variable.set(variable.get() + " in the body")
        return await asyncio.create_task(asyncio.sleep(0, variable.get()))

    assert bench.run(body).result() == "unset in the body"
    assert variable.get() == "of the starter"


def test_nothing_of_the_body_runs_after_its_root_has_ended(bench: Bench) -> None:
    async def other() -> None:
        while True:
            bench.trace.append("hop")
            await asyncio.sleep(0)

    async def body() -> None:
        bench.trace.append(asyncio.create_task(other()))
        await asyncio.sleep(0)

    bench.run(body)
    hops = len(bench.trace)
    assert bench.loop.drain()
    assert len(bench.trace) == hops


def test_slices_show_no_difference(new_bench: Callable[..., Bench]) -> None:
    def trace_of(handles_max: int | None) -> list[Any]:
        bench = new_bench()

        async def hop(name: int) -> None:
            for _ in range(name):
                await asyncio.sleep(0)
                bench.trace.append(name)

        async def body() -> None:
            await asyncio.gather(*map(hop, range(7)))

        bench.loop.start(body(), context=contextvars.Context())
        slices = 1
        while not bench.loop.drain(handles_max=handles_max):
            slices += 1
        assert (slices > 1) == (handles_max is not None)
        assert bench.loop.root.done()
        return bench.trace

    assert trace_of(None) == trace_of(1) == trace_of(5)


def test_delivering_before_the_queue_is_empty_is_refused(bench: Bench) -> None:
    bench.run(lambda: bench.call("a"))
    bench.loop.resolve(bench.futures["a"], 1, at_us=START_US)
    with pytest.raises(AssertionError, match="before drain"):
        bench.loop.resolve(bench.futures["a"], 2, at_us=START_US)


def test_an_error_that_nobody_awaits_is_logged_once_and_not_when_quiet(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ValueError("unseen")

    async def body() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)
        bench.loop.quiet = True
        asyncio.get_running_loop().call_soon(lambda: [][1])
        await asyncio.sleep(0)

    bench.run(body)
    assert [type(context["exception"]) for context in bench.loop.unhandled] == [ZeroDivisionError, IndexError]
    assert [record.name for record in caplog.records] == ["edda.engine"]


def test_system_exit_in_a_body_reaches_the_engine_and_leaves_the_thread_clean(bench: Bench) -> None:
    async def body() -> None:
        raise SystemExit(3)

    bench.loop.start(body(), context=contextvars.Context())
    with pytest.raises(SystemExit):
        bench.loop.drain()
    assert asyncio._get_running_loop() is None
    assert sys.get_asyncgen_hooks() == (None, None)


# -- order ---------------------------------------------------------------------------------------------------------


def test_a_set_of_tasks_has_the_same_order_in_every_incarnation(new_bench: Callable[..., Bench]) -> None:
    def order(seed: int) -> list[str]:
        bench = new_bench(seed=seed)

        async def body() -> list[str]:
            junk = [object() for _ in range(len(orders) * 50)]
            tasks = {asyncio.create_task(asyncio.sleep(0), name=str(n)) for n in range(40)}
            assert len(junk) == len(orders) * 50
            return [task.get_name() for task in tasks]

        result: list[str] = bench.run(body).result()
        return result

    orders: list[list[str]] = []
    for _ in range(5):
        orders.append(order(seed=12345))
    assert all(one == orders[0] for one in orders)


def test_task_names_are_counted_in_the_body_not_in_the_process(new_bench: Callable[..., Bench]) -> None:
    def names() -> list[str]:
        async def body() -> list[str]:
            tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
            return [task.get_name() for task in tasks]

        result: list[str] = new_bench(seed=7).run(body).result()
        return result

    assert names() == names()


@pytest.mark.parametrize("shape", [list, tuple, lambda calls: dict(enumerate(calls)).values(), dict.fromkeys])
def test_as_completed_over_coroutines_makes_its_tasks_in_argument_order(
    new_bench: Callable[..., Bench], shape: Callable[[Any], Any]
) -> None:
    for _ in range(20):
        bench = new_bench()

        async def body(bench: Bench = bench) -> list[Any]:
            calls = [bench.call(f"a{n}") for n in range(9)]
            return [await one for one in asyncio.as_completed(shape(calls))]

        root = bench.run(body)
        assert bench.trace == [f"call a{n}" for n in range(9)]
        for n in reversed(range(9)):
            bench.end(f"a{n}", n)
        assert root.result() == list(reversed(range(9)))


@pytest.mark.parametrize("shape", [set, iter])
def test_as_completed_over_coroutines_without_an_order_is_refused(bench: Bench, shape: Callable[[Any], Any]) -> None:
    async def body() -> None:
        calls = [bench.call("a"), bench.call("b")]
        try:
            for following in asyncio.as_completed(shape(calls)):
                await following
        finally:
            for call in calls:
                call.close()

    with pytest.raises(ForbiddenInBody, match=r"as_completed.*pass a list.*test_body_loop\.py"):
        bench.run(body).result()
    assert bench.trace == []


def test_as_completed_over_coroutines_and_several_finished_futures_is_refused(bench: Bench) -> None:
    async def body() -> None:
        finished = [asyncio.create_task(asyncio.sleep(0)) for _ in range(2)]
        await asyncio.wait(finished)
        call = bench.call("a")
        for following in asyncio.as_completed([*finished, call]):
            await following

    with pytest.raises(ForbiddenInBody, match="as_completed"):
        bench.run(body).result()


# -- time ----------------------------------------------------------------------------------------------------------


def test_the_clock_is_the_time_of_the_last_delivery(bench: Bench) -> None:
    async def body() -> tuple[float, float]:
        before = asyncio.get_running_loop().time()
        await bench.call("a")
        return before, asyncio.get_running_loop().time()

    root = bench.run(body)
    bench.loop.resolve(bench.futures["a"], None, at_us=START_US + 5_000_000)
    bench.loop.drain()
    assert root.result() == (START_US / 1e6, START_US / 1e6 + 5)
    bench.loop.advance(START_US)
    assert bench.loop.now_us == START_US + 5_000_000


def test_a_sleep_is_a_timer_that_fires_when_told(bench: Bench) -> None:
    root = bench.run(lambda: asyncio.sleep(1.5, "slept"))
    assert bench.loop.next_timer() == ("timer:1", START_US + 1_500_000)
    assert bench.fire("timer:1")
    assert root.result() == "slept"
    assert bench.loop.next_timer() is None


def test_timers_are_numbered_as_they_are_set_and_the_earliest_comes_first(bench: Bench) -> None:
    async def body() -> None:
        await asyncio.gather(*(asyncio.sleep(seconds) for seconds in (3, 1, 2, 1)))

    root = bench.run(body)
    assert list(bench.loop.timers()) == ["timer:1", "timer:2", "timer:3", "timer:4"]
    fired = []
    while (following := bench.loop.next_timer()) is not None:
        fired.append(following[0])
        bench.fire(following[0])
    assert fired == ["timer:2", "timer:4", "timer:3", "timer:1"]
    assert root.done()


def test_a_cancelled_timer_keeps_its_number_and_does_not_fire(bench: Bench) -> None:
    async def body() -> None:
        async with asyncio.timeout(1):
            await bench.call("a")
        await asyncio.sleep(2)

    bench.run(body)
    bench.end("a")
    assert dict(bench.loop.timers()) == {"timer:2": START_US + 2_001_000}
    assert bench.fire("timer:1") is False
    with pytest.raises(LookupError, match="timer:3"):
        bench.loop.fire("timer:3", at_us=START_US)


@pytest.mark.parametrize("timer_id", ["timer:0", "timer:x", "timer", "1", "sleep:1", "timer:-1"])
def test_a_timer_that_was_never_set_is_an_error(bench: Bench, timer_id: str) -> None:
    bench.run(lambda: asyncio.sleep(1))
    with pytest.raises(LookupError):
        bench.loop.fire(timer_id, at_us=START_US)


def test_a_timer_fired_and_then_cancelled_by_what_runs_before_it_does_not_run(bench: Bench) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        second = loop.call_later(1, bench.trace.append, "second")
        loop.call_later(1, second.cancel)
        await bench.call("a")

    bench.run(body)
    bench.fire("timer:2")
    bench.fire("timer:1")
    assert bench.trace == ["call a"]


def test_endless_and_impossible_timers(bench: Bench) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(math.inf, print)
        loop.call_at(-math.inf, print).cancel()
        with pytest.raises(ValueError, match="NaN"):
            loop.call_later(math.nan, print)
        await bench.call("a")

    bench.run(body)
    assert bench.loop.next_timer() == ("timer:1", NEVER_US)


def test_many_cancelled_timers_take_no_room(bench: Bench) -> None:
    async def body() -> None:
        for _ in range(5_000):
            asyncio.get_running_loop().call_later(3_600, print).cancel()
        await bench.call("a")

    bench.loop.freeze_after = 10**9
    bench.run(body)
    assert len(bench.loop._timers._by_due) < 200
    assert bench.loop.next_timer() is None


# -- freezing ------------------------------------------------------------------------------------------------------


def test_a_body_that_polls_is_frozen_and_goes_on_after_the_next_delivery(bench: Bench) -> None:
    async def body() -> int:
        task = asyncio.create_task(bench.call("a"))
        hops = 0
        while not task.done():
            await asyncio.sleep(0)
            hops += 1
        return hops

    root = bench.run(body)
    assert bench.loop.frozen
    assert bench.loop.drain()
    bench.end("a")
    assert not bench.loop.frozen
    assert root.result() == 1_000


def test_a_frozen_body_runs_the_same_number_of_callbacks_in_slices(new_bench: Callable[..., Bench]) -> None:
    hops: list[int] = []
    for handles_max in (None, 1, 7, 100):
        bench = new_bench(freeze_after=50)
        count = 0

        async def body() -> None:
            nonlocal count
            while True:
                count += 1
                await asyncio.sleep(0)

        bench.loop.start(body(), context=contextvars.Context())
        while not bench.loop.drain(handles_max=handles_max):
            pass
        assert bench.loop.frozen
        hops.append(count)
    assert hops == [50] * 4


# -- what a body may not do ----------------------------------------------------------------------------------------


async def _raw_socket() -> None:
    await asyncio.get_running_loop().sock_connect(None, None)  # type: ignore[arg-type]


async def _stop() -> None:
    asyncio.get_running_loop().stop()


async def _nested_run() -> None:
    asyncio.get_running_loop().run_until_complete(asyncio.sleep(0))


async def _thread_future() -> None:
    await asyncio.wrap_future(concurrent.futures.Future[None]())


async def _name() -> None:
    await asyncio.get_running_loop().getaddrinfo("localhost", 80)


FORBIDDEN: dict[str, Callable[[], Awaitable[Any]]] = {
    "thread": lambda: asyncio.to_thread(print),
    "connection": lambda: asyncio.open_connection("localhost", 1),
    "server": lambda: asyncio.start_server(print, "localhost", 1),
    "socket": _raw_socket,
    "process": lambda: asyncio.create_subprocess_exec("true"),
    "shell": lambda: asyncio.create_subprocess_shell("true"),
    "stop": _stop,
    "nested run": _nested_run,
    "thread future": _thread_future,
    "name": _name,
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_reaching_out_of_a_body_names_the_line_and_the_cure(bench: Bench, what: str) -> None:
    async def body() -> None:
        await FORBIDDEN[what]()

    with pytest.raises(ForbiddenInBody, match=r'test_body_loop\.py:\d+ .*activity.*ctx\.run\("name"') as caught:
        bench.run(body).result()
    assert caught.value.where.startswith(HERE)


def test_everything_that_asyncio_leaves_to_a_loop_is_either_done_or_refused() -> None:
    left_open = [
        name
        for name in vars(asyncio.AbstractEventLoop)
        if not name.startswith("_") and getattr(BodyLoop, name) is getattr(asyncio.AbstractEventLoop, name)
    ]
    assert left_open == []


def test_waiting_for_a_future_of_another_loop_raises_at_the_await(bench: Bench) -> None:
    outer = asyncio.new_event_loop()
    foreign = outer.create_future()

    async def inner() -> None:
        await foreign

    async def body() -> str:
        try:
            await inner()
        except ForbiddenInBody as error:
            bench.trace.append(error)
        return "went on"

    assert bench.run(body).result() == "went on"
    line = inner.__code__.co_firstlineno + 1
    assert bench.trace[0].where == f"{HERE}:{line}"
    assert "another event loop" in str(bench.trace[0])
    outer.close()


def test_waking_a_body_from_outside_is_refused_to_the_one_who_does_it(bench: Bench) -> None:
    event = asyncio.Event()
    bench.run(event.wait)
    with pytest.raises(ForbiddenInBody, match=r"outside.*test_body_loop\.py"):
        event.set()
    assert bench.loop.intrusion is not None


def test_waking_a_body_from_a_thread_is_refused_to_the_thread(bench: Bench) -> None:
    async def body() -> None:
        await bench.call("a")

    bench.run(body)
    refused: list[BaseException] = []

    def reach_in() -> None:
        try:
            bench.loop.call_soon_threadsafe(print)
        except ForbiddenInBody as error:
            refused.append(error)

    thread = threading.Thread(target=reach_in)
    thread.start()
    thread.join()
    assert refused == [bench.loop.intrusion]
    # The user's innermost line at which the body waits: in `Bench.call`.
    assert f"{HERE}:{Bench.call.__code__.co_firstlineno + 3}" in str(refused[0])


def test_a_body_may_use_call_soon_threadsafe_in_its_own_thread(bench: Bench) -> None:
    async def body() -> None:
        asyncio.get_running_loop().call_soon_threadsafe(bench.trace.append, "ran")
        await asyncio.sleep(0)

    bench.run(body)
    assert bench.trace == ["ran"]


# -- inside another loop -------------------------------------------------------------------------------------------


async def test_a_body_can_be_drained_from_a_task_and_from_a_callback_of_the_outer_loop(bench: Bench) -> None:
    outer, outer_task, hooks = asyncio.get_running_loop(), asyncio.current_task(), sys.get_asyncgen_hooks()

    async def body() -> None:
        assert asyncio.get_running_loop() is bench.loop
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:  # both need the current task
            group.create_task(bench.call("a"))
        await bench.call("b")

    root = bench.run(body)
    assert (asyncio.get_running_loop(), asyncio.current_task()) == (outer, outer_task)
    bench.end("a")
    finished = outer.create_future()
    outer.call_soon(lambda: finished.set_result(bench.end("b")))
    await finished
    assert root.done()
    assert sys.get_asyncgen_hooks() == hooks
    await asyncio.sleep(0)


async def test_a_body_can_be_evicted_from_a_task_of_the_outer_loop(bench: Bench) -> None:
    async def body() -> None:
        try:
            await bench.call("a")
        finally:
            bench.trace.append(asyncio.current_task())

    root = bench.run(body)
    outer_task = asyncio.current_task()
    bench.loop.evict()
    assert bench.trace == ["call a", root]
    assert asyncio.current_task() is outer_task


# -- eviction ------------------------------------------------------------------------------------------------------


def test_eviction_passes_by_except_exception_and_except_cancelled(bench: Bench) -> None:
    async def body() -> None:
        try:
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                group.create_task(bench.call("a"))
                await asyncio.gather(bench.call("b"), bench.call("c"), return_exceptions=True)
        except (Exception, asyncio.CancelledError) as error:
            bench.trace.append(error)
        except BaseException as error:
            bench.trace.append(type(error))
            raise

    bench.run(body)
    bench.loop.evict()
    assert sorted(map(str, bench.trace)) == [
        "<class 'edda.engine.body_eviction.Evicted'>",
        "call a",
        "call b",
        "call c",
    ]


def test_durable_acts_in_a_finally_raise_at_once_during_an_eviction(bench: Bench) -> None:
    async def body() -> None:
        try:
            await bench.call("a")
        finally:
            try:
                async with asyncio.timeout(1):
                    await bench.call("b")
            except Exception as error:
                bench.trace.append(error)

    bench.run(body)
    bench.loop.evict()
    assert bench.trace == ["call a"]


@pytest.mark.parametrize("act", ["create_future", "future"])
def test_an_evicted_loop_is_inert(bench: Bench, act: str) -> None:
    bench.run(lambda: bench.call("a"))
    bench.loop.evict()
    with pytest.raises(Evicted):
        getattr(bench.loop, act)()
    with pytest.raises(Evicted):
        bench.loop.create_task(bench.call("b"))
    assert not bench.loop.call_soon(print).cancelled()
    bench.loop.call_later(1, print).cancel()
    bench.loop.resolve(bench.futures["a"], 1, at_us=START_US)
    assert bench.loop.drain()
    assert bench.loop.is_closed()
    assert not bench.loop.timers()


def test_a_call_may_have_a_future_of_its_own_class(bench: Bench) -> None:
    class Noticed(BodyFuture):
        def cancel(self, msg: object = None) -> bool:
            bench.trace.append("cancelled")
            return super().cancel(msg)

    async def wait() -> None:
        await bench.loop.future(Noticed)

    async def body() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    assert bench.run(body).done()
    assert bench.trace == ["cancelled"]


def test_awaiting_again_in_nested_finally_blocks_raises_no_ordinary_error(bench: Bench) -> None:
    async def body() -> None:
        task = asyncio.create_task(bench.call("a"))
        try:
            await task
        finally:
            try:
                await task
            finally:
                try:
                    await task
                except Exception as error:
                    bench.trace.append(error)

    bench.run(body)
    bench.loop.evict()
    assert bench.trace == ["call a"]


def test_tasks_are_unwound_newest_first_each_in_its_own_context(bench: Bench) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")

    async def child(own: str) -> None:
        name.set(own)
        try:
            await bench.call(own)
        finally:
            bench.trace.append(name.get())

    async def body() -> None:
        await asyncio.gather(*map(child, "xyz"))

    bench.run(body)
    bench.loop.evict()
    assert bench.trace == ["call x", "call y", "call z", "z", "y", "x"]


@pytest.mark.filterwarnings("error")
def test_eviction_leaves_nothing_for_the_garbage_collector(
    bench: Bench, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    async def values() -> AsyncIterator[int]:
        try:
            yield 1
            yield await bench.call("never")
        finally:
            bench.trace.append("generator ended")
            await bench.call("in finally")

    async def body() -> None:
        not_awaited = bench.call("later")
        several = [bench.call("later") for _ in range(3)]
        async for _ in values():
            starting = asyncio.create_task(bench.call("a"))
            await bench.call("b")
        await asyncio.gather(not_awaited, *several, starting)

    bench.loop.start(body(), context=contextvars.Context())
    assert not bench.loop.drain(handles_max=1)  # the task for "a" has not taken its first step
    bench.loop.evict()
    gc.collect()
    assert bench.trace == ["call b", "generator ended"]
    assert not caplog.records
    assert not recwarn.list


def test_a_body_that_swallows_the_eviction_is_dropped_with_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def body() -> None:
        nonlocal tries
        future = asyncio.get_running_loop().create_future()
        while tries < THROWS_MAX + 10:
            try:
                await future
            except GeneratorExit:
                raise
            except BaseException:
                tries += 1

    bench.run(body)
    bench.loop.evict()
    assert tries == THROWS_MAX
    assert [(record.name, record.levelno) for record in caplog.records] == [("edda.engine", logging.WARNING)]


def test_evicting_twice_or_after_the_end_is_harmless(bench: Bench) -> None:
    root = bench.run(lambda: asyncio.sleep(0, "done"))
    bench.loop.evict()
    bench.loop.evict()
    assert root.result() == "done"


# -- async generators ----------------------------------------------------------------------------------------------


def test_a_generator_dropped_by_the_body_is_ended_in_a_task_of_the_body(bench: Bench) -> None:
    async def values() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await bench.call("in finally")
            bench.trace.append("ended")

    async def body() -> None:
        async for _ in values():
            break
        await bench.call("a")

    bench.run(body)
    assert bench.trace == ["call a", "call in finally"]
    bench.end("in finally")
    assert bench.trace[-1] == "ended"
    assert gc.isenabled()


def test_a_generator_found_by_the_collector_between_deliveries_does_not_run(bench: Bench) -> None:
    async def values() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            bench.trace.append("ended")

    async def body() -> None:
        generator = values()
        await anext(generator)
        cycle: list[Any] = [generator]
        cycle.append(cycle)
        del generator, cycle
        await bench.call("a")
        assert not gc.isenabled(), "the collector must not run while a body with generators does"

    root = bench.run(body)
    gc.collect()
    bench.end("a")
    root.result()
    assert bench.trace == ["call a"]
    bench.loop.evict()
    assert bench.trace == ["call a", "ended"]


# -- other people's tools ------------------------------------------------------------------------------------------


def test_anyio_timeouts_and_task_groups_work_in_a_body(bench: Bench) -> None:
    anyio = pytest.importorskip("anyio")

    async def body() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(bench.call, "a")
            group.start_soon(bench.call, "b")
        try:
            with anyio.fail_after(5):
                await bench.call("c")
        except TimeoutError:
            return "timed out"
        return "in time"

    root = bench.run(body)
    bench.end("b")
    bench.end("a")
    timer = bench.loop.next_timer()
    assert timer == ("timer:1", START_US + 5_002_000)
    bench.fire("timer:1")
    assert root.result() == "timed out"
