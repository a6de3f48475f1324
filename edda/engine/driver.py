"""The driver: one claimed instance, from claim to park or end.

It is a small machine without a task of its own. Everything that happens to the instance (a result, a timer, a wake, an
acknowledgement) schedules `_pump`, which steps the body to quiescence, makes one `Commit` of all it asked for, and acts
only when that is acknowledged.

Laws:
- One write is in flight per instance, so `seq` is given without gaps and completions reach the body in that order.
- No effect starts and no caller hears before the acknowledgement. A refused commit drops the body.
- Write, commit, then look: what another instance may have done is looked up only after our own wait is known.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from edda.core.commit import STAY, Commit, End, Park, RowChange, Undo, Verdict
from edda.core.history import CallId, HistoryEvent, InstanceId, Kind
from edda.core.journal import CallKind, Journal
from edda.core.lifecycle import LAST_EVENT, Status
from edda.core.retry import RetryPolicy, TryAgain
from edda.core.saga import UNDO_KEY, failed_for_good, owed, undoing
from edda.engine.attempts import Attempts, Outcome, OutboxDraft
from edda.engine.body_run import BodyRun, Call
from edda.engine.codec import decode_error, encode_error
from edda.engine.committer import Ack
from edda.engine.draft import Draft
from edda.engine.environment import DatabaseClock, Environment
from edda.engine.hook_queue import HookQueue
from edda.engine.plans import check_size, plan_of
from edda.engine.replies import NOTHING, Reply, activity_error, reply_to
from edda.engine.step import Step, exhausted_error
from edda.engine.undo import step_for
from edda.exceptions import (
    CompensationFailedError,
    EddaError,
    NondeterminismError,
    SerializationError,
    StorageError,
    WorkflowCancelledException,
)
from edda.storage.port import InstanceRow, UnknownOutcome, UserTransaction
from edda.workflow import App, Workflow

log = logging.getLogger("edda.engine")

SLICE_REPLIES: Final = 1000
"""Recorded completions replayed in one callback of the user's loop: about 10 ms."""

HOLD_US: Final = 1_000_000
"""A wait shorter than this is waited for in place: parking would cost two transactions."""

SETTLE_SECONDS: Final = 60.0
"""How long an attempt that cannot be interrupted, and has no timeout, is waited for when its workflow is over."""

_TERMINAL_KINDS: Final = frozenset(
    {Kind.WORKFLOW_COMPLETED, Kind.WORKFLOW_FAILED, Kind.COMPENSATION_STARTED, Kind.WORKFLOW_CANCELLED}
)


class TimerDue(NamedTuple):
    """A timer whose time has come."""

    timer_id: str
    due_us: int


class ChildEnded(NamedTuple):
    """A child that has ended, for the call that waits for it."""

    call: Call
    row: InstanceRow


Arrival = Outcome | TimerDue | ChildEnded

_CHILD_KINDS: Final = {
    Status.COMPLETED: Kind.CHILD_COMPLETED,
    Status.FAILED: Kind.CHILD_FAILED,
    Status.COMPENSATION_FAILED: Kind.CHILD_FAILED,
    Status.CANCELLED: Kind.CHILD_CANCELLED,
}


class Phase(Enum):
    BODY = "body"
    """The workflow function runs or waits."""
    SETTLING = "settling"
    """It is over; attempts that it left behind are still to end."""
    UNDOING = "undoing"
    OVER = "over"
    """Parked, ended or lost: this driver acts no more (a parked one may be resumed)."""


class House(Protocol):
    """What a driver needs of the worker that holds it."""

    app: App
    clock: DatabaseClock
    environment: Environment
    attempts: Attempts
    hooks: HookQueue
    observer: object | None
    default_retry_policy: RetryPolicy
    payload_bytes_max: int

    @property
    def id(self) -> str: ...
    def submit(self, commit: Commit, ack: Ack) -> None: ...
    def look_up_children(self, driver: Driver, ids: tuple[InstanceId, ...]) -> None: ...
    def released(self, driver: Driver, *, due_us: int | None, woken: bool) -> None: ...
    def ended(self, driver: Driver, end: End) -> None: ...
    def lost(self, driver: Driver) -> None: ...
    async def settle(self, commit: Commit) -> Verdict | None: ...


