"""The driver: one claimed instance, from claim to park or end.

It is a small machine without a task of its own. Everything that happens to the instance (a result, a timer, a wake, an
acknowledgement) schedules `_pump`; the phase it is in decides; the driver writes one `Commit`, and acts only when that
is acknowledged.

Laws:
- One write is in flight per instance, so `seq` is given without gaps and completions reach the body in that order.
- No effect starts and no caller hears before the acknowledgement. A refused commit drops the body.
- Write, commit, then look: what another instance may have done is looked up only after our own wait is known.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from edda.core.commit import STAY, Commit, End, Park, Undo, Verdict
from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.lifecycle import Status
from edda.core.saga import undoing
from edda.engine.attempts import Outcome
from edda.engine.body_phase import BodyPhase
from edda.engine.codec import decode_error, encode_error
from edda.engine.draft import News
from edda.engine.event_waits import Question
from edda.engine.house import House
from edda.engine.instance import Instance, Survivor, about
from edda.engine.log import log
from edda.engine.phases import Pause, Phase, Write
from edda.engine.plans import plan_of
from edda.engine.records import record_start, record_success, record_unknown
from edda.engine.replies import NOTHING, Reply
from edda.engine.settling import SettlingPhase
from edda.engine.undoing import UndoingPhase
from edda.exceptions import EddaError, NondeterminismError, SerializationError, StorageError
from edda.storage.inbox import InboxEvent
from edda.storage.port import InstanceRow, UnknownOutcome, UserTransaction
from edda.workflow import Workflow

HOLD_US: Final = 1_000_000
"""A wait shorter than this is waited for in place: parking would cost two transactions."""

SUSPECT_CRASHES: Final = 2
"""From so many crashes on an instance is a suspect."""

TRUST_SECONDS: Final = 0.05
"""Between looks whether a lease that had run out by our own clock was renewed after all."""

REFUSED_AGAIN_SECONDS: Final = 5.0
"""Between attempts to set an instance aside that the database refuses to set aside."""

_ENDINGS: Final = frozenset({Kind.WORKFLOW_COMPLETED, Kind.WORKFLOW_FAILED, Kind.COMPENSATION_STARTED})
"""Rows that a commit refused with CANCEL_FIRST does not get a second time."""


_AFTER_BODY: Final = (SettlingPhase, UndoingPhase)


class Driver:
    """One instance while this worker holds its claim and, parked, while its body stays resident."""

    def __init__(
        self,
        house: House,
        row: InstanceRow,
        history: list[HistoryEvent],
        workflow: Workflow[..., Any],
        survivors: dict[str, Survivor],
    ) -> None:
        self.instance_id = row.id
        self.workflow_name = row.workflow
        self.over = False
        """Parked, ended or lost: it acts no more, unless a parked one is resumed."""
        self._house = house
        self._instance = Instance(house, row, history, workflow)
        self._instance.survivors = survivors
        self._phase: Phase | None = None
        self._writing = False
        self._slot_waiters: deque[asyncio.Future[None]] = deque()
        self._pump_scheduled = False
        self._alarm: asyncio.TimerHandle | None = None
        self._cleared = False
        self._in_flight: Commit | None = None
        self._news: Sequence[News] = ()
        """To be told when what is in flight is durable."""

    # -- what the worker sees ----------------------------------------------------------------------------------------

    @property
    def claim(self) -> int:
        return self._instance.claim

    @property
    def trace(self) -> str | None:
        return self._instance.trace

    @property
    def row(self) -> InstanceRow:
        return self._instance.row

    @property
    def outcome(self) -> Reply:
        """What the workflow function returned or raised."""
        return self._phase.result if isinstance(self._phase, _AFTER_BODY) else NOTHING

    def about(self) -> dict[str, object]:
        """The fields of a line of the log that concerns it."""
        return about(self._instance)

    def _error_of(self, end: End) -> BaseException | None:
        if end.status is Status.COMPLETED or end.error is None:
            return None
        return self.outcome.error or decode_error(end.error)

    @property
    def suspect(self) -> bool:
        """Two workers died with it, and it has written nothing since: the only one of its kind in this process."""
        return self.row.crashes >= SUSPECT_CRASHES and not self._cleared

    @property
    def resident(self) -> bool:
        return isinstance(self._phase, BodyPhase)

    @property
    def busy(self) -> bool:
        """Something is under way that a graceful shutdown should wait for."""
        return self._writing or self._instance.steps.running > 0

    def begin(self) -> None:
        """Start, or take up, the instance of a fresh claim."""
        instance = self._instance
        if (telemetry := self._house.telemetry) is not None:
            instance.slice = telemetry.slice(instance.row, instance.journal.events, worker=self._house.id)
        begun = undoing(instance.journal.events)
        if begun is not None:
            if instance.row.status is not Status.COMPENSATING:  # set aside in the middle of it, and cancelled since
                self._write(Write(row=Undo(for_cancel=True)))
                return
            self._phase = UndoingPhase(instance, begun)
        elif instance.cancel_requested and instance.journal.started is None:
            self._enter(SettlingPhase.cancelling(instance))
        else:
            try:
                self._phase = BodyPhase(instance)
            except Exception as error:  # the input does not fit today's code
                self._set_aside(Status.QUARANTINED, self._unfit(error))
                return
            self._call_start_hook()
        self._schedule()

    def _unfit(self, error: Exception) -> EddaError:
        why = EddaError(
            f"the stored input of workflow instance {self.instance_id} does not fit today's {self.workflow_name}(): "
            f"{error}. Deploy code that accepts it, then call handle.retry()"
        )
        why.__cause__ = error
        return why

    def resume(self, row: InstanceRow) -> None:
        """Go on with the resident body under a new claim, which directly follows the one given back."""
        assert isinstance(self._phase, BodyPhase), f"{row.id}: resumed without a body"
        instance = self._instance
        instance.reclaimed(row)
        if (telemetry := self._house.telemetry) is not None:
            instance.slice = telemetry.slice(row, (), worker=self._house.id, before=instance.slice)
        self.over = False
        self._phase.woken()
        self._call_start_hook()
        self._schedule()

    def notice(self, *, wakes: int, cancel_requested: bool) -> None:
        """Somebody woke or cancelled this instance while it runs here."""
        instance = self._instance
        if wakes <= instance.seen_wakes and not cancel_requested:
            return
        instance.seen_wakes = max(instance.seen_wakes, wakes)
        instance.cancel_requested = instance.cancel_requested or cancel_requested
        if isinstance(self._phase, BodyPhase):
            self._phase.woken()
        self._schedule()

    def clock_moved(self) -> None:
        """Something may be due now."""
        self._schedule()

    def children_looked_up(self, rows: dict[InstanceId, InstanceRow]) -> None:
        """The answer to `look_up_children`."""
        if isinstance(self._phase, BodyPhase):
            self._phase.children_looked_up(rows)
        self._schedule()

    def inbox_answered(self, found: list[InboxEvent], *, question: Question) -> None:
        """The answer to `ask_inbox`."""
        if isinstance(self._phase, BodyPhase):
            self._phase.inbox_answered(found, question=question)
        self._schedule()

    def survivors(self) -> dict[str, Survivor]:
        """What activities have done that was never acknowledged; to be asked when the worker is declared dead."""
        instance = self._instance
        if not isinstance(self._phase, BodyPhase):
            return {}
        for arrival in instance.arrived:
            if isinstance(arrival, Outcome) and arrival.error is None and not arrival.interrupted:
                step = instance.steps.get(arrival.order.call_id)
                if step is not None and arrival.recorded is None:
                    record_success(instance, step, arrival)
        in_flight = self._in_flight
        events = (*(in_flight.records if in_flight is not None else ()), *instance.draft.records)
        outbox = (*(in_flight.outbox if in_flight is not None else ()), *instance.draft.outbox)
        posts = (*(in_flight.posts if in_flight is not None else ()), *instance.draft.posts)
        return {
            event.call_id: Survivor(
                event,
                tuple(message for message in outbox if message.seq == event.seq),
                tuple(post for post in posts if post.seq == event.seq),
            )
            for event in events
            if event.kind == Kind.ACTIVITY_COMPLETED
        }

    def drop(self) -> None:
        """Forget everything: the claim is lost, the worker ends, or there is no room for a resident."""
        if not self.over and (watched := self._instance.slice) is not None:
            watched.dropped()
        self.over = True
        self._disarm()
        self._instance.steps.forget()
        for waiter in self._slot_waiters:
            waiter.cancel()
        self._slot_waiters.clear()
        if self._phase is not None:
            self._phase.evict()
            self._phase = None

    def _call_start_hook(self) -> None:
        hooks, instance = self._house.hooks, self._instance
        if hooks.wants("on_workflow_start"):
            arguments = plan_of(instance.workflow).signature.by_name(instance.row.input)
            hooks.call("on_workflow_start", instance.id, instance.workflow.name, arguments)

    # -- attempts (this is their `Client`) ---------------------------------------------------------------------------

    def attempt_ended(self, outcome: Outcome) -> None:
        if not self.over:
            self._instance.outcome_arrived(outcome)
            self._schedule()

    async def commit_inside(self, outcome: Outcome, transaction: UserTransaction) -> bool:
        """Record a success inside the user's own transaction. The attempt has this instance's turn to write."""
        instance = self._instance
        event = self._draft_success(outcome)
        commit, news = instance.draft.take(STAY), instance.draft.take_news()
        if instance.slice is not None:
            commit = instance.slice.stamp(commit)
        try:
            verdict = await self._commit_with(transaction, commit)
        except BaseException:
            instance.draft.restore(commit, without=frozenset({event.kind}), outbox=False)
            raise
        if verdict is not Verdict.COMMITTED:
            self._house.lost(self)
            return False
        outcome.recorded = event
        if instance.slice is not None:
            instance.slice.written(commit)
        self._tell(news)
        self._house.spread(commit)
        return True

    def _draft_success(self, outcome: Outcome) -> HistoryEvent:
        step = self._instance.steps.get(outcome.order.call_id)
        assert step is not None, f"{self.instance_id}: {outcome.order.call_id} is not under way"
        if isinstance(self._phase, UndoingPhase):
            return self._phase.record_executed(step, outcome)
        return record_success(self._instance, step, outcome)[0]

    async def _commit_with(self, transaction: UserTransaction, commit: Commit) -> Verdict:
        try:
            return await transaction.commit(commit)
        except UnknownOutcome:
            settled = await self._house.settle(commit)
            if settled is None:
                raise StorageError(
                    f"the database did not answer a COMMIT of {self.instance_id}, and nothing of it was written"
                ) from None
            return settled

    async def take_turn(self) -> None:
        """Wait until no write of this instance is in flight, and let none begin until `give_turn`."""
        if self._writing:
            waiter = asyncio.get_running_loop().create_future()
            self._slot_waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.give_turn()
                raise
        self._writing = True

    def give_turn(self) -> None:
        """Whoever waits to write inside a transaction goes first; then the pump."""
        self._writing = False
        while self._slot_waiters:
            waiter = self._slot_waiters.popleft()
            if not waiter.done():
                self._writing = True  # reserved for it
                waiter.set_result(None)
                return
        self._schedule()

    # -- the pump ----------------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._pump_scheduled and not self.over:
            self._pump_scheduled = True
            self._house.turns.soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        while not self._writing and not self.over:
            assert self._phase is not None
            try:
                decision = self._phase.pump()
            except MemoryError as error:
                self._house.crashed(error)
            except NondeterminismError as error:
                self._set_aside(Status.NONDETERMINISTIC, error)
            except SerializationError as error:
                self._set_aside(Status.QUARANTINED, error)
            except Exception as error:
                log.critical("a defect in edda: %s cannot go on", self.instance_id, exc_info=error, extra=self.about())
                self._set_aside(Status.QUARANTINED, error)
            else:
                if isinstance(decision, Write):
                    self._write(decision)
                elif decision is Pause.PROCEED:
                    self._proceed()
                    return
                elif decision is Pause.AGAIN:
                    self._schedule()
                    return
                else:
                    self._enter(decision)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        if isinstance(phase, SettlingPhase) and phase.patience_seconds:
            self._disarm()
            self._alarm = asyncio.get_running_loop().call_later(phase.patience_seconds, self._lose_patience, phase)

    def _lose_patience(self, phase: SettlingPhase) -> None:
        phase.stop_waiting()
        self._schedule()

    def _proceed(self) -> None:
        """Everything asked for is durable, or needs no record: begin it, or wait."""
        phase, instance = self._phase, self._instance
        assert phase is not None
        if not self._house.trusted:  # we may have been stopped for long: no effect before the lease is known to hold
            asyncio.get_running_loop().call_later(TRUST_SECONDS, self._schedule)
            return
        due_us = self._earliest_due_us(phase)
        if due_us is not None and due_us <= (now_us := self._house.clock.at_least_us()):
            instance.steps.collect_due(now_us)
            if phase.collect_due(now_us):
                self._schedule()
                return
            due_us = self._earliest_due_us(phase)
        instance.steps.begin(self, self._house.attempts, self._house.hooks)
        if isinstance(phase, BodyPhase):
            if children := phase.children_to_look_up():
                self._house.look_up_children(self, children)
            if (question := phase.question_for_inbox()) is not None:
                self._house.ask_inbox(self, question)
        if not isinstance(phase, SettlingPhase):
            self._wait(phase, due_us)

    def _earliest_due_us(self, phase: Phase) -> int | None:
        one, other = phase.earliest_due_us(), self._instance.steps.earliest_due_us()
        if one is None or other is None:
            return other if one is None else one
        return min(one, other)

    def _wait(self, phase: Phase, due_us: int | None) -> None:
        """Hold what runs or will soon; park the rest."""
        instance = self._instance
        if instance.steps.running or instance.arrived or phase.looking or self._is_soon(due_us):
            self._arm(due_us)
            return
        change = phase.when_idle(due_us)
        if isinstance(change, End):
            why = decode_error(change.error) if change.error is not None else None
            log.error(
                "workflow instance %s is set aside as %s: %s", self.instance_id, change.status, why, extra=self.about()
            )
            phase.evict()
        self._write(Write(row=change))

    def _is_soon(self, due_us: int | None) -> bool:
        hold_us = 0 if self._house.environment.always_evict else HOLD_US
        return due_us is not None and due_us - self._house.clock.at_least_us() < hold_us

    def _arm(self, due_us: int | None) -> None:
        """Pump again when the earliest wait is due."""
        if self._alarm is not None:
            self._disarm()
        if due_us is not None:
            delay = (due_us - self._house.clock.at_least_us()) / 1_000_000
            self._alarm = asyncio.get_running_loop().call_later(max(delay, 0), self._schedule)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self, write: Write) -> None:
        draft = self._instance.draft
        self._writing = True
        self._in_flight = draft.take(write.row, wakes=write.wakes, cancels=write.cancels)
        if (watched := self._instance.slice) is not None:
            self._in_flight = watched.stamp(self._in_flight)
        self._news = draft.take_news()
        self._house.submit(self._in_flight, self._acknowledged)

    def _acknowledged(self, commit: Commit, verdict: Verdict | StorageError) -> None:
        self._writing = False
        self._in_flight = None
        news, self._news = self._news, ()
        if self.over:
            return
        if isinstance(verdict, StorageError):
            self._refused(commit, verdict)
        elif verdict is Verdict.CLAIM_LOST:
            self._house.lost(self)
        elif verdict is Verdict.CANCEL_FIRST:
            self._instance.draft.restore(commit, without=_ENDINGS)
            self._instance.cancel_requested = True
            self._enter(SettlingPhase.cancelling(self._instance))
            self.give_turn()
        else:
            if self._instance.row.crashes and self.suspect:
                self._cleared = True
                self._house.cleared(self)
            self._tell(news)
            self._written(commit, woken=verdict is Verdict.WOKEN)

    def _tell(self, news: Sequence[News]) -> None:
        """Observers hear of what is durable, and of nothing else."""
        for item in news:
            self._house.hooks.call(item.hook, *item.args, **item.kwargs)

    def _written(self, commit: Commit, *, woken: bool) -> None:
        watched = self._instance.slice
        if watched is not None:
            watched.written(commit)
        match commit.row:
            case Park(due_us=due_us):
                self.over = True
                self._disarm()
                if watched is not None:
                    watched.parked()
                self._house.released(self, due_us=due_us, woken=woken)
            case End() as end:
                self._house.ended(self, end)
                if watched is not None:
                    watched.ended(end, self._error_of(end), now_us=self._instance.now_us())
                self.over = True
                self.drop()
            case Undo():
                begun = undoing(self._instance.journal.events)
                assert begun is not None
                self._phase = UndoingPhase(self._instance, begun)
                self.give_turn()
            case _ if self._only_to_proceed():
                self._proceed()
            case _:
                self.give_turn()

    def _only_to_proceed(self) -> bool:
        """Nothing happened during the write, so a pump would find only what was asked for before it."""
        phase = self._phase
        return isinstance(phase, BodyPhase) and not (self._slot_waiters or self._pump_scheduled or phase.has_news)

    def _refused(self, commit: Commit, error: StorageError) -> None:
        """The database will not have it, whatever we do: set the instance aside with the reason."""
        log.error("the database refuses what %s wants to write: %s", self.instance_id, error, extra=self.about())
        if isinstance(commit.row, End) and commit.row.status is Status.QUARANTINED:
            again = Write(row=commit.row)
            asyncio.get_running_loop().call_later(REFUSED_AGAIN_SECONDS, self._write_again, again)
            self._writing = True
            return
        self._instance.journal.withdraw(len(commit.records))
        done = [record.call_id for record in commit.records if record.kind == Kind.ACTIVITY_COMPLETED]
        self._set_aside(Status.QUARANTINED, error, unrecorded=done)

    def _write_again(self, write: Write) -> None:
        if not self.over:
            self._write(write)

    def _set_aside(self, status: Status, error: BaseException, *, unrecorded: Sequence[str] = ()) -> None:
        """Park it visibly, writing no history. A cancel needs no body: what is owed stands in history.

        `unrecorded` are activities that completed, but whose record the database refused.
        """
        instance = self._instance
        instance.draft.discard()
        if self._phase is not None:
            self._phase.evict()
        if instance.cancel_requested and not isinstance(self._phase, _AFTER_BODY):
            if isinstance(self._phase, BodyPhase) and instance.journal.started is None:
                record_start(instance, at_us=instance.now_us())  # it was refused with the rest, and still holds
            self._enter(SettlingPhase.cancelling(instance))
            for call_id in unrecorded:
                record_unknown(instance, instance.calls[call_id])
            self._schedule()
            return
        instance.steps.forget()
        log.error("workflow instance %s is set aside as %s: %s", self.instance_id, status, error, extra=self.about())
        self._write(Write(row=End(status=status, error=encode_error(error))))
