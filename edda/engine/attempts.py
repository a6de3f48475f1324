"""Attempts: running the code of activities and compensations on the real loop, or in threads.

An attempt ends in an `Outcome`, handed to whoever asked for it; it is recorded there, not here. Only where the code
used `ctx.session` the record is written inside the attempt's own transaction, through the driver's `commit_inside`.

Laws: code runs in a fresh context with edda's variables only, never the starter's. What an attempt gets to see is what
a later one would see. SystemExit, KeyboardInterrupt and MemoryError are crashes of the process, not failures.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from edda.activity import Activity
from edda.context import ActivityInfo, NewEvent, WorkflowContext, current_run
from edda.core.history import HistoryEvent, InstanceId, WorkerId
from edda.core.routing import Criteria
from edda.engine.environment import DatabaseClock, Environment
from edda.engine.event_draft import EventDraft, checked
from edda.engine.log import log
from edda.engine.payload import check_size
from edda.engine.plans import Code
from edda.engine.starts import check_same_start, new_instance
from edda.engine.threads import DaemonThreads
from edda.exceptions import ActivityTimeoutError, EddaError, SessionUnavailableError
from edda.storage.port import Store, UserTransaction
from edda.workflow import App, StartOptions, Workflow, WorkflowHandle, current_app

if TYPE_CHECKING:
    from edda.engine.telemetry import RunningAttempt, Telemetry


UNCOUNTED_MAX: Final = 10
"""Times that a user's transaction lost to others is tried again at once, without counting as an attempt."""


class Order(Protocol):
    """What is to be run, as an attempt sees it (a `Step`)."""

    @property
    def call_id(self) -> str: ...
    @property
    def code(self) -> Code: ...
    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def kwargs(self) -> dict[str, Any]: ...
    @property
    def number(self) -> int:
        """Which attempt begins now, for `ctx.activity.attempt`."""
        ...


@dataclass(slots=True)
class Outcome:
    """How an attempt ended."""

    order: Order
    value: object = None
    error: BaseException | None = None
    interrupted: bool = False
    """It was cancelled by the engine and gave no answer."""
    duration_us: int = 0
    outbox: Sequence[EventDraft] = ()
    recorded: HistoryEvent | None = None
    """Its row, if it was committed already, inside the user's transaction."""


class Client(Protocol):
    """Who ordered an attempt."""

    instance_id: InstanceId
    workflow_name: str

    @property
    def claim(self) -> int: ...

    @property
    def trace(self) -> str | None:
        """The trace context that the attempt is a part of."""
        ...

    async def commit_inside(self, outcome: Outcome, transaction: UserTransaction) -> bool:
        """Record the outcome inside the user's transaction and commit it. False: the claim is lost.

        To be called between `take_turn` and `give_turn`.
        """
        ...

    async def take_turn(self) -> None:
        """Wait for this instance's turn to write; nothing else of it is written until `give_turn`."""
        ...

    def give_turn(self) -> None: ...

    def attempt_ended(self, outcome: Outcome) -> None: ...


class Attempts:
    """All attempts that run in this process, within their bounds."""

    def __init__(
        self,
        *,
        app: App,
        store: Store,
        worker: Callable[[], WorkerId],
        clock: DatabaseClock,
        environment: Environment,
        hooks: object | None,
        activities_max: int,
        threads: int,
        payload_bytes_max: int,
        on_crash: Callable[[MemoryError], None],
        telemetry: Telemetry | None = None,
    ) -> None:
        self.app = app
        self.store = store
        self.worker = worker
        self.clock = clock
        self.environment = environment
        self.hooks = hooks
        self.payload_bytes_max = payload_bytes_max
        self.on_crash = on_crash
        self.telemetry = telemetry
        self._activities_max = activities_max
        self._threads = threads
        self._pool: DaemonThreads | None = None
        self._running: set[Attempt] = set()
        self._queue: deque[Attempt] = deque()
        self._context = Context()
        """What the context of every attempt begins with."""
        self._context.run(current_app.set, app)

    def run(self, client: Client, order: Order) -> Attempt:
        """Start an attempt, or queue it where too many run."""
        attempt = Attempt(self, client, order)
        if len(self._running) < self._activities_max:
            self._start(attempt)
        else:
            self._queue.append(attempt)
        return attempt

    def _start(self, attempt: Attempt) -> None:
        self._running.add(attempt)
        attempt.task = asyncio.get_running_loop().create_task(attempt.execute(), context=self._context.copy())

    def ended(self, attempt: Attempt) -> None:
        """The place of an attempt is free."""
        self._running.discard(attempt)
        while self._queue and len(self._running) < self._activities_max:
            following = self._queue.popleft()
            if not following.dropped:
                self._start(following)

    def pool(self) -> DaemonThreads:
        if self._pool is None:
            self._pool = DaemonThreads(self._threads)
        return self._pool

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def current_trace(self) -> str | None:
        """The trace context of the code that runs now."""
        telemetry = self.telemetry
        return telemetry.tracing.current() if telemetry is not None and telemetry.tracing is not None else None

    async def stop(self) -> None:
        """Cancel what runs and leave the threads to themselves."""
        self._queue.clear()
        attempts = list(self._running)
        for attempt in attempts:
            attempt.forget()
        tasks = {attempt.task for attempt in attempts if attempt.task is not None}
        if tasks:
            await asyncio.wait(tasks, timeout=5)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