class Driver:
    """One instance while this worker holds its claim (and, parked, while its body stays resident)."""

    def __init__(self, house: House, row: InstanceRow, history: list[HistoryEvent], workflow: Workflow[..., Any]) -> None:
        self.instance_id = row.id
        self.workflow_name = row.workflow
        self.row = row
        self.claim = row.claim
        self.seen_wakes = row.wakes
        self.phase = Phase.BODY
        self.workflow = workflow
        self._house = house
        self._journal = Journal.of(history)
        self._draft = Draft(row.id, self._journal)
        self._draft.claim = row.claim
        self._body: BodyRun | None = None
        self._steps: dict[str, Step] = {}
        """Activities (or the compensation) under way, waiting for another attempt, or ready to begin."""
        self._timers: dict[str, Call] = {}
        self._child_waits: dict[str, tuple[Call, InstanceId]] = {}
        self._to_begin: list[Step] = []
        self._instants: dict[str, Call] = {}
        """Calls that are answered by being recorded, not yet answered."""
        self._calls: dict[str, Call] = {}
        """The body's calls, which outlive it."""
        self._arrived: deque[Arrival] = deque()
        self._running = 0
        self._cancel_requested = row.cancel_requested_at_us is not None
        self._writing = False
        self._slot_waiters: deque[asyncio.Future[None]] = deque()
        self._pump_scheduled = False
        self._alarm: asyncio.TimerHandle | None = None
        self._looked = True
        self._looking = False
        self._result: Reply = NOTHING
        self._cause: Status = Status.FAILED

    # -- from the worker ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start, or take up, the instance of a fresh claim."""
        if undoing(self._journal.events) is not None:
            self._take_up_undoing()
        elif self._cancel_requested and self._journal.started is None:
            self._turn_to_cancel()
        else:
            try:
                self._enter_body()
            except (SerializationError, EddaError, TypeError, ValueError) as error:
                self._set_aside(Status.QUARANTINED, error)
                return
        self._schedule()

    def resume(self, row: InstanceRow) -> None:
        """Go on with the resident body under a new claim, which directly follows the one given back."""
        assert row.claim == self.claim + 1, f"{row.id}: claim {row.claim} does not follow {self.claim}"
        self.row = row
        self.claim = self._draft.claim = row.claim
        self.seen_wakes = row.wakes
        self.phase = Phase.BODY
        self._cancel_requested = row.cancel_requested_at_us is not None
        self._house.hooks.call("on_workflow_start", self.instance_id, self.workflow_name, self._input_for_hooks())
        self._looked = False
        self._schedule()

    def notice(self, *, wakes: int, cancel_requested: bool) -> None:
        """Somebody woke or cancelled this instance while it runs here."""
        if wakes <= self.seen_wakes and not cancel_requested:
            return
        self.seen_wakes = max(self.seen_wakes, wakes)
        self._cancel_requested = self._cancel_requested or cancel_requested
        self._looked = False
        self._schedule()

    def children_looked_up(self, rows: dict[InstanceId, InstanceRow]) -> None:
        """The answer to `look_up_children`: those that have ended complete their waits."""
        for call, child in list(self._child_waits.values()):
            row = rows.get(child)
            if row is not None and row.status in _CHILD_KINDS:
                self._arrived.append(ChildEnded(call, row))
                del self._child_waits[call.id]
        self._looking = False
        self._schedule()

    def drop(self) -> None:
        """Forget everything: the claim is lost, or the worker ends."""
        self.phase = Phase.OVER
        self._disarm()
        for step in self._steps.values():
            if step.attempt is not None:
                step.attempt.forget()
        self._steps.clear()
        self._fail_slot_waiters()
        self.evict()

    def evict(self) -> None:
        """Unload the body; a later claim replays it."""
        body, self._body = self._body, None
        if body is not None:
            body.loop.evict()

    @property
    def result(self) -> object:
        """What the workflow function returned."""
        return self._result.value

    @property
    def error(self) -> BaseException | None:
        """What the workflow function raised."""
        return self._result.error

    @property
    def resident(self) -> bool:
        return self._body is not None

    @property
    def busy(self) -> bool:
        """Something is under way that a graceful shutdown should wait for."""
        return self._writing or self._running > 0

    # -- from attempts -----------------------------------------------------------------------------------------------

    def attempt_ended(self, outcome: Outcome) -> None:
        if self.phase is Phase.OVER:
            return
        self._arrived.append(outcome)
        self._schedule()

    async def commit_inside(self, outcome: Outcome, transaction: UserTransaction) -> bool:
        """Record a success inside the user's own transaction. Takes this instance's turn to write."""
        await self._turn_to_write()
        try:
            event, _ = self._record_success(self._steps[outcome.order.call_id], outcome)
            commit = self._draft.take(STAY)
            try:
                verdict = await transaction.commit(commit)
            except UnknownOutcome:
                settled = await self._house.settle(commit)
                if settled is None:
                    self._draft.restore(commit, without=frozenset({event.kind}))
                    raise StorageError(
                        f"the database did not answer the COMMIT of {outcome.order.call_id} of {self.instance_id}, and "
                        "nothing of it was written"
                    ) from None
                verdict = settled
            except BaseException:
                self._draft.restore(commit, without=frozenset({event.kind}))
                raise
        finally:
            self._writing = False
            self._next_turn()
        if verdict is not Verdict.COMMITTED:
            self._house.lost(self)
            return False
        outcome.value = event
        return True

    async def _turn_to_write(self) -> None:
        if self._writing or self._slot_waiters:
            waiter = asyncio.get_running_loop().create_future()
            self._slot_waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._next_turn()
                raise
        self._writing = True

    def _next_turn(self) -> None:
        """Whoever waits to write inside a transaction goes first; then the pump."""
        self._writing = False
        while self._slot_waiters:
            waiter = self._slot_waiters.popleft()
            if not waiter.done():
                self._writing = True  # reserved for it
                waiter.set_result(None)
                return
        self._schedule()

    def _fail_slot_waiters(self) -> None:
        for waiter in self._slot_waiters:
            waiter.cancel()
        self._slot_waiters.clear()

    # -- the pump ----------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._pump_scheduled and self.phase is not Phase.OVER:
            self._pump_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        if self._writing or self.phase is Phase.OVER:
            return
        try:
            if self.phase is Phase.BODY:
                self._pump_body()
            if self.phase is Phase.SETTLING:
                self._pump_settling()
            if self.phase is Phase.UNDOING and not self._writing:
                self._pump_undoing()
        except NondeterminismError as error:
            self._set_aside(Status.NONDETERMINISTIC, error)
        except SerializationError as error:
            self._set_aside(Status.QUARANTINED, error)

    def _enter_body(self) -> None:
        started = self._journal.started
        at_us = started.at_us if started is not None else self._house.clock.at_most_us()
        body = BodyRun(
            instance_id=self.instance_id,
            workflow=self.workflow,
            worker_id=self._house.id,
            app=self._house.app,
            hooks=self._house.observer,
            journal=self._journal,
            started_us=at_us,
        )
        body.enter(self.row.input)
        if started is None:
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            self._draft.record(Kind.WORKFLOW_STARTED, at_us=at_us, name=self.workflow_name, meta={"python": python})
        self._body = body
        self._calls = body.calls
        self._house.hooks.call("on_workflow_start", self.instance_id, self.workflow_name, self._input_for_hooks())

    def _input_for_hooks(self) -> dict[str, Any]:
        return plan_of(self.workflow).signature.by_name(self.row.input) if self._house.hooks.wants("on_workflow_start") else {}

    def _pump_body(self) -> None:
        body = self._body
        assert body is not None, f"{self.instance_id}: no body in its phase"
        if self._journal.replaying and not self._replay(body):
            self._schedule()
            return
        if self._cancel_requested:
            self._turn_to_cancel()
            return
        self._step_body(body)
        if body.loop.root.done():
            self._leave_body(body)
        elif self._draft.records and self._worth_writing():
            self._write(STAY)
        else:
            self._proceed()

    def _worth_writing(self) -> bool:
        """The row that says that the body was entered rides with the first real one."""
        return len(self._draft.records) > 1 or self._draft.records[0].kind != Kind.WORKFLOW_STARTED

    def _replay(self, body: BodyRun) -> bool:
        """Deliver recorded completions; False when a slice is full and there are more."""
        body.loop.quiet = True
        for _ in range(SLICE_REPLIES):
            body.loop.drain()
            self._collect(body)
            event = self._journal.next_completion()
            if event is None:
                break
            self._replay_one(body, event)
        if self._journal.replaying:
            return False
        body.loop.drain()
        self._collect(body)
        body.loop.quiet = False
        return True

    def _replay_one(self, body: BodyRun, event: HistoryEvent) -> None:
        if event.kind == Kind.TIMER_FIRED and event.name == "timer":
            self._fire_loop_timer(body, event)
            return
        call = body.call_for(event)
        self._forget_call(call)
        reply = reply_to(call, event)
        if call.activity is not None:
            self._compare_input(call, event)
            hooks = self._house.hooks
            if hooks.wants("on_activity_complete") and event.kind == Kind.ACTIVITY_COMPLETED:
                hooks.call("on_activity_complete", self.instance_id, call.id, call.name, reply.value, cache_hit=True)
        body.answer(event, call, reply.value, reply.error)

    def _fire_loop_timer(self, body: BodyRun, event: HistoryEvent) -> None:
        try:
            body.loop.fire(event.call_id, at_us=event.at_us)
        except LookupError:
            raise NondeterminismError(
                instance_id=self.instance_id, seq=event.seq, recorded=f"timer {event.call_id} fired", found="no such timer"
            ) from None

    def _compare_input(self, call: Call, event: HistoryEvent) -> None:
        """Arguments that changed are worth one warning: the recorded result belongs to the recorded arguments."""
        if event.input is None or event.input == call.input:
            return
        assert call.activity is not None and call.input is not None
        codec = plan_of(call.activity).signature
        if codec.by_name(event.input) != codec.by_name(call.input):
            log.warning(
                "%s of %s was recorded with arguments %s and is now called with %s; the recorded result is used",
                call.id, self.instance_id, event.input, call.input,
            )  # fmt: skip

    def _step_body(self, body: BodyRun) -> None:
        """Run the body to quiescence, delivering what has arrived one at a time."""
        body.loop.drain()
        while not body.loop.root.done():
            self._collect(body)
            if self._instants:
                self._perform(body, self._instants.pop(next(iter(self._instants))))
            elif self._arrived:
                self._deliver(body, self._arrived.popleft())
            else:
                return
            body.loop.drain()

    # -- calls -------------------------------------------------------------------------------------------------------

    def _collect(self, body: BodyRun) -> None:
        """Take up what the body asked for and gave up since the last drain. Nothing begins yet."""
        if body.asked:
            asked, body.asked = body.asked, []
            for call in asked:
                match call.kind:
                    case CallKind.ACTIVITY:
                        self._steps[call.id] = step = self._step_of(call)
                        self._to_begin.append(step)
                    case CallKind.TIMER:
                        self._timers[call.id] = call
                    case CallKind.CHILD_RESULT:
                        self._child_waits[call.id] = (call, InstanceId(call.target))
                        self._looked = False
                    case _:
                        self._instants[call.id] = call
        if body.abandoned:
            abandoned, body.abandoned = body.abandoned, []
            for call in abandoned:
                self._give_up(call)
        if body.new_patches:
            for patch in body.new_patches:
                self._draft.record(Kind.PATCHED, at_us=body.loop.now_us, call_id=patch, name=patch)
            body.new_patches.clear()

    def _step_of(self, call: Call) -> Step:
        activity = call.activity
        assert activity is not None and call.input is not None
        args, kwargs = plan_of(activity).copy_arguments(call.input, call.args, call.kwargs)
        step = Step(
            call_id=call.id,
            name=call.name,
            function=activity.function,
            is_async=activity.is_async,
            takes_context=activity.takes_context,
            args=args,
            kwargs=kwargs,
            timeout=activity.timeout,
            policy=activity.retry_policy or self._house.default_retry_policy,
            interruptible=activity.on_failure is None and activity.is_async,
            crashes=self.row.crashes,
        )
        if failures := self._journal.failures.get(call.id):
            step.resume(failures)
        return step

    def _forget_call(self, call: Call) -> None:
        """Its answer is known: nothing is to be done for it any more."""
        match call.kind:
            case CallKind.ACTIVITY:
                self._steps.pop(call.id, None)
            case CallKind.TIMER:
                self._timers.pop(call.id, None)
            case CallKind.CHILD_RESULT:
                self._child_waits.pop(call.id, None)
            case _:
                self._instants.pop(call.id, None)

    def _give_up(self, call: Call) -> None:
        """The body cancelled a call. Its attempt is cancelled, unless it will have to be undone: then its end counts."""
        step = self._steps.get(call.id)
        if step is None or step.attempt is None:
            self._forget_call(call)
        elif step.interruptible:
            step.attempt.interrupt()

    def _perform(self, body: BodyRun, call: Call) -> None:
        """Answer a call that completes by being recorded: a child's start, an event sent, a compensation owed."""
        at_us = self._house.clock.at_most_us()
        meta: dict[str, Any] | None = None
        match call.kind:
            case CallKind.CHILD_START:
                assert call.child is not None
                self._draft.children.append(call.child)
                meta = {"instance_id": call.child.id, "detached": call.child.detached}
                kind = Kind.CHILD_STARTED
            case CallKind.EVENT_SEND:
                event_id = self._send(call, at_us)
                meta = {"id": event_id}
                kind = Kind.EVENT_SENT
            case _:
                meta = {UNDO_KEY: call.name}
                kind = Kind.COMPENSATION_REGISTERED
        event = self._draft.record(kind, at_us=at_us, call_id=call.id, name=call.name, input=call.input, meta=meta)
        body.answer(event, call, reply_to(call, event).value, None)

    def _send(self, call: Call, at_us: int) -> str:
        assert call.sent is not None
        event_type, source, data, content_type = call.sent
        draft = OutboxDraft(
            id=str(UUID(hex=self._house.environment.sortable_id())),
            type=event_type,
            source=source,
            data=data,
            content_type=content_type,
        )
        self._post([draft], seq=self._journal.next_seq, at_us=at_us)
        return draft.id

    def _post(self, drafts: list[OutboxDraft], *, seq: int, at_us: int) -> None:
        for ordinal, draft in enumerate(drafts):
            self._draft.outbox.append(
                draft.message(instance_id=self.instance_id, seq=seq, ordinal=ordinal, at_us=at_us)
            )

    # -- completions -------------------------------------------------------------------------------------------------

    def _deliver(self, body: BodyRun, arrival: Arrival) -> None:
        """Record one thing that happened, and tell the body where it answers a call."""
        if isinstance(arrival, TimerDue):
            self._deliver_timer(body, arrival)
        elif isinstance(arrival, Outcome):
            recorded = self._record_outcome(arrival)
            if recorded is not None:
                event, reply = recorded
                body.answer(event, self._calls[event.call_id], reply.value, reply.error)
        else:
            event = self._record_child_end(arrival)
            reply = reply_to(arrival.call, event)
            body.answer(event, arrival.call, reply.value, reply.error)

    def _deliver_timer(self, body: BodyRun, arrival: TimerDue) -> None:
        """A timer of ours, or one of the body's own loop; one that was cancelled meanwhile leaves no trace."""
        at_us = max(arrival.due_us, self._house.clock.at_most_us())
        call = self._timers.pop(arrival.timer_id, None)
        if call is not None:
            event = self._draft.record(Kind.TIMER_FIRED, at_us=at_us, call_id=call.id, name=call.name)
            body.answer(event, call, None, None)
        elif arrival.timer_id in body.loop.timers():
            self._draft.record(Kind.TIMER_FIRED, at_us=at_us, call_id=arrival.timer_id, name="timer")
            body.loop.fire(arrival.timer_id, at_us=at_us)

    def _record_outcome(self, outcome: Outcome) -> tuple[HistoryEvent, Reply] | None:
        """Turn the end of an attempt into a row. None: the body hears nothing (interrupted, or tried again)."""
        self._running -= 1
        step = self._steps.get(outcome.order.call_id)
        if step is None:
            return None
        step.attempt = None
        call = self._calls[step.call_id]
        if outcome.error is not None:
            return self._record_failure(step, outcome)
        del self._steps[step.call_id]
        if outcome.recorded:  # inside the user's transaction
            event = outcome.value
            assert isinstance(event, HistoryEvent)
            return event, reply_to(call, event)
        if outcome.interrupted:
            if self._cancel_requested:
                self._record_unknown(call)
            return None
        return self._record_success(step, outcome)

    def _record_success(self, step: Step, outcome: Outcome) -> tuple[HistoryEvent, Reply]:
        call = self._calls[step.call_id]
        assert call.activity is not None
        at_us = self._house.clock.at_most_us()
        meta: dict[str, Any] = {}
        output: str | None = None
        blob: bytes | None = None
        try:
            stored, value = plan_of(call.activity).signature.result.roundtrip(outcome.value)
            check_size(stored, limit=self._house.payload_bytes_max, what=f"the result of {call.id} of {self.instance_id}")
            output, blob = stored.text, stored.blob
            reply = Reply(value)
        except SerializationError as error:
            meta["unstorable"] = str(error)
            reply = Reply(error=error)
        if call.activity.on_failure is not None:
            meta[UNDO_KEY] = call.activity.on_failure.compensation.name
        if step.errors:
            meta["retry_metadata"] = step.metadata(exhausted=False, succeeded=True)
        if outcome.outbox:
            self._post(outcome.outbox, seq=self._journal.next_seq, at_us=at_us)
        event = self._draft.record(
            Kind.ACTIVITY_COMPLETED,
            at_us=at_us,
            call_id=call.id,
            name=call.name,
            input=call.input,
            output=output,
            blob=blob,
            meta=meta or None,
        )
        self._house.hooks.call(
            "on_activity_complete", self.instance_id, call.id, call.name, reply.value, cache_hit=False
        )
        return event, reply

    def _record_failure(self, step: Step, outcome: Outcome) -> tuple[HistoryEvent, Reply] | None:
        error = outcome.error
        assert error is not None
        at_us = self._house.clock.at_most_us()
        decision = step.failed(error, duration_us=outcome.duration_us, at_us=at_us)
        text = encode_error(error)
        if isinstance(decision, TryAgain):
            self._record_failed_attempt(Kind.ACTIVITY_ATTEMPT_FAILED, step, outcome, decision, text, at_us)
            return None
        del self._steps[step.call_id]
        event = self._draft.record(
            Kind.ACTIVITY_FAILED,
            at_us=at_us,
            call_id=step.call_id,
            name=step.name,
            input=self._calls[step.call_id].input,
            output=text,
            meta={"retry_metadata": step.metadata(exhausted=decision.exhausted, succeeded=False)},
        )
        self._house.hooks.call("on_activity_failed", self.instance_id, step.call_id, step.name, error)
        return event, Reply(error=activity_error(event))

    def _record_failed_attempt(
        self, kind: Kind, step: Step, outcome: Outcome, decision: TryAgain, text: str, at_us: int
    ) -> None:
        self._draft.record(
            kind,
            at_us=at_us,
            call_id=step.call_id,
            name=step.name,
            output=text,
            meta={"error": step.errors[-1], "duration_us": outcome.duration_us, "delay_us": decision.delay_us},
        )
        delay = decision.delay_us / 1_000_000
        self._house.hooks.call(
            "on_activity_retry", self.instance_id, step.call_id, step.name, outcome.error, len(step.errors), delay
        )

    def _record_unknown(self, call: Call) -> None:
        """Cancelled without an answer: its effect may have happened, and people should know."""
        on_failure = call.activity.on_failure if call.activity is not None else None
        undo = on_failure.compensation.name if on_failure is not None and on_failure.when_unknown else None
        self._draft.record(
            Kind.ACTIVITY_UNKNOWN,
            at_us=self._house.clock.at_most_us(),
            call_id=call.id,
            name=call.name,
            input=call.input,
            meta={UNDO_KEY: undo} if undo else None,
        )

    def _record_child_end(self, arrival: ChildEnded) -> HistoryEvent:
        call, row = arrival.call, arrival.row
        return self._draft.record(
            _CHILD_KINDS[row.status],
            at_us=self._house.clock.at_most_us(),
            call_id=call.id,
            name=call.name,
            output=row.output if row.status is Status.COMPLETED else row.error,
            blob=row.blob,
            meta={"workflow": row.workflow, "instance_id": row.id},
        )

    # -- waiting -----------------------------------------------------------------------------------------------------

    def _proceed(self) -> None:
        """Everything asked for is durable (or needs no record): begin it, or wait."""
        if self._collect_due():
            self._schedule()
            return
        if self._to_begin:
            begin, self._to_begin = self._to_begin, []
            for step in begin:
                if self._steps.get(step.call_id) is step and step.due_us is None and step.attempt is None:
                    self._begin(step)
        if self._child_waits and not self._looked and not self._looking:
            self._looked = self._looking = True
            self._house.look_up_children(self, tuple(child for _, child in self._child_waits.values()))
        self._wait_or_park()

    def _begin(self, step: Step) -> None:
        self._running += 1
        step.attempt = self._house.attempts.run(self, step.order())
        self._house.hooks.call("on_activity_start", self.instance_id, step.call_id, step.name, False)

    def _collect_due(self) -> bool:
        """Move what is due to where the pump finds it. True: there is something to deliver."""
        now = self._house.clock.at_least_us()
        due: list[TimerDue] = []
        if self._timers:
            due += [TimerDue(call.id, call.due_us) for call in self._timers.values() if call.due_us <= now]
        if self._body is not None and self._phase_is_body:
            due += [TimerDue(timer, at) for timer, at in self._body.loop.timers().items() if at <= now]
        due.sort(key=lambda timer: timer.due_us)
        self._arrived.extend(due)
        for step in self._steps.values():
            if step.due_us is not None and step.due_us <= now and step.attempt is None:
                step.due_us = None
                self._to_begin.append(step)
        return bool(due)

    @property
    def _phase_is_body(self) -> bool:
        return self.phase is Phase.BODY

    def _earliest_due(self) -> int | None:
        times = [call.due_us for call in self._timers.values()]
        times += [step.due_us for step in self._steps.values() if step.due_us is not None]
        if self._body is not None and (timer := self._body.loop.next_timer()) is not None:
            times.append(timer[1])
        return min(times, default=None)

    def _wait_or_park(self) -> None:
        due = self._earliest_due()
        if self._running or self._arrived or self._looking or self._to_begin:
            self._arm(due)
            return
        if due is None and not self._child_waits:
            self._set_aside(Status.QUARANTINED, self._nothing_to_wait_for())
            return
        hold_us = 0 if self._house.environment.always_evict else HOLD_US
        if due is not None and due - self._house.clock.at_least_us() < hold_us:
            self._arm(due)
            return
        status, reason = self._wait_in_words(due)
        self._write(Park(status=status, reason=reason, due_us=due, seen_wakes=self.seen_wakes))

    def _nothing_to_wait_for(self) -> EddaError:
        frozen = self._body is not None and self._body.loop.frozen
        return EddaError(
            f"Workflow instance '{self.instance_id}' "
            + ("spins: it polls for something" if frozen else "waits for something")
            + " that no activity, timer or child of it can bring about. Correct the code, then call handle.retry()."
        )

    def _wait_in_words(self, due: int | None) -> tuple[Status, str]:
        if self.phase is Phase.UNDOING:
            return Status.COMPENSATING, "retry of " + ", ".join(self._steps)
        if self._steps:
            return Status.RUNNING, "retry of " + ", ".join(self._steps)
        if self._child_waits:
            children = ", ".join(sorted({child for _, child in self._child_waits.values()}))
            return Status.RUNNING, f"child {children}"[:255]
        names = list(self._timers) or (list(self._body.loop.timers()) if self._body is not None else [])
        return Status.WAITING_FOR_TIMER, ("timer " + ", ".join(names))[:255]

    def _arm(self, due_us: int | None) -> None:
        """Look again when the earliest wait is due."""
        self._disarm()
        if due_us is not None:
            delay = (due_us - self._house.clock.at_least_us()) / 1_000_000
            self._alarm = asyncio.get_running_loop().call_later(max(delay, 0), self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._collect_due()
        if self._arrived or self._to_begin:
            self._schedule()
        else:
            self._arm(self._earliest_due())

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(
        self, row: RowChange, *, wakes: tuple[InstanceId, ...] = (), cancels: tuple[InstanceId, ...] = ()
    ) -> None:
        self._disarm()
        commit = self._draft.take(row, wakes=wakes, cancels=cancels)
        self._writing = True
        self._house.submit(commit, lambda verdict: self._acknowledged(commit, verdict))

    def _acknowledged(self, commit: Commit, verdict: Verdict | StorageError) -> None:
        self._writing = False
        if self.phase is Phase.OVER:
            return
        if isinstance(verdict, StorageError):
            self._refused(commit, verdict)
        elif verdict is Verdict.CLAIM_LOST:
            self._house.lost(self)
        elif verdict is Verdict.CANCEL_FIRST:
            self._draft.restore(commit, without=_TERMINAL_KINDS)
            self._cancel_requested = True
            self._cause = Status.CANCELLED
            self._result = Reply(error=WorkflowCancelledException(instance_id=self.instance_id))
            self.phase = Phase.SETTLING
            self._schedule()
        else:
            self._written(commit, woken=verdict is Verdict.WOKEN)

    def _written(self, commit: Commit, *, woken: bool) -> None:
        match commit.row:
            case Park(due_us=due_us):
                self.phase = Phase.OVER
                self._house.released(self, due_us=due_us, woken=woken)
            case End() as end:
                self.phase = Phase.OVER
                self.evict()
                self._fail_slot_waiters()
                self._house.ended(self, end)
            case Undo():
                self.phase = Phase.UNDOING
                self._next_turn()
            case _:
                self._next_turn()

    def _refused(self, commit: Commit, error: StorageError) -> None:
        """The database will not have it, whatever we do: set the instance aside with the reason."""
        log.error("the database refuses what %s wants to write: %s", self.instance_id, error)
        if isinstance(commit.row, End) and commit.row.status is Status.QUARANTINED:
            self._house.lost(self)
            return
        self._journal.withdraw(len(commit.records))
        self._set_aside(Status.QUARANTINED, error)

    def _set_aside(self, status: Status, error: BaseException) -> None:
        """Park it visibly, writing no history. A cancel needs no body: what is owed stands in history."""
        self._journal.withdraw(len(self._draft.records))
        self._draft.take(STAY)
        self._abandon_calls()
        self.evict()
        if self._cancel_requested and self.phase is Phase.BODY:
            self._cause = Status.CANCELLED
            self._result = Reply(error=WorkflowCancelledException(instance_id=self.instance_id))
            self.phase = Phase.SETTLING
            self._schedule()
            return
        log.error("workflow instance %s is set aside as %s: %s", self.instance_id, status, error)
        self._write(End(status=status, error=encode_error(error)))

    # -- the end of the body -----------------------------------------------------------------------------------------

    def _leave_body(self, body: BodyRun) -> None:
        """The workflow function has returned or raised."""
        root = body.loop.root
        error: BaseException | None
        if root.cancelled():
            error = asyncio.CancelledError("the workflow function cancelled itself")
        else:
            error = root.exception()
        self._result = Reply(error=error) if error is not None else Reply(root.result())
        self._cause = Status.FAILED
        self.phase = Phase.SETTLING
        self.evict()
        self._abandon_calls()

    def _turn_to_cancel(self) -> None:
        """A cancel was accepted: the body is unloaded, and what was under way is brought to an end."""
        if self.row.crashes:
            for step in self._steps.values():
                if step.attempt is None:  # it may have been under way when the worker died
                    self._record_unknown(self._calls[step.call_id])
        self._cause = Status.CANCELLED
        self._result = Reply(error=WorkflowCancelledException(instance_id=self.instance_id))
        self.phase = Phase.SETTLING
        self.evict()
        self._abandon_calls()
        self._schedule()

    def _abandon_calls(self) -> None:
        """Nobody waits for them any more. An attempt that may have to be undone is waited for; others are cancelled."""
        self._timers.clear()
        self._child_waits.clear()
        self._instants.clear()
        self._to_begin.clear()
        patience = 0.0
        for step in list(self._steps.values()):
            if step.attempt is None:
                del self._steps[step.call_id]
            elif step.interruptible:
                step.attempt.interrupt()
            else:
                patience = max(patience, step.timeout or SETTLE_SECONDS)
        if patience:
            self._disarm()
            self._alarm = asyncio.get_running_loop().call_later(patience, self._stop_waiting)

    def _stop_waiting(self) -> None:
        """Attempts that still have not ended: nobody will know what they did."""
        for step in list(self._steps.values()):
            if step.attempt is not None:
                step.attempt.forget()
                self._running -= 1
                self._record_unknown(self._calls[step.call_id])
                del self._steps[step.call_id]
        self._schedule()

    def _pump_settling(self) -> None:
        while self._arrived:
            arrival = self._arrived.popleft()
            if isinstance(arrival, Outcome):
                self._settle_outcome(arrival)
        if not self._running:
            self._conclude()
        elif self._draft.records and self._worth_writing():
            self._write(STAY)

    def _settle_outcome(self, outcome: Outcome) -> None:
        """An attempt that the body left behind: only a success, or a doubt, is worth a record."""
        if outcome.error is not None:
            self._running -= 1
            self._steps.pop(outcome.order.call_id, None)
        else:
            self._record_outcome(outcome)

    def _conclude(self) -> None:
        """Nothing runs any more: end, or begin to undo."""
        self._disarm()
        if self._result.error is None:
            try:
                self._complete()
                return
            except SerializationError as error:
                self._result = Reply(error=error)
        error = self._result.error
        assert error is not None
        if isinstance(error, WorkflowCancelledException) and self._cause is Status.CANCELLED:
            error.unknown = tuple(e.call_id for e in self._journal.events if e.kind == Kind.ACTIVITY_UNKNOWN)
        text = encode_error(error)
        at_us = self._house.clock.at_most_us()
        if owed(self._journal.events):
            self._draft.record(
                Kind.COMPENSATION_STARTED, at_us=at_us, name=self.workflow_name, output=text, meta={"cause": self._cause}
            )
            self._write(Undo(for_cancel=self._cause is Status.CANCELLED), cancels=self._children_to_cancel())
        else:
            self._draft.record(LAST_EVENT[self._cause], at_us=at_us, name=self.workflow_name, output=text)
            end = End(status=self._cause, error=text, unless_cancelled=self._cause is Status.FAILED)
            self._write(end, wakes=self._parent(), cancels=self._children_to_cancel())

    def _complete(self) -> None:
        what = f"the result of workflow instance {self.instance_id}"
        stored = plan_of(self.workflow).signature.result.encode(self._result.value)
        check_size(stored, limit=self._house.payload_bytes_max, what=what)
        self._draft.record(
            Kind.WORKFLOW_COMPLETED,
            at_us=self._house.clock.at_most_us(),
            name=self.workflow_name,
            output=stored.text,
            blob=stored.blob,
        )
        end = End(status=Status.COMPLETED, output=stored.text, blob=stored.blob, unless_cancelled=True)
        self._write(end, wakes=self._parent())

    def _parent(self) -> tuple[InstanceId, ...]:
        return (self.row.parent_id,) if self.row.parent_id is not None else ()

    def _children_to_cancel(self) -> tuple[InstanceId, ...]:
        """The children that this instance started and that were not told to survive it."""
        children: list[InstanceId] = []
        for event in self._journal.events:
            if event.kind == Kind.CHILD_STARTED:
                details = event.details()
                if not details["detached"]:
                    children.append(InstanceId(details["instance_id"]))
        return tuple(children)

    # -- undoing -----------------------------------------------------------------------------------------------------

    def _take_up_undoing(self) -> None:
        begun = undoing(self._journal.events)
        assert begun is not None
        self._cause = Status(begun.details()["cause"])
        self._result = Reply(error=decode_error(begun.output or "{}"))
        self.phase = Phase.UNDOING

    def _pump_undoing(self) -> None:
        """One compensation after the other, newest first; each is a durable step."""
        while self._arrived:
            arrival = self._arrived.popleft()
            assert isinstance(arrival, Outcome)
            self._record_undone(arrival)
        if not self._steps:
            still_owed = owed(self._journal.events)
            if not still_owed:
                self._conclude_undoing()
                return
            try:
                step = step_for(still_owed[0], default_policy=self._house.default_retry_policy, crashes=self.row.crashes)
            except Exception as error:  # whatever a codec or a signature of today says to arguments of yesterday
                self._record_undo_failure(still_owed[0].call_id, still_owed[0].compensation, encode_error(error), {})
                self._write(STAY)
                return
            self._steps[step.call_id] = step
            self._to_begin.append(step)
        if self._draft.records:
            self._write(STAY)
        else:
            self._proceed()

    def _record_undone(self, outcome: Outcome) -> None:
        self._running -= 1
        step = self._steps[outcome.order.call_id]
        step.attempt = None
        at_us = self._house.clock.at_most_us()
        error = asyncio.CancelledError("interrupted") if outcome.interrupted else outcome.error
        if error is not None:
            decision = step.failed(error, duration_us=outcome.duration_us, at_us=at_us)
            if isinstance(decision, TryAgain):
                self._record_failed_attempt(
                    Kind.COMPENSATION_ATTEMPT_FAILED, step, outcome, decision, encode_error(error), at_us
                )
                return
            del self._steps[step.call_id]
            metadata = step.metadata(exhausted=decision.exhausted, succeeded=False)
            self._record_undo_failure(step.call_id, step.name, encode_error(error), {"retry_metadata": metadata})
            return
        del self._steps[step.call_id]
        if outcome.outbox:
            self._post(outcome.outbox, seq=self._journal.next_seq, at_us=at_us)
        self._draft.record(Kind.COMPENSATION_EXECUTED, at_us=at_us, call_id=step.call_id, name=step.name)

    def _record_undo_failure(self, call_id: str, name: str, error: str, meta: dict[str, Any]) -> None:
        at_us = self._house.clock.at_most_us()
        self._draft.record(
            Kind.COMPENSATION_FAILED, at_us=at_us, call_id=call_id, name=name, output=error, meta=meta or None
        )
        log.error("compensation %s (%s) of %s failed for good", name, call_id, self.instance_id)

    def _conclude_undoing(self) -> None:
        failed = failed_for_good(self._journal.events)
        error = self._result.error
        assert error is not None
        status = Status.COMPENSATION_FAILED if failed else self._cause
        if failed:
            cause = error
            error = CompensationFailedError(
                f"Workflow instance '{self.instance_id}' ended as {self._cause} ({type(cause).__name__}: {cause}), and "
                f"could not undo {', '.join(failed)}; handle.retry() runs again what is owed",
                instance_id=self.instance_id,
                failed=failed,
            )
            error.__cause__ = cause
        text = encode_error(error)
        at_us = self._house.clock.at_most_us()
        self._draft.record(LAST_EVENT[status], at_us=at_us, name=self.workflow_name, output=text)
        self._write(End(status=status, error=text), wakes=self._parent())
