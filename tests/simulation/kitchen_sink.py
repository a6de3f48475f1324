"""The kitchen sink: one workflow that can do everything, told by a tree of actions which is made from a seed.

Only the seed and a size travel as its arguments; the tree is made again wherever it is needed. What the body sees is
noted in its `Incarnation`, in order: two incarnations of one instance must see the same. What activities and
compensations do is noted in the world's log. The nodes are tuples: (kind, number, option, *children).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Iterator
from random import Random
from typing import Any, Final, Protocol, cast

import edda
from edda.core.routing import Criteria
from edda.retry import RetryPolicy
from edda.workflow import current_app

SINK: Final = "kitchen_sink"
GO: Final = "sink.go"
"""Everybody who waits gets one of these."""
PAID: Final = "sink.paid"
"""One of these is for one wait."""
NOTE: Final = "sink.note"
"""These are addressed."""
ECHO: Final = "sink.echo"
"""What a sink sends to itself."""
Node = tuple[Any, ...]

FAST: Final = RetryPolicy(initial_interval=0.02, backoff_coefficient=2.0, max_attempts=3)
SLOW: Final = RetryPolicy(initial_interval=1.1, backoff_coefficient=1.5, max_attempts=3)
ONCE: Final = RetryPolicy(max_attempts=1)


class Flaky(Exception):
    """What activities fail with."""


class Final_(Exception):
    """What the workflow fails with at its end."""


class Notes(Protocol):
    """The side of the world that user code writes to."""

    def entered_body(self, instance_id: str, worker_id: str) -> list[Any]: ...
    def entered(self, instance_id: str, call_id: str, worker_id: str, attempt: int, name: str, args: Any) -> None: ...
    def left(self, instance_id: str, call_id: str, worker_id: str, attempt: int) -> None: ...
    def not_before(self, instance_id: str, due_us: int) -> None: ...
    def wanted(
        self, instance_id: str, call_id: str, worker_id: str, criteria: Criteria, due_us: int | None
    ) -> None: ...


def _notes() -> Notes:
    return cast("Any", current_app.get()).world  # type: ignore[no-any-return]


# -- activities ------------------------------------------------------------------------------------------------------


async def _work(ctx: edda.WorkflowContext, naps: int, *args: Any) -> None:
    """What every activity does: say so, and take its time."""
    info = ctx.activity
    notes = _notes()
    notes.entered(ctx.instance_id, info.id, ctx.worker_id, info.attempt, info.name, args)
    await asyncio.sleep(NAPS[naps % len(NAPS)])
    notes.left(ctx.instance_id, info.id, ctx.worker_id, info.attempt)


NAPS: Final = (0.0, 0.0, 0.001, 0.004, 0.03, 0.3)
SLEEPS: Final = (0.002, 0.01, 0.05, 0.3, 1.1, 1.4)


@edda.activity(name="sink_plain")
async def plain(ctx: edda.WorkflowContext, number: int, naps: int) -> dict[str, int]:
    await _work(ctx, naps, number)
    return {"number": number, "attempt": ctx.activity.attempt}


@edda.activity(retry_policy=ONCE)
async def session(ctx: edda.WorkflowContext, number: int, naps: int) -> int:
    """One row through `ctx.session`, before or after its nap."""
    row: Any = ("effect", str(ctx.instance_id), ctx.activity.id, number)
    if naps % 2:
        ctx.session.add(row)
        await ctx.session.flush()
        await _work(ctx, naps, number)
    else:
        await _work(ctx, naps, number)
        ctx.session.add(row)
    return number


@edda.activity(retry_policy=FAST)
async def session_flaky(ctx: edda.WorkflowContext, number: int, naps: int) -> int:
    """Its row must vanish with each failed attempt. It also sends an event."""
    ctx.session.add(cast("Any", ("effect", str(ctx.instance_id), ctx.activity.id, number)))
    await edda.send_event_transactional(ctx, "session.done", "sink", {"number": number})
    await _work(ctx, naps, number)
    if ctx.activity.attempt <= naps % 2:
        raise Flaky("not yet")
    return number


@edda.activity(name="sink_flaky", retry_policy=FAST)
async def flaky(ctx: edda.WorkflowContext, number: int, failures: int) -> int:
    await _work(ctx, number, number)
    if ctx.activity.attempt <= failures:
        raise Flaky(f"attempt {ctx.activity.attempt}")
    return number


@edda.activity(name="sink_patient", retry_policy=SLOW)
async def patient(ctx: edda.WorkflowContext, number: int, failures: int) -> int:
    """Its back-off is long enough to park the instance. With 9 failures it never succeeds."""
    await _work(ctx, number, number)
    if ctx.activity.attempt <= failures or failures == 9:
        raise Flaky(f"attempt {ctx.activity.attempt}")
    return number


@edda.activity
async def terminal(ctx: edda.WorkflowContext, number: int) -> int:
    await _work(ctx, number, number)
    raise edda.TerminalError(f"no {number}")


@edda.activity(retry_policy=FAST, timeout=0.2)
async def slow_answer(ctx: edda.WorkflowContext, number: int) -> int:
    """Its first attempt always times out."""
    await _work(ctx, 5 if ctx.activity.attempt == 1 else 2, number)
    return number


@edda.activity
async def sender(ctx: edda.WorkflowContext, number: int, naps: int) -> int:
    await edda.send_event_transactional(ctx, "sender.done", "sink", {"number": number})
    await _work(ctx, naps, number)
    return number


@edda.activity(retry_policy=FAST)
async def teller(ctx: edda.WorkflowContext, number: int, naps: int, event_type: str) -> int:
    """Sends an event to our own inbox; nobody hears of it from an attempt that failed."""
    await edda.send_event(event_type, SINK, words(ctx, number))
    await _work(ctx, naps, number)
    if ctx.activity.attempt <= naps % 2:
        raise Flaky("not yet")
    return number


@edda.activity(retry_policy=ONCE)
async def teller_session(ctx: edda.WorkflowContext, number: int, naps: int) -> int:
    """Its event goes with its row."""
    ctx.session.add(cast("Any", ("effect", str(ctx.instance_id), ctx.activity.id, number)))
    await edda.send_event(GO, SINK, words(ctx, number))
    await _work(ctx, naps, number)
    return number


def words(ctx: edda.WorkflowContext, number: int) -> dict[str, Any]:
    """What is in an event of the sinks: who waits for it, or who sent it, and at which node."""
    return {"to": str(ctx.instance_id), "n": number}


async def _undo(ctx: edda.WorkflowContext, number: int) -> None:
    await _work(ctx, number, number)


@edda.compensation(retry_policy=FAST)
async def undo_saga(ctx: edda.WorkflowContext, number: int) -> None:
    await _undo(ctx, number)
    if number % 3 == 0 and ctx.activity.attempt < 2:
        raise Flaky("undo again")


@edda.compensation(retry_policy=SLOW)
async def undo_patiently(ctx: edda.WorkflowContext, number: int) -> None:
    await _undo(ctx, number)
    if ctx.activity.attempt < 2:
        raise Flaky("undo later")


@edda.compensation(retry_policy=FAST)
async def undo_never(ctx: edda.WorkflowContext, number: int) -> None:
    await _undo(ctx, number)
    raise Flaky("cannot be undone")


@edda.activity(retry_policy=ONCE)
@edda.on_failure(undo_saga)
async def saga(ctx: edda.WorkflowContext, number: int, naps: int) -> dict[str, int]:
    await _work(ctx, naps, number)
    return {"booked": number}


@edda.activity(retry_policy=ONCE)
@edda.on_failure(undo_patiently)
async def saga_session(ctx: edda.WorkflowContext, number: int, naps: int) -> int:
    ctx.session.add(cast("Any", ("effect", str(ctx.instance_id), ctx.activity.id, number)))
    await _work(ctx, naps, number)
    return number


@edda.activity(retry_policy=ONCE)
@edda.on_failure(undo_never)
async def saga_lost(ctx: edda.WorkflowContext, number: int, naps: int) -> int:
    await _work(ctx, naps, number)
    return number


# -- trees -----------------------------------------------------------------------------------------------------------

LEAVES: Final = (
    *("plain", "plain", "session", "session", "flaky", "patient", "saga", "saga", "saga_session"),
    *("sleep", "timer", "sender", "send", "clock", "patched", "registered", "session_flaky", "slow_answer"),
    *("event", "paid", "paid", "note", "deadline", "deadline", "echo", "tell"),
)
WAITING: Final = ("event", "paid", "note", "deadline")
"""Leaves whose events come from outside."""
SENDING: Final = ("sender", "send", "session_flaky")
"""Leaves that send events to the outside."""
DEADLINES: Final = (0.0, 0.01, 0.05, 0.3, 1.2, 14.0)
RARE_LEAVES: Final = ("child_run", "child_start", "hopeless", "terminal", "saga_lost", "long_timer", "detached")
COMPOUNDS: Final = ("gather", "gather", "group", "group", "timeout", "wait_for", "sequence", "catch", "catch", "spawn")


class Maker:
    """Makes one tree."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = Random(seed)
        self.left = size
        self.number = 0
        self.children = 1

    def tree(self) -> Node:
        nodes: list[Node] = []
        while self.left > 0:
            nodes.append(self.node(2))
        end = "fail" if self.random.random() < 0.35 else "end"
        return ("sequence", 0, 0, *nodes, (end, self._next(), 0))

    def node(self, depth: int) -> Node:
        if depth == 0 or self.left <= 1 or self.random.random() < 0.6:
            return self.leaf()
        kind = self.random.choice(COMPOUNDS)
        number, option = self._next(), self.random.randrange(6)
        return (kind, number, option, *(self.node(depth - 1) for _ in range(self.random.randint(1, 3))))

    def leaf(self) -> Node:
        self.left -= 1
        kind = self.random.choice(LEAVES if self.random.random() < 0.85 else RARE_LEAVES)
        if kind in ("child_run", "child_start", "detached"):
            if self.children == 0 or self.left <= 0:
                kind = "plain"
            else:
                self.children -= 1
        one = (kind, self._next(), self.random.randrange(6))
        if kind in ("event", "deadline") and self.random.random() < 0.3:  # at the same time as another one like it
            return ("gather", self._next(), one[2], one, (kind, self._next(), one[2]))
        return one

    def _next(self) -> int:
        self.number += 1
        return self.number


