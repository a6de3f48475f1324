"""Random asyncio programs, as workflow bodies: every tool of asyncio that orders, cancels, times or shares.

A program is a tree of nodes made from a seed; a `Body` runs it against something that makes durable calls. Programs
look at the order in which things happen (the trace) and branch on it, so a replay that differs anywhere ends elsewhere.

Standard library only: the tests run it on bare interpreters too.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol


class CallFailed(Exception):
    """What a failing durable call raises."""


class Calls(Protocol):
    """What a body needs from its engine."""

    evicting: bool

    def call(self, name: str, argument: int) -> Coroutine[Any, Any, int]: ...


@dataclass(frozen=True, slots=True)
class Node:
    kind: str
    number: int
    children: tuple[Node, ...] = ()
    option: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        inside = ", ".join(map(str, self.children))
        return f"{self.kind}#{self.number}/{self.option}/{self.seconds:g}({inside})"


LEAVES = ("call", "call", "call", "call", "call", "two_calls", "sleep", "clock", "names")
COMPOUNDS = (
    "sequence", "gather", "gather", "gather_calls", "group", "wait", "wait", "as_completed_tasks", "as_completed_bare",
    "as_completed_calls", "timeout", "wait_for", "queue", "lock", "semaphore", "event", "condition", "shield", "spawn",
    "cancel", "finally_call", "on_cancel_call", "generator", "branch", "poll", "task_set", "catch", "mixed_group",
)  # fmt: skip
DELAYS = (0.0, 0.01, 0.01, 0.02, 0.03, 0.05, 0.2)


class Maker:
    """Makes one tree from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.number = 0
        self.budget = self.random.randint(4, 22)

    def program(self) -> Node:
        children = tuple(self.node(3) for _ in range(self.random.randint(1, 3)))
        return self._node("sequence", (self._node("catch", children), self.leaf()))

    def node(self, depth: int) -> Node:
        if depth == 0 or self.budget <= 0 or self.random.random() < 0.25:
            return self.leaf()
        kind = self.random.choice(COMPOUNDS)
        many = self.random.randint(1, 4)
        return self._node(kind, tuple(self.node(depth - 1) for _ in range(many)))

    def leaf(self) -> Node:
        self.budget -= 1
        return self._node(self.random.choice(LEAVES))

    def _node(self, kind: str, children: tuple[Node, ...] = ()) -> Node:
        self.number += 1
        return Node(kind, self.number, children, self.random.randrange(6), self.random.choice(DELAYS))


def program_of(seed: int) -> Node:
    return Maker(seed).program()


WAIT_MODES = (asyncio.FIRST_COMPLETED, asyncio.FIRST_EXCEPTION, asyncio.ALL_COMPLETED)


