"""The phase of compensations: one after the other, newest completion first, each a durable step with its own retries.

What is owed is read from history each time, so a crash goes on with the next one owed. The body is never entered again.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from edda.core.commit import REASON_CHARS_MAX, End, Park, RowChange
from edda.core.history import HistoryEvent, Kind
from edda.core.lifecycle import LAST_EVENT, Status
from edda.core.retry import TryAgain
from edda.core.saga import failed_for_good, owed
from edda.core.text import one_line
from edda.engine.attempts import Outcome
from edda.engine.codec import ValueCodec, decode_error, encode_error, in_words
from edda.engine.instance import Instance, about
from edda.engine.log import log
from edda.engine.payload import check_size
from edda.engine.phases import Pause, Phase, Write
from edda.engine.records import DURATION, in_words_with_line, post, record_failed_attempt
from edda.engine.replies import Reply
from edda.engine.settling import parent_of
from edda.engine.step import Step
from edda.engine.undo import step_for
from edda.exceptions import CompensationFailedError, SerializationError

RESULT = ValueCodec(what="the result of a compensation")


class UndoingPhase:
    """`begun` is the `CompensationStarted` row: it holds why the body is over."""

    def __init__(self, instance: Instance, begun: HistoryEvent) -> None:
        instance.journal.close()
        self._instance = instance
        self._cause = Status(begun.details()["cause"])
        if instance.cancel_requested:  # accepted while it was set aside: then it may not end as failed
            self._cause = Status.CANCELLED
        self._why = begun.output or "{}"
        """The error as it was stored, with the stack that it was raised with."""
        self.result = Reply(error=decode_error(self._why))

    def pump(self) -> Write | Pause | Phase:
        arrived = self._instance.arrived
        while arrived:
            arrival = arrived.popleft()
            if isinstance(arrival, Outcome):
                self._record(arrival)
        if not self._instance.steps and not self._take_next():
            return self._conclude()
        return Write() if self._instance.draft.records else Pause.PROCEED

    def _take_next(self) -> bool:
        """Make the step of the next compensation owed; False when nothing is owed any more."""
        instance = self._instance
        for debt in owed(instance.journal.events):
            try:
                step = step_for(debt, default_policy=instance.house.default_retry_policy, crashes=instance.row.crashes)
            except Exception as error:  # whatever today's code says to the arguments of yesterday
                self._record_failure(debt.call_id, debt.compensation, error, None)
            else:
                instance.steps.add(step)
                return True
        return False

    def _record(self, outcome: Outcome) -> None:
        instance = self._instance
        step = instance.steps.outcome_taken(outcome.order.call_id)
        if step is None:
            return
        at_us = instance.now_us()
        error = asyncio.CancelledError("interrupted") if outcome.interrupted else outcome.error
        if error is None:
            instance.steps.remove(step.call_id)
            if outcome.recorded is None:
                self.record_executed(step, outcome)
            return
        decision = step.failed(error, duration_us=outcome.duration_us, at_us=at_us)
        if isinstance(decision, TryAgain):
            kind = Kind.COMPENSATION_ATTEMPT_FAILED
            record_failed_attempt(instance, kind, step, outcome, error, decision, at_us=at_us)
            return
        instance.steps.remove(step.call_id)
        metadata = step.metadata(exhausted=decision.exhausted, succeeded=False)
        meta = {DURATION: outcome.duration_us, "retry_metadata": metadata}
        self._record_failure(step.call_id, step.code.name, error, meta)

    def record_executed(self, step: Step, outcome: Outcome) -> HistoryEvent:
        at_us = self._instance.now_us()
        if outcome.outbox:
            post(self._instance, outcome.outbox, at_us=at_us)
        output: str | None = None
        with contextlib.suppress(SerializationError):  # shown to people; nobody depends on it
            text = RESULT.encode_text(outcome.value)
            check_size("it", text, limit=self._instance.house.payload_bytes_max)
            output = text
        return self._instance.draft.record(
            Kind.COMPENSATION_EXECUTED,
            at_us=at_us,
            call_id=step.call_id,
            name=step.code.name,
            output=output,
            meta={DURATION: outcome.duration_us},
        )

    def _record_failure(self, call_id: str, name: str, error: BaseException, meta: dict[str, Any] | None) -> None:
        instance = self._instance
        log.error(
            "compensation %s (%s) of %s failed for good: %s", name, call_id, instance.id, in_words_with_line(error),
            extra=about(instance, activity=call_id),
        )  # fmt: skip
        self._instance.draft.record(
            Kind.COMPENSATION_FAILED,
            at_us=self._instance.now_us(),
            call_id=call_id,
            name=name,
            output=encode_error(error),
            meta=meta,
        )

    def _conclude(self) -> Write:
        instance = self._instance
        failed = failed_for_good(instance.journal.events)
        status, text = self._cause, self._why
        if failed:
            cause = decode_error(self._why)
            error = CompensationFailedError(
                f"Workflow instance '{instance.id}' ended as {self._cause} ({in_words(cause)}), and "
                f"could not undo {', '.join(failed)}; handle.retry() runs again what is owed",
                instance_id=instance.id,
                failed=failed,
            )
            error.__cause__ = cause
            status, text = Status.COMPENSATION_FAILED, encode_error(error)
        instance.draft.record(LAST_EVENT[status], at_us=instance.now_us(), name=instance.workflow.name, output=text)
        return Write(row=End(status=status, error=text), wakes=parent_of(instance))

    # -- waiting -----------------------------------------------------------------------------------------------------

    def collect_due(self, now_us: int) -> bool:
        return False

    def earliest_due_us(self) -> int | None:
        return None

    @property
    def looking(self) -> bool:
        return False

    def when_idle(self, due_us: int | None) -> RowChange:
        return Park(
            status=Status.COMPENSATING,
            reason=one_line("retry of " + ", ".join(map(str, self._instance.steps)), chars_max=REASON_CHARS_MAX),
            due_us=due_us,
            seen_wakes=self._instance.seen_wakes,
        )

    def evict(self) -> None:
        pass