@functools.lru_cache(maxsize=4096)
def tree_of(seed: int, size: int) -> Node:
    return Maker(seed, size).tree()


def has(node: Node, *kinds: str) -> bool:
    return node[0] in kinds or any(has(child, *kinds) for child in node[3:])


def messages(node: Node) -> int:
    """How many of its leaves send events to the outside."""
    return (node[0] in SENDING) + sum(map(messages, node[3:]))


def has_children(node: Node) -> bool:
    return has(node, "child_run", "child_start", "detached")


def waiting(node: Node) -> Iterator[Node]:
    """The leaves that wait for an event from outside."""
    if node[0] in WAITING:
        yield node
    for child in node[3:]:
        yield from waiting(child)


def asked_by(instance_id: str, kind: str, number: int, option: int) -> tuple[str, str, dict[str, Any]]:
    """What a waiting leaf asks for: the id of its call, the type, and the rest of the arguments."""
    call_id = f"{kind}-{number}"
    if kind == "event":
        return call_id, GO, {}
    if kind == "note":
        return call_id, NOTE, {}
    if kind == "paid" and option % 2:
        return call_id, PAID, {"subject": f"{instance_id}:{number}"}
    return call_id, PAID, {"match": {"to": instance_id, "n": number}}


# -- the workflow ----------------------------------------------------------------------------------------------------


