"""The phase in which the workflow function runs or waits.

Recorded completions first, then what arrives, one at a time, the body stepped to quiescence in between. What the body
asks for is sorted here; nothing of it begins before the commit that tells of it is durable.
"""

from __future__ import annotations

import asyncio
from typing import Final

from edda.core.commit import REASON_CHARS_MAX, End, Park, RowChange
from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.journal import CallKind
from edda.core.lifecycle import Status
from edda.core.text import one_line
from edda.engine.attempts import Outcome
from edda.engine.body_run import BodyRun, Call
from edda.engine.codec import encode_error
from edda.engine.event_waits import EventWaits, Question
from edda.engine.instance import ChildEnded, Instance, NoEventInTime, Survivor, TimerDue, about
from edda.engine.log import log
from edda.engine.phases import STEP, Pause, Phase, Write
from edda.engine.plans import plan_of
from edda.engine.records import (
    CHILD_KINDS,
    record_child_end,
    record_child_start,
    record_event_sent,
    record_failure,
    record_owed,
    record_received,
    record_refused,
    record_rejected,
    record_start,
    record_success,
    record_survivor,
    record_timed_out,
)
from edda.engine.replies import Reply, misfit, received_event, reply_to
from edda.engine.settling import SettlingPhase
from edda.engine.step import Step
from edda.exceptions import EddaError, NondeterminismError
from edda.storage.inbox import InboxEvent
from edda.storage.port import InstanceRow

SLICE_REPLIES: Final = 1000
"""Recorded completions replayed in one callback of the user's loop: about 10 ms."""