class Attempt:
    """One attempt, queued or running."""

    __slots__ = ("_attempts", "_client", "_entered", "_watched", "dropped", "interrupting", "order", "run", "task")

    def __init__(self, attempts: Attempts, client: Client, order: Order) -> None:
        self._attempts = attempts
        self._client = client
        self.order = order
        self.run = AttemptRun(attempts, client, order)
        self.task: asyncio.Task[None] | None = None
        self.dropped = False
        self.interrupting = False
        self._entered = False
        self._watched: RunningAttempt | None = None

    def interrupt(self) -> None:
        """Cancel the code. The outcome still comes."""
        if self.interrupting:
            return
        self.interrupting = True
        if self._entered:
            assert self.task is not None
            self.task.cancel()
        elif not self.dropped:
            self._leave_unentered()
            self._client.attempt_ended(Outcome(self.order, interrupted=True))

    def forget(self) -> None:
        """Cancel the code; nobody wants the outcome."""
        self.dropped = True
        if self._entered:
            assert self.task is not None
            self.task.cancel()
        else:
            self._leave_unentered()

    def _leave_unentered(self) -> None:
        """A task that is cancelled before its first step runs nothing of `execute`."""
        self.dropped = True
        if self.task is not None:
            self.task.cancel()
            self._attempts.ended(self)

    async def execute(self) -> None:
        self._entered = True
        current_run.set(self.run)
        steady_us = self._attempts.environment.steady_us
        began = steady_us()
        outcome = Outcome(self.order)
        if (telemetry := self._attempts.telemetry) is not None:
            self._watched = telemetry.attempt(self._client, self.order, worker=self._attempts.worker())
            self._watched.enter()
        try:
            again = await self._once(outcome, began)
            for _ in range(UNCOUNTED_MAX):
                if not again:
                    break
                outcome = Outcome(self.order)
                self.run.begin()
                again = await self._once(outcome, began)
            if outcome.error is not None:
                outcome.duration_us = steady_us() - began
            if not self.dropped:
                self._client.attempt_ended(outcome)
        except Exception:
            log.exception("an attempt broke down inside edda")
        finally:
            if self._watched is not None:
                self._watched.ended(outcome)
            self._attempts.ended(self)

    async def _once(self, outcome: Outcome, began: int) -> bool:
        """Run the code and fill in the outcome. True: it lost only to other transactions, run it again."""
        run, order = self.run, self.order
        try:
            code = order.code
            if code.is_async and code.timeout is None:  # as `_call`, but quicker
                args = (WorkflowContext(run), *order.args) if code.takes_context else order.args
                outcome.value = await code.function(*args, **order.kwargs)
            else:
                outcome.value = await self._call()
            outcome.duration_us = self._attempts.environment.steady_us() - began
            outcome.outbox = run.outbox
            transaction = run.transaction
            if transaction is not None and await transaction.flush():
                await run.take_turn()
                self.dropped = not await self._client.commit_inside(outcome, transaction)
        except asyncio.CancelledError:
            outcome.interrupted = self.interrupting or self.dropped
            if not outcome.interrupted:
                outcome.error = asyncio.CancelledError("the activity cancelled itself")
        except (SystemExit, KeyboardInterrupt):
            raise
        except MemoryError as error:
            self.dropped = True
            self._attempts.on_crash(error)
        except BaseException as error:
            outcome.error = error
        if run.transaction is None:
            return False
        if outcome.recorded is None:
            await _to_the_end(run.transaction.rollback())
        run.give_turn()
        if outcome.recorded is not None:
            return False
        return (
            outcome.error is not None
            and not self.interrupting
            and self._attempts.store.is_serialization_failure(outcome.error)
        )

    async def _call(self) -> object:
        order, code = self.order, self.order.code
        if not code.is_async:
            return await self._call_in_thread()
        args = (WorkflowContext(self.run), *order.args) if code.takes_context else order.args
        clock = asyncio.timeout(code.timeout)
        try:
            async with clock:
                return await code.function(*args, **order.kwargs)
        except TimeoutError as error:
            if clock.expired():
                raise self._timed_out() from error
            raise

    async def _call_in_thread(self) -> object:
        """A `def`. When it takes too long its thread keeps running, and keeps its place in the pool."""
        order, code = self.order, self.order.code
        args = (WorkflowContext(self.run), *order.args) if code.takes_context else order.args
        self.run.in_thread = True
        context = Context()
        context.run(current_run.set, self.run)
        context.run(current_app.set, self._attempts.app)
        if self._watched is not None:
            context.run(self._watched.enter)

        def call() -> object:
            return context.run(_call_for_a_future, code.function, *args, **order.kwargs)

        loop = asyncio.get_running_loop()
        working = loop.run_in_executor(self._attempts.pool(), call)
        try:
            value = await asyncio.wait_for(asyncio.shield(working), code.timeout)
        except TimeoutError as error:
            if working.done():
                raise
            working.add_done_callback(_retrieve)
            raise self._timed_out() from error
        if asyncio.iscoroutine(value):  # a lambda around an async function, say
            return await value
        return value

    def _timed_out(self) -> ActivityTimeoutError:
        return ActivityTimeoutError(
            f"Activity {self.order.code.name} ({self.order.call_id} of {self._client.instance_id}) took longer than "
            f"its timeout of {self.order.code.timeout} seconds"
        )


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for it however often we are cancelled meanwhile: an outcome must be told, and a connection given back."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    if (error := task.exception()) is not None:
        log.warning("a transaction could not be rolled back: %s", error)