def described(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return f"group[{', '.join(map(described, error.exceptions))}]"
    return f"{type(error).__name__}({', '.join(map(str, error.args))})"


class Body:
    """Runs a program. `leaks` counts handlers of user code that ran during an eviction; there must be none."""

    def __init__(self, engine: Calls) -> None:
        self.engine = engine
        self.trace: list[str] = []
        self.leaks = 0

    def note(self, node: Node, value: object) -> None:
        self.trace.append(f"{node.kind}#{node.number}={value}")

    async def run(self, node: Node) -> Any:
        steps: Callable[[Node], Coroutine[Any, Any, Any]] = getattr(self, node.kind)
        value = await steps(node)
        self.note(node, value)
        return value

    def caught(self, node: Node, error: BaseException) -> str:
        self.leaks += self.engine.evicting
        self.note(node, text := described(error))
        return text

    def _call(self, node: Node, nth: int = 0) -> Coroutine[Any, Any, int]:
        return self.engine.call("abcde"[(node.option + nth) % 5], node.number)

    def _tasks(self, node: Node) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(self.run(child)) for child in node.children]

    async def _settle(self, node: Node, tasks: Any) -> list[Any]:
        """The outcomes of tasks, in the order in which they are given."""
        outcomes: list[Any] = []
        for task in tasks:
            try:
                outcomes.append(await task)
            except (CallFailed, TimeoutError) as error:
                outcomes.append(self.caught(node, error))
            except asyncio.CancelledError as error:
                outcomes.append(self.caught(node, error))
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
            except Exception as error:
                outcomes.append(self.caught(node, error))
        return outcomes

    # -- leaves

    async def call(self, node: Node) -> Any:
        return await self._call(node)

    async def two_calls(self, node: Node) -> Any:
        first, second = self._call(node), self._call(node, 1)  # ids are taken here, not at the await
        return [await second, await first] if node.option % 2 else [await first, await second]

    async def sleep(self, node: Node) -> Any:
        await asyncio.sleep(node.seconds)

    async def clock(self, node: Node) -> Any:
        return asyncio.get_running_loop().time()

    async def names(self, node: Node) -> Any:
        task = asyncio.current_task()
        return task and task.get_name()

    # -- several at once

    async def sequence(self, node: Node) -> Any:
        return [await self.run(child) for child in node.children]

    async def gather(self, node: Node) -> Any:
        return await asyncio.gather(*map(self.run, node.children), return_exceptions=node.option % 2 == 0)

    async def gather_calls(self, node: Node) -> Any:
        inner = asyncio.gather(*(self._call(node, nth) for nth in range(3)), return_exceptions=node.option < 3)
        return await asyncio.gather(inner, self._call(node), *map(self.run, node.children), return_exceptions=True)

    async def group(self, node: Node) -> Any:
        tasks: list[asyncio.Task[Any]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.run(child)) for child in node.children]
                tasks.append(group.create_task(self._call(node)))
                if node.option == 0:
                    await self._call(node, 1)
        except* CallFailed as errors:
            self.note(node, described(errors))
        except* TimeoutError as errors:
            self.note(node, described(errors))
        return [task.cancelled() for task in tasks]

    async def mixed_group(self, node: Node) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                for child in node.children:
                    group.create_task(self.finally_call(child) if node.option % 2 else self.run(child))
                    await asyncio.sleep(0)
                if node.option == 1:
                    raise CallFailed("body of the group")
        except* Exception as errors:  # not counted as a leak: a group of a failure and `Evicted` has both kinds
            self.note(node, described(errors))
        return await self._call(node)

    async def wait(self, node: Node) -> Any:
        tasks = self._tasks(node)
        timeout = node.seconds if node.option % 2 else None
        done, pending = await asyncio.wait(tasks, timeout=timeout, return_when=WAIT_MODES[node.option % 3])
        outcomes = await self._settle(node, done)
        for task in pending:
            if node.option < 3:
                task.cancel()
            elif node.option == 3:
                outcomes += await self._settle(node, [task])
        if node.option < 2 and pending:
            await asyncio.wait(pending)
            outcomes += await self._settle(node, pending)
        return outcomes

    async def _as_completed(self, node: Node, awaitables: Any) -> Any:
        outcomes: list[Any] = []
        timeout = node.seconds + 0.01 if node.option == 2 else None
        completed = asyncio.as_completed(awaitables, timeout=timeout)
        if sys.version_info >= (3, 13) and node.option > 3:
            try:
                async for task in completed:
                    outcomes += await self._settle(node, [task])
            except TimeoutError as error:
                self.caught(node, error)
            return outcomes
        for following in completed:
            outcomes += await self._settle(node, [following])
            if node.option == 1 and len(outcomes) == 2:
                break
        return outcomes

    async def as_completed_tasks(self, node: Node) -> Any:
        return await self._as_completed(node, set(self._tasks(node)) if node.option % 2 else self._tasks(node))

    async def as_completed_bare(self, node: Node) -> Any:
        coroutines = [*map(self.run, node.children), *(self._call(node, nth) for nth in range(2))]
        if node.option == 5:
            coroutines.insert(1, asyncio.create_task(self._call(node)))  # type: ignore[arg-type]  # mixed on purpose
        return await self._as_completed(node, tuple(coroutines) if node.option % 2 else coroutines)

    async def as_completed_calls(self, node: Node) -> Any:
        calls = {nth: self._later_call(node, nth) for nth in range(4)}
        return await self._as_completed(node, calls.values())

    async def _later_call(self, node: Node, nth: int) -> Any:
        return await self._call(node, nth)  # its id depends on when this task takes its first step

    async def task_set(self, node: Node) -> Any:
        tasks = {asyncio.create_task(self.run(child)) for child in node.children}
        tasks |= {asyncio.create_task(self._later_call(node, nth)) for nth in range(3)}
        if node.option == 0:
            await self._call(node)
            for task in tasks:
                task.cancel()
        return await self._settle(node, tasks)

    # -- time and cancelling

    async def timeout(self, node: Node) -> Any:
        try:
            async with asyncio.timeout(node.seconds):
                return await self.sequence(node)
        except TimeoutError as error:
            return self.caught(node, error)

    async def wait_for(self, node: Node) -> Any:
        try:
            return await asyncio.wait_for(self.sequence(node), node.seconds if node.option else None)
        except TimeoutError as error:
            return self.caught(node, error)

    async def shield(self, node: Node) -> Any:
        inner = asyncio.ensure_future(self.sequence(node))
        try:
            return await asyncio.wait_for(asyncio.shield(inner), node.seconds)
        except TimeoutError as error:
            self.caught(node, error)
            return await inner if node.option % 2 else None

    async def spawn(self, node: Node) -> Any:
        tasks = self._tasks(node)
        await self._call(node)
        if node.option == 0:
            return None  # forgotten; they may still run
        if node.option == 1:
            tasks[0].cancel("enough")
        return await self._settle(node, reversed(tasks))

    async def cancel(self, node: Node) -> Any:
        tasks = self._tasks(node)
        await asyncio.sleep(0 if node.option % 2 else node.seconds)
        for task in tasks:
            task.cancel()
            if node.option == 5:
                await self._call(node)
        return await self._settle(node, tasks)

    async def finally_call(self, node: Node) -> Any:
        try:
            return await self.sequence(node)
        finally:
            if node.option % 2:
                try:
                    async with asyncio.timeout(node.seconds + 0.01):
                        await self._call(node)
                except TimeoutError as error:
                    self.caught(node, error)
                except Exception as error:
                    self.caught(node, error)
            else:
                await asyncio.wait_for(self._call(node), None)

    async def on_cancel_call(self, node: Node) -> Any:
        try:
            return await self.sequence(node)
        except asyncio.CancelledError as error:
            self.caught(node, error)
            await self._call(node)
            if node.option:
                raise
            return "survived"
        except Exception as error:
            return self.caught(node, error)

    async def catch(self, node: Node) -> Any:
        try:
            return await self.sequence(node)
        except Exception as error:
            return self.caught(node, error)

    # -- sharing

    async def queue(self, node: Node) -> Any:
        queue: asyncio.Queue[Node] = asyncio.Queue(maxsize=node.option % 3)
        outcomes: list[Any] = []

        async def consume() -> None:
            while True:
                child = await queue.get()
                try:
                    outcomes.append(await self.run(child))
                except Exception as error:
                    outcomes.append(self.caught(node, error))
                finally:
                    queue.task_done()

        consumers = [asyncio.create_task(consume()) for _ in range(1 + node.option % 2)]
        for child in node.children:
            await queue.put(child)
        await queue.join()
        for consumer in consumers:
            consumer.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        return outcomes

    async def _each_inside(self, node: Node, door: Any) -> Any:
        async def enter(child: Node) -> Any:
            async with door:
                return await self.run(child)

        tasks = [asyncio.create_task(enter(child)) for child in node.children]
        tasks.append(asyncio.create_task(enter(Node("call", node.number))))
        if node.option == 0:
            await asyncio.sleep(node.seconds)
            tasks[0].cancel()
        return await self._settle(node, tasks)

    async def lock(self, node: Node) -> Any:
        return await self._each_inside(node, asyncio.Lock())

    async def semaphore(self, node: Node) -> Any:
        return await self._each_inside(node, asyncio.Semaphore(2))

    async def event(self, node: Node) -> Any:
        event = asyncio.Event()

        async def after(child: Node) -> Any:
            await event.wait()
            return await self.run(child)

        tasks = [asyncio.create_task(after(child)) for child in node.children]
        try:
            await self._call(node)
        finally:
            event.set()
        return await self._settle(node, tasks)

    async def condition(self, node: Node) -> Any:
        condition = asyncio.Condition()
        level = 0

        async def when(wanted: int, child: Node) -> Any:
            async with condition:
                await condition.wait_for(lambda: level >= wanted)
            return await self.run(child)

        tasks = [asyncio.create_task(when(nth % 3, child)) for nth, child in enumerate(node.children)]
        for _ in range(3):
            await self._settle(node, [self._call(node)])
            async with condition:
                level += 1
                condition.notify(1) if node.option % 2 else condition.notify_all()
        async with condition:
            condition.notify_all()
        return await self._settle(node, tasks)

    # -- the rest

    async def generator(self, node: Node) -> Any:
        async def values() -> AsyncIterator[Any]:
            try:
                for child in node.children:
                    yield await self.run(child)
                    yield await self._call(node)
            finally:
                if node.option % 2:
                    await self._call(node, 1)

        outcomes: list[Any] = []
        async for value in values():
            outcomes.append(value)
            if node.option == 1:
                await self._call(node, 2)
            if len(outcomes) > node.option:
                break
        return outcomes

    async def branch(self, node: Node) -> Any:
        await self._settle(node, [self._call(node)])
        return await self.run(node.children[len(self.trace) % len(node.children)])

    async def poll(self, node: Node) -> Any:
        flag = False

        async def raise_flag() -> None:
            nonlocal flag
            try:
                await self.run(node.children[0])
            finally:
                flag = True

        task = asyncio.create_task(raise_flag())
        hops = 0
        while not flag:
            await asyncio.sleep(0)
            hops += 1
        await self._settle(node, [task])
        return hops