class BodyPhase:
    """Raises NondeterminismError out of `pump` where the code does not fit the history."""

    def __init__(self, instance: Instance) -> None:
        """Enter the body; nothing of it runs yet. Raises what decoding the input raises."""
        self._instance = instance
        self._house = instance.house
        self._journal = instance.journal
        self._timers: dict[str, Call] = {}
        self._child_waits: dict[str, Call] = {}
        self._activities: dict[str, Call] = {}
        """Calls of activities that have no step yet: on replay most are answered before they need one."""
        self._instants: dict[str, Call] = {}
        """Calls that are answered by being recorded: a child's start, an event sent, a compensation owed."""
        self._looked = True
        self._looking = False
        self._events = EventWaits(instance)
        started = self._journal.started
        at_us = started.at_us if started is not None else instance.now_us()
        self._body = BodyRun(
            instance_id=instance.id,
            workflow=instance.workflow,
            worker_id=self._house.id,
            app=self._house.app,
            hooks=self._house.observer,
            journal=self._journal,
            started_us=at_us,
            payload_bytes_max=self._house.payload_bytes_max,
            claim_of=lambda: instance.claim,
        )
        self._loop = self._body.loop
        self._loop.quiet = started is not None
        self._body.enter(instance.row.input)
        if started is None:
            record_start(instance, at_us=at_us)
        instance.calls = self._body.calls

    # -- the phase ---------------------------------------------------------------------------------------------------

    def pump(self) -> Write | Pause | Phase:
        if self._replays and not self._replay():
            return Pause.AGAIN
        if self._instance.cancel_requested:
            self.evict()
            return SettlingPhase.cancelling(self._instance)
        self._step()
        if self._loop.root.done():
            return self._leave()
        if self._events.store() or self._worth_writing():
            return STEP
        return Pause.PROCEED

    @property
    def _replays(self) -> bool:
        """Recorded completions are left; or there are none, but the body was entered before, up to its first wait."""
        return self._journal.replaying or (self._loop.quiet and not self._instance.cancel_requested)

    @property
    def has_news(self) -> bool:
        """There is something to pump, besides what was asked for and may begin now."""
        instance = self._instance
        return bool(instance.arrived or instance.cancel_requested or self._journal.replaying or self._events.unread)

    def evict(self) -> None:
        self._body.evict()

    def woken(self) -> None:
        """Something may have changed that only the database knows."""
        self._looked = False
        self._events.woken()

    @property
    def looking(self) -> bool:
        return self._looking or self._events.looking

    def _worth_writing(self) -> bool:
        """The row that says that the body was entered rides with the first real one."""
        records = self._instance.draft.records
        return len(records) > 1 or (len(records) == 1 and records[0].kind != Kind.WORKFLOW_STARTED)

    def _leave(self) -> SettlingPhase:
        """The workflow function has returned or raised."""
        root = self._loop.root
        if root.cancelled():
            result = Reply(error=asyncio.CancelledError("the workflow function cancelled itself"))
        elif (error := root.exception()) is not None:
            if isinstance(error, MemoryError):
                raise error
            result = Reply(error=error)
        else:
            result = Reply(root.result())
            if forgotten := self._body.forgotten():
                log.error(
                    "workflow instance %s ended without an `await` of %s: nothing of that was done",
                    self._instance.id,
                    ", ".join(forgotten),
                    extra=about(self._instance),
                )
        self.evict()
        return SettlingPhase(self._instance, result, cause=Status.FAILED)

    # -- replay ------------------------------------------------------------------------------------------------------

    def _replay(self) -> bool:
        """Deliver recorded completions; False when a slice is full and there are more."""
        self._loop.quiet = True
        for _ in range(SLICE_REPLIES):
            self._loop.drain()
            self._collect()
            event = self._journal.next_completion()
            if event is None:
                break
            self._replay_one(event)
        if self._journal.replaying:
            return False
        self._loop.drain()
        self._collect()
        self._make_steps()
        self._loop.quiet = False
        return True

    def _replay_one(self, event: HistoryEvent) -> None:
        if event.kind == Kind.TIMER_FIRED and event.name == "timer":
            self._fire(event.call_id, event.seq, event.at_us)
            return
        call = self._body.call_for(event)
        self._forget(call)
        reply = reply_to(call, event)
        if call.activity is not None:
            self._compare_input(call, event)
            hooks = self._house.hooks
            if event.kind == Kind.ACTIVITY_COMPLETED and hooks.wants("on_activity_complete"):
                hooks.call("on_activity_complete", self._instance.id, call.id, call.name, reply.value, cache_hit=True)
        self._body.answer(event, call, reply.value, reply.error)

    def _fire(self, timer_id: str, seq: int, at_us: int) -> None:
        try:
            self._loop.fire(timer_id, at_us=at_us)
        except LookupError:
            raise NondeterminismError(
                instance_id=self._instance.id, seq=seq, recorded=f"timer {timer_id} fired", found="no such timer"
            ) from None

    def _compare_input(self, call: Call, event: HistoryEvent) -> None:
        """Arguments that changed are worth one warning: the recorded result belongs to the recorded arguments."""
        if event.input is None or event.input == call.input:
            return
        assert call.activity is not None
        assert call.input is not None
        signature = plan_of(call.activity).signature
        if signature.by_name(event.input) != signature.by_name(call.input):
            log.warning(
                "%s of %s was recorded with other arguments than it is called with now; the recorded result is used",
                call.id,
                self._instance.id,
                extra=about(self._instance, activity=call.id),
            )
            log.debug("recorded: %s, now: %s", event.input, call.input)

    # -- live --------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """Run the body to quiescence, delivering what has arrived one at a time."""
        arrived = self._instance.arrived
        self._loop.drain()
        while not self._loop.root.done():
            self._collect()
            if self._activities:
                self._make_steps()
            if self._instance.survivors:
                self._use_survivors()
            if (
                arrived and isinstance(arrived[0], Outcome) and arrived[0].recorded is not None
            ):  # it has its `seq` already
                self._deliver_first()
            elif (match := self._events.next_match()) is not None:
                self._receive(*match)
            elif self._instants:
                self._perform(self._instants.pop(next(iter(self._instants))))
            elif arrived:
                self._deliver_first()
            else:
                return
            self._loop.drain()
        self._collect()

    def _deliver_first(self) -> None:
        arrival = self._instance.arrived.popleft()
        if isinstance(arrival, Outcome):
            if (recorded := self._record_outcome(arrival)) is not None:
                event, reply = recorded
                self._body.answer(event, self._instance.calls[event.call_id], reply.value, reply.error)
        elif isinstance(arrival, TimerDue):
            self._deliver_timer(arrival)
        elif isinstance(arrival, NoEventInTime):
            self._deliver_timeout(arrival.call)
        elif isinstance(arrival, Survivor):
            event = record_survivor(self._instance, arrival)
            call = self._instance.calls[event.call_id]
            reply = reply_to(call, event)
            self._body.answer(event, call, reply.value, reply.error)
        else:
            self._deliver_child_end(arrival)

    def _record_outcome(self, outcome: Outcome) -> tuple[HistoryEvent, Reply] | None:
        instance = self._instance
        step = instance.steps.outcome_taken(outcome.order.call_id)
        if step is None:
            return None
        if outcome.error is not None:
            return record_failure(instance, step, outcome)
        instance.steps.remove(step.call_id)
        if outcome.interrupted:  # the body gave the call up
            return None
        if outcome.recorded is not None:  # inside the user's transaction
            return outcome.recorded, reply_to(instance.calls[step.call_id], outcome.recorded)
        return record_success(instance, step, outcome)

    def _deliver_timer(self, arrival: TimerDue) -> None:
        """A timer of `wait_timer`, or one of the body's own loop; one cancelled meanwhile leaves no trace."""
        at_us = max(arrival.due_us, self._instance.now_us())
        record = self._instance.draft.record
        call = self._timers.pop(arrival.timer_id, None)
        if call is not None:
            event = record(Kind.TIMER_FIRED, at_us=at_us, call_id=call.id, name=call.name)
            self._body.answer(event, call, None, None)
        elif arrival.timer_id in self._loop.timers():
            event = record(Kind.TIMER_FIRED, at_us=at_us, call_id=arrival.timer_id, name="timer")
            self._fire(arrival.timer_id, event.seq, at_us)

    def _receive(self, call: Call, found: InboxEvent) -> None:
        """An event for a call: it is received, or set aside where it does not fit the model."""
        self._events.consumed(found)
        assert call.wish is not None
        if (error := misfit(found.event, call.wish.model)) is not None:
            record_rejected(self._instance, call, found, error)
            return
        self._events.forget(call)
        event = record_received(self._instance, call, found)
        received = received_event(call, event)
        self._instance.tell("on_event_received", self._instance.id, call.name, received.data)
        self._body.answer(event, call, received, None)

    def _deliver_timeout(self, call: Call) -> None:
        if not call.waiting:  # given up, or answered by an event that came in time
            return
        self._events.forget(call)
        event = record_timed_out(self._instance, call, due_us=call.due_us)
        self._body.answer(event, call, None, reply_to(call, event).error)

    def _deliver_child_end(self, arrival: ChildEnded) -> None:
        if self._child_waits.pop(arrival.call.id, None) is None:
            return
        event = record_child_end(self._instance, arrival)
        reply = reply_to(arrival.call, event)
        self._body.answer(event, arrival.call, reply.value, reply.error)

    def _perform(self, call: Call) -> None:
        match call.kind:
            case _ if call.refused is not None:
                event = record_refused(self._instance, call, call.refused)
            case CallKind.CHILD_START:
                event = record_child_start(self._instance, call)
            case CallKind.EVENT_SEND:
                event = record_event_sent(self._instance, call)
            case _:
                event = record_owed(self._instance, call)
        reply = reply_to(call, event)
        self._body.answer(event, call, reply.value, reply.error)

    # -- calls -------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Take up what the body asked for and gave up since the last drain. Nothing begins yet."""
        body = self._body
        if body.asked:
            for call in body.asked:
                match call.kind:
                    case _ if call.refused is not None and call.id not in self._journal.failures:
                        self._instants[call.id] = call
                    case CallKind.ACTIVITY:
                        self._activities[call.id] = call
                    case CallKind.TIMER:
                        self._timers[call.id] = call
                    case CallKind.CHILD_RESULT:
                        self._child_waits[call.id] = call
                        self._looked = False
                    case CallKind.EVENT_WAIT:
                        self._events.ask(call)
                    case _:
                        self._instants[call.id] = call
            body.asked.clear()
        if body.abandoned:
            for call in body.abandoned:
                self._give_up(call)
            body.abandoned.clear()
        if body.new_patches:
            for patch in body.new_patches:
                self._instance.draft.record(Kind.PATCHED, at_us=self._instance.now_us(), call_id=patch, name=patch)
            body.new_patches.clear()

    def _use_survivors(self) -> None:
        """Steps that are asked for again, and whose result this process still has, need no attempt."""
        instance = self._instance
        for call_id, survivor in list(instance.survivors.items()):
            call, step = instance.calls.get(call_id), instance.steps.get(call_id)
            if call is not None and step is not None and step.attempt is None:
                del instance.survivors[call_id]
                if survivor.event.name == call.name and survivor.event.input == call.input:
                    instance.steps.remove(call_id)
                    instance.arrived.append(survivor)

    def _make_steps(self) -> None:
        for call in self._activities.values():
            self._instance.steps.add(self._step_of(call))
        self._activities.clear()

    def _step_of(self, call: Call) -> Step:
        activity = call.activity
        assert activity is not None
        assert call.input is not None
        plan = plan_of(activity)
        args, kwargs = plan.copy_arguments(call.input, call.args, call.kwargs)
        policy = activity.retry_policy or self._house.default_retry_policy
        interruptible = activity.on_failure is None and activity.is_async
        step = Step(call.id, plan.code, args, kwargs, policy, interruptible, self._instance.row.crashes)
        if failures := self._journal.failures.get(call.id):
            step.resume(failures)
        return step

    def _forget(self, call: Call) -> None:
        """Its answer is known: nothing is to be done for it any more."""
        if call.refused is not None:
            self._instants.pop(call.id, None)
        match call.kind:
            case CallKind.ACTIVITY:
                self._activities.pop(call.id, None)
                self._instance.steps.remove(call.id)
            case CallKind.TIMER:
                self._timers.pop(call.id, None)
            case CallKind.CHILD_RESULT:
                self._child_waits.pop(call.id, None)
            case CallKind.EVENT_WAIT:
                self._events.forget(call)
            case _:
                self._instants.pop(call.id, None)

    def _give_up(self, call: Call) -> None:
        """The body cancelled a call. Its attempt is cancelled, unless it may have to be undone: then its end counts."""
        if call.kind is CallKind.EVENT_WAIT:
            self._events.give_up(call)
            return
        step = self._instance.steps.get(call.id)
        if step is None or step.attempt is None:
            self._forget(call)
        elif step.interruptible:
            step.attempt.interrupt()

    # -- waiting -----------------------------------------------------------------------------------------------------

    def collect_due(self, now_us: int) -> bool:
        self._events.collect_due(now_us)
        due = [TimerDue(call.id, call.due_us) for call in self._timers.values() if call.due_us <= now_us]
        if (first := self._loop.next_timer()) is not None and first[1] <= now_us:
            due += [TimerDue(timer, at) for timer, at in self._loop.timers().items() if at <= now_us]
        due.sort(key=lambda timer: timer.due_us)
        self._instance.arrived.extend(due)
        return bool(due)

    def earliest_due_us(self) -> int | None:
        earliest = min([call.due_us for call in self._timers.values()]) if self._timers else None
        for other in (self._loop.next_timer(), self._events.earliest_due_us()):
            due_us = other[1] if isinstance(other, tuple) else other
            if due_us is not None and (earliest is None or due_us < earliest):
                earliest = due_us
        return earliest

    def children_to_look_up(self) -> tuple[InstanceId, ...]:
        """Children whose end may have come unseen. To be called when our own wait is durable: write, commit, look."""
        if self._looked or self._looking or not self._child_waits:
            return ()
        self._looked = self._looking = True
        return tuple(InstanceId(call.target) for call in self._child_waits.values())

    def children_looked_up(self, rows: dict[InstanceId, InstanceRow]) -> None:
        """The answer: those that have ended complete their waits."""
        self._looking = False
        for call in self._child_waits.values():
            row = rows.get(InstanceId(call.target))
            if row is not None and row.status in CHILD_KINDS:
                self._instance.arrived.append(ChildEnded(call, row))

    def question_for_inbox(self) -> Question | None:
        """Which events to look for. To be called when our own waits are durable."""
        return self._events.question()

    def inbox_answered(self, found: list[InboxEvent], *, question: Question) -> None:
        self._events.answered(found, question=question)

    def when_idle(self, due_us: int | None) -> RowChange:
        if due_us is None and not self._child_waits and not self._events:
            return End(status=Status.QUARANTINED, error=encode_error(self._nothing_to_wait_for()))
        status, reason = self._wait_in_words()
        return Park(
            status=status,
            reason=one_line(reason, chars_max=REASON_CHARS_MAX),
            due_us=due_us,
            seen_wakes=self._instance.seen_wakes,
        )

    def _wait_in_words(self) -> tuple[Status, str]:
        if self._instance.steps:
            return Status.RUNNING, "retry of " + ", ".join(map(str, self._instance.steps))
        if self._events:
            return Status.WAITING_FOR_EVENT, "event " + self._events.in_words()
        if self._child_waits:
            return Status.RUNNING, "child " + ", ".join(sorted({call.target for call in self._child_waits.values()}))
        return Status.WAITING_FOR_TIMER, "timer " + ", ".join(list(self._timers) or list(self._loop.timers()))

    def _nothing_to_wait_for(self) -> EddaError:
        if self._loop.intrusion is not None:  # somebody outside tried to wake the body, and was refused
            return self._loop.intrusion
        return EddaError(
            f"Workflow instance '{self._instance.id}' "
            + ("spins: it polls for something" if self._loop.frozen else "waits for something")
            + " that no activity, timer, event or child of it can bring about. "
            "Correct the code, then call handle.retry()."
        )