def _retrieve(future: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more: do not let asyncio complain about its error."""
    if not future.cancelled():
        future.exception()


class AttemptRun:
    """The `Run` behind the context of an activity or compensation."""

    __slots__ = (
        "_attempts", "_client", "_has_turn", "_number", "_order", "_seeds", "_starts",
        "in_thread", "instance_id", "outbox", "transaction", "workflow_name",
    )  # fmt: skip

    def __init__(self, attempts: Attempts, client: Client, order: Order) -> None:
        self._attempts = attempts
        self._client = client
        self._order = order
        self._has_turn = False
        self._number = order.number
        self.instance_id = client.instance_id
        self.workflow_name = client.workflow_name
        self.in_thread = False
        self.transaction: UserTransaction | None = None
        self.outbox: Sequence[EventDraft] = ()
        self._starts = 0
        self._seeds = 0

    def begin(self) -> None:
        """A new attempt at the code: nothing of the one before is kept."""
        self.transaction = None
        self.outbox = ()
        self._starts = 0
        self._seeds = 0

    @property
    def worker_id(self) -> str:
        return self._attempts.worker()

    @property
    def claim(self) -> int:
        return self._client.claim

    @property
    def replaying(self) -> bool:
        return False

    @property
    def silent(self) -> bool:
        return False

    @property
    def attempt(self) -> ActivityInfo:
        return self.info

    @property
    def hooks(self) -> object | None:
        return self._attempts.hooks

    @property
    def executed(self) -> set[str]:
        return set()

    @property
    def info(self) -> ActivityInfo:
        return ActivityInfo(
            id=self._order.call_id,
            name=self._order.code.name,
            attempt=self._number,
            idempotency_key=f"{self.instance_id}/{self._order.call_id}",
        )

    @property
    def session(self) -> Any:
        if self.in_thread:
            raise SessionUnavailableError(
                f"ctx.session cannot be used in {self._order.code.name}(), which is a plain `def` and runs in a "
                "thread. Write it as `async def`."
            )
        if self.transaction is None:
            store = self._attempts.store
            self.transaction = store.transaction(
                self._attempts.worker(),
                label=f"{self._order.call_id} of {self.instance_id}",
                before_open=self.take_turn if store.sessions_exclude_writes else None,
            )
        return self.transaction.session

    async def take_turn(self) -> None:
        """Our instance's turn to write: always before the database's only writer, or each would wait for the other."""
        if not self._has_turn:
            await self._client.take_turn()
            self._has_turn = True

    def give_turn(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._client.give_turn()

    @property
    def in_transaction(self) -> bool:
        return self.transaction is not None and self.transaction.opened

    def savepoint(self) -> AbstractAsyncContextManager[None]:
        nested: AbstractAsyncContextManager[None] = self.session.begin_nested()
        return nested

    def now_us(self) -> int:
        return self._attempts.clock.at_most_us()

    def seed(self, purpose: str) -> bytes:
        self._seeds += 1
        return hashlib.sha256(f"{self.instance_id}\0{self._order.call_id}\0{purpose}\0{self._seeds}".encode()).digest()

    def patched(self, patch_id: str) -> bool:
        raise RuntimeError("ctx.patched() is for workflow functions; an activity is simply run as it is now")

    def activity(
        self, activity: Activity[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], *, call_id: str | None
    ) -> Coroutine[Any, Any, Any]:
        return self._inline(activity, args, kwargs)

    async def _inline(self, activity: Activity[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An activity called by an activity is part of it."""
        if activity.takes_context:
            args = (WorkflowContext(self), *args)
        if activity.is_async:
            return await activity.function(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(
            self._attempts.pool(), lambda: _call_for_a_future(activity.function, *args, **kwargs)
        )

    def timer(self, prefix: str, *, due_us: int, timer_id: str | None) -> Coroutine[Any, Any, None]:
        raise RuntimeError(f"{prefix}() is for workflow functions; in an activity use asyncio.sleep()")

    async def child(
        self, workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: StartOptions
    ) -> WorkflowHandle[Any]:
        """Started by an activity: no child, and a retry finds the instance that the attempt before started."""
        self._starts += 1
        instance_id = options.id or _started_id(workflow.name, self.instance_id, self._order.call_id, self._starts)
        chosen = StartOptions(id=instance_id, on_conflict=options.on_conflict)
        if self.transaction is None or not self.transaction.opened:
            return await self._attempts.app.start_instance(workflow, args, kwargs, chosen)
        new = new_instance(workflow, args, kwargs, id=instance_id)._replace(trace=self._attempts.current_trace())
        check_size(f"the input of workflow {workflow.name}", new.input, limit=self._attempts.payload_bytes_max)
        creation = await self.transaction.start(new)
        if not creation.created:
            check_same_start(new, creation, on_conflict=options.on_conflict)
        return WorkflowHandle(instance_id, self._attempts.app)

    def child_result(self, instance_id: str) -> Coroutine[Any, Any, Any]:
        return self._attempts.app.result_of(instance_id, timeout=None)

    def event(
        self, criteria: Criteria, *, model: Any, timeout_seconds: float | None, call_id: str | None
    ) -> Coroutine[Any, Any, Any]:
        raise RuntimeError("waiting for an event is for workflow functions; an activity holds a worker while it waits")

    async def send(self, event: NewEvent) -> str:
        data = checked(event, instance_id=self.instance_id)
        what = f"event '{event.type}', which {self._order.call_id} of {self.instance_id} sends,"
        check_size(what, data, limit=self._attempts.payload_bytes_max)
        event_id = str(UUID(hex=self._attempts.environment.sortable_id()))
        attempts = self._attempts
        draft = EventDraft(event_id, attempts.app.direct(event), data, attempts.current_trace())
        self.outbox = (*self.outbox, draft)
        return event_id

    def owe(
        self, compensation: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, call_id: str | None
    ) -> Coroutine[Any, Any, None]:
        raise EddaError(
            f"register_compensation() is for workflow functions; undo activity {self._order.code.name}() with "
            "@on_failure(...)"
        )


def _call_for_a_future(function: Callable[..., object], *args: object, **kwargs: object) -> object:
    """No future takes a StopIteration, so one that waits for it would never be done. A coroutine changes it, too."""
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        raise RuntimeError(f"{getattr(function, '__qualname__', function)}() raised StopIteration") from error


def _started_id(workflow: str, instance_id: str, call_id: str, number: int) -> str:
    digest = hashlib.sha256(f"{instance_id}\0{call_id}\0{number}".encode()).hexdigest()
    return f"{workflow}-{digest[:32]}"