class Body:
    """Interprets a tree. `seen` is the incarnation's notebook."""

    def __init__(self, ctx: edda.WorkflowContext, seed: int, seen: list[Any]) -> None:
        self.ctx = ctx
        self.seed = seed
        self.seen = seen
        self.spawned: list[asyncio.Task[Any]] = []

    async def run(self, node: Node) -> Any:
        kind, number, option, *children = node
        step = getattr(self, kind)
        try:
            value = await step(number, option, children)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.seen.append((number, _told(error)))
            raise
        self.seen.append((number, value))
        return value

    # compounds

    async def sequence(self, number: int, option: int, children: list[Node]) -> Any:
        return [await self.run(child) for child in children][-1:]

    async def gather(self, number: int, option: int, children: list[Node]) -> Any:
        values = await asyncio.gather(*map(self.run, children), return_exceptions=option % 2 == 0)
        return [_told(value) if isinstance(value, BaseException) else value for value in values]

    async def group(self, number: int, option: int, children: list[Node]) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.run(child)) for child in children]
        except ExceptionGroup as errors:
            if option < 2:
                raise Flaky(_told(errors)) from None
            return _told(errors)
        return [task.result() for task in tasks]

    async def timeout(self, number: int, option: int, children: list[Node]) -> Any:
        try:
            async with asyncio.timeout((0.01, 0.05, 0.2, 1.2, 2.0, 5.0)[option]):
                return await self.sequence(number, option, children)
        except TimeoutError:
            return "timed out"

    async def wait_for(self, number: int, option: int, children: list[Node]) -> Any:
        try:
            return await asyncio.wait_for(self.run(children[0]), (0.02, 0.1, 0.3, 1.3, 3.0, None)[option])
        except TimeoutError:
            return "too late"

    async def catch(self, number: int, option: int, children: list[Node]) -> Any:
        try:
            return await self.sequence(number, option, children)
        except Exception as error:
            return _told(error)

    async def spawn(self, number: int, option: int, children: list[Node]) -> Any:
        """Left behind; waited for at the end or not."""
        self.spawned.append(asyncio.create_task(self.run(children[0])))

    # leaves

    async def plain(self, number: int, option: int, children: list[Node]) -> Any:
        return (await plain(self.ctx, number, option))["number"]

    async def session(self, number: int, option: int, children: list[Node]) -> Any:
        return await session(self.ctx, number, option)

    async def session_flaky(self, number: int, option: int, children: list[Node]) -> Any:
        return await session_flaky(self.ctx, number, option)

    async def flaky(self, number: int, option: int, children: list[Node]) -> Any:
        return await flaky(self.ctx, number, option % 3)

    async def patient(self, number: int, option: int, children: list[Node]) -> Any:
        return await patient(self.ctx, number, option % 2)

    async def hopeless(self, number: int, option: int, children: list[Node]) -> Any:
        if option % 3 == 0:
            return await patient(self.ctx, number, 9)
        return await flaky(self.ctx, number, 20)

    async def terminal(self, number: int, option: int, children: list[Node]) -> Any:
        return await terminal(self.ctx, number)

    async def slow_answer(self, number: int, option: int, children: list[Node]) -> Any:
        return await slow_answer(self.ctx, number)

    async def saga(self, number: int, option: int, children: list[Node]) -> Any:
        return await saga(self.ctx, number, option)

    async def saga_session(self, number: int, option: int, children: list[Node]) -> Any:
        return await saga_session(self.ctx, number, option)

    async def saga_lost(self, number: int, option: int, children: list[Node]) -> Any:
        return await saga_lost(self.ctx, number, option)

    async def sender(self, number: int, option: int, children: list[Node]) -> Any:
        return await sender(self.ctx, number, option)

    async def send(self, number: int, option: int, children: list[Node]) -> Any:
        return await edda.send_event_transactional(self.ctx, "body.sent", "sink", {"number": number})

    async def event(self, number: int, option: int, children: list[Node]) -> Any:
        return await self._wait("event", number, option)

    async def paid(self, number: int, option: int, children: list[Node]) -> Any:
        return await self._wait("paid", number, option)

    async def note(self, number: int, option: int, children: list[Node]) -> Any:
        return await self._wait("note", number, option)

    async def deadline(self, number: int, option: int, children: list[Node]) -> Any:
        try:
            return await self._wait("deadline", number, option, DEADLINES[option] + number % 4 * 3 / 1000)
        except edda.EventTimeoutError:
            if number % 5 == 0:
                raise
            return "no event"

    async def echo(self, number: int, option: int, children: list[Node]) -> Any:
        """Hears what it sends itself, from its body or from an activity, before it waits or meanwhile."""
        here = self.ctx.instance_id
        if option < 2:
            await edda.send_event(ECHO, SINK, words(self.ctx, number), to=here if option else None)
            return await self._hear(number)
        if option == 3:  # at the last moment
            return await asyncio.gather(self._hear(number, 0.05 + number % 4 / 1000), self._tell_late(number))
        if option == 2:
            tells: Any = edda.send_event(ECHO, SINK, words(self.ctx, number))
        else:
            tells = teller(self.ctx, number, option, ECHO)
        return await asyncio.gather(self._hear(number), tells)

    async def tell(self, number: int, option: int, children: list[Node]) -> Any:
        if option < 2:
            return await edda.send_event(GO, SINK, words(self.ctx, number))
        if option < 4:
            return await teller(self.ctx, number, option, GO)
        return await teller_session(self.ctx, number, option)

    async def _hear(self, number: int, deadline: float | None = None) -> Any:
        try:
            return await self._ask(f"echo-{number}", ECHO, deadline, match={"to": self.ctx.instance_id, "n": number})
        except edda.EventTimeoutError:
            return "silence"

    async def _tell_late(self, number: int) -> Any:
        await asyncio.sleep(0.047)
        return await edda.send_event(ECHO, SINK, words(self.ctx, number))

    async def _wait(self, kind: str, number: int, option: int, deadline: float | None = None) -> Any:
        call_id, event_type, more = asked_by(self.ctx.instance_id, kind, number, option)
        return await self._ask(call_id, event_type, deadline, **more)

    async def _ask(self, call_id: str, event_type: str, deadline: float | None, **more: Any) -> Any:
        ctx = self.ctx
        now_us = round(ctx.now().timestamp() * 1_000_000)
        due_us = None if deadline is None else now_us + round(deadline * 1_000_000)
        _notes().wanted(ctx.instance_id, call_id, ctx.worker_id, Criteria.of(event_type, **more), due_us)
        got = await edda.wait_event(ctx, event_type, deadline, event_id=call_id, **more)
        return (got.id, got.source, got.data)

    async def registered(self, number: int, option: int, children: list[Node]) -> Any:
        await edda.register_compensation(self.ctx, undo_saga, number)

    async def clock(self, number: int, option: int, children: list[Node]) -> Any:
        ctx = self.ctx
        return (str(ctx.now()), ctx.random().random(), str(ctx.uuid()))

    async def patched(self, number: int, option: int, children: list[Node]) -> Any:
        if self.ctx.patched(f"patch-{number}"):
            return await self.plain(number, option, children)
        return "old code"

    async def sleep(self, number: int, option: int, children: list[Node]) -> Any:
        await self._until(asyncio.sleep(SLEEPS[option]), SLEEPS[option])

    async def timer(self, number: int, option: int, children: list[Node]) -> Any:
        seconds = (0.0, 0.02, 0.1, 0.5, 1.05, 1.3)[option]
        await self._until(edda.wait_timer(self.ctx, seconds), seconds)

    async def long_timer(self, number: int, option: int, children: list[Node]) -> Any:
        await self._until(edda.sleep(self.ctx, 2.5 + option / 2), 2.5 + option / 2)

    async def _until(self, waiting: Any, seconds: float) -> None:
        began_us = round(self.ctx.now().timestamp() * 1_000_000)
        await waiting
        _notes().not_before(self.ctx.instance_id, began_us + round(seconds * 1_000_000))

    async def child_run(self, number: int, option: int, children: list[Node]) -> Any:
        return await kitchen_sink.run(self.seed * 7 + number, 2)

    async def child_start(self, number: int, option: int, children: list[Node]) -> Any:
        handle = await kitchen_sink.start(self.seed * 11 + number, 2)
        if option >= 2:
            await plain(self.ctx, number, option)
            return await handle.result()
        return str(handle)

    async def detached(self, number: int, option: int, children: list[Node]) -> Any:
        return str(await kitchen_sink.options(detached=True).start(self.seed * 13 + number, 2))

    async def fail(self, number: int, option: int, children: list[Node]) -> Any:
        raise Final_(f"at the end of {self.seed}")

    async def end(self, number: int, option: int, children: list[Node]) -> Any:
        results = [await asyncio.gather(task, return_exceptions=True) for task in self.spawned[: self.seed % 3]]
        return len(results)


def _told(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return f"[{', '.join(map(_told, error.exceptions))}]"
    return f"{type(error).__name__}: {error}"


@edda.workflow(name=SINK)
async def kitchen_sink(ctx: edda.WorkflowContext, seed: int, size: int) -> int:
    seen = _notes().entered_body(ctx.instance_id, ctx.worker_id)
    body = Body(ctx, seed, seen)
    await body.run(tree_of(seed, size))
    return len(seen)


assert all(inspect.iscoroutinefunction(getattr(Body, kind)) for kind in {*LEAVES, *RARE_LEAVES, *COMPOUNDS})
