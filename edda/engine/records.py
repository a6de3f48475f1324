"""Rows of history from what happened: one function for each thing that an instance records while it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from edda.core.commit import Post
from edda.core.history import HistoryEvent, Kind
from edda.core.lifecycle import Status
from edda.core.retry import TryAgain
from edda.core.saga import UNDO_KEY
from edda.core.text import one_line
from edda.engine.attempts import Outcome
from edda.engine.body_run import Call
from edda.engine.codec import encode_error, in_words
from edda.engine.draft import META
from edda.engine.event_draft import EventDraft
from edda.engine.instance import ChildEnded, Instance, Survivor, about
from edda.engine.log import log
from edda.engine.payload import check_size
from edda.engine.plans import plan_of
from edda.engine.replies import Reply, activity_error
from edda.engine.step import Step
from edda.engine.user_line import user_line_of
from edda.exceptions import PayloadTooLargeError, SerializationError
from edda.storage.inbox import InboxEvent

KEY: Final = "key"
"""In the details of a row that consumed an event: what that is stored under."""

DURATION: Final = "duration_us"
"""In the details of an attempt's row: how long that attempt took. For people; back-off counts it, too."""

PYTHON_OF_THE_START: Final = META.encode({"python": f"{sys.version_info.major}.{sys.version_info.minor}"})

LOGGED_CHARS_MAX: Final = 1_000
"""Of an error's message, in a log; history has it whole."""

CHILD_KINDS = {
    Status.COMPLETED: Kind.CHILD_COMPLETED,
    Status.FAILED: Kind.CHILD_FAILED,
    Status.COMPENSATION_FAILED: Kind.CHILD_FAILED,
    Status.CANCELLED: Kind.CHILD_CANCELLED,
}
"""What a parent records of a child that ended with this status."""


def record_start(instance: Instance, *, at_us: int) -> HistoryEvent:
    """The body is entered for the first time."""
    return instance.draft.record(
        Kind.WORKFLOW_STARTED, at_us=at_us, name=instance.workflow.name, meta=PYTHON_OF_THE_START
    )


def record_success(instance: Instance, step: Step, outcome: Outcome) -> tuple[HistoryEvent, Reply]:
    """An activity completed. What cannot be stored is recorded without its value: its effect has happened."""
    call = instance.calls[step.call_id]
    assert call.activity is not None
    at_us = instance.now_us()
    more: dict[str, Any] = {}
    output: str | None = None
    blob: bytes | None = None
    try:
        stored, value = plan_of(call.activity).signature.result.roundtrip(outcome.value)
        check_size(f"the result of {call.id} of {instance.id}", stored, limit=instance.house.payload_bytes_max)
        output, blob = stored.text, stored.blob
        reply = Reply(value)
    except SerializationError as error:
        more["unstorable"] = str(error)
        reply = Reply(error=error)
    if call.activity.on_failure is not None:
        more[UNDO_KEY] = call.activity.on_failure.compensation.name
    if step.errors:
        more["retry_metadata"] = step.metadata(exhausted=False, succeeded=True)
    if outcome.outbox:
        post(instance, outcome.outbox, at_us=at_us)
    event = instance.draft.record(
        Kind.ACTIVITY_COMPLETED,
        at_us=at_us,
        call_id=call.id,
        name=call.name,
        input=call.input,
        output=output,
        blob=blob,
        meta=_details(outcome, more),
    )
    instance.tell("on_activity_complete", instance.id, call.id, call.name, reply.value, cache_hit=False)
    return event, reply


def _details(outcome: Outcome, more: dict[str, Any]) -> dict[str, Any] | str:
    """Most often how long it took, and nothing else: written down without an encoder, for there are many of these."""
    return {DURATION: outcome.duration_us, **more} if more else f'{{"{DURATION}":{outcome.duration_us:d}}}'


def record_survivor(instance: Instance, survivor: Survivor) -> HistoryEvent:
    """Record again, under today's claim, what was done under the one before."""
    event = survivor.event
    seq, at_us = instance.journal.next_seq, instance.now_us()
    instance.draft.outbox.extend(message._replace(seq=seq) for message in survivor.outbox)
    instance.draft.posts.extend(post._replace(seq=seq) for post in survivor.posts)
    return instance.draft.record(
        Kind(event.kind),
        at_us=at_us,
        call_id=event.call_id,
        name=event.name,
        input=event.input,
        output=event.output,
        blob=event.blob,
        meta=event.details() or None,
    )


def record_failure(instance: Instance, step: Step, outcome: Outcome) -> tuple[HistoryEvent, Reply] | None:
    """An attempt of an activity failed. None: another one follows, and the body hears nothing."""
    error = outcome.error
    assert error is not None
    at_us = instance.now_us()
    decision = step.failed(error, duration_us=outcome.duration_us, at_us=at_us)
    if isinstance(decision, TryAgain):
        record_failed_attempt(instance, Kind.ACTIVITY_ATTEMPT_FAILED, step, outcome, error, decision, at_us=at_us)
        return None
    instance.steps.remove(step.call_id)
    event = instance.draft.record(
        Kind.ACTIVITY_FAILED,
        at_us=at_us,
        call_id=step.call_id,
        name=step.code.name,
        input=instance.calls[step.call_id].input,
        output=encode_error(error),
        meta={
            DURATION: outcome.duration_us,
            "retry_metadata": step.metadata(exhausted=decision.exhausted, succeeded=False),
        },
    )
    log.warning(
        "%s of %s failed for good: %s",
        step.call_id,
        instance.id,
        in_words_with_line(error),
        extra=about(instance, activity=step.call_id, attempt=len(step.errors)),
    )
    instance.tell("on_activity_failed", instance.id, step.call_id, step.code.name, error)
    return event, Reply(error=activity_error(event))


def record_refused(instance: Instance, call: Call, error: PayloadTooLargeError) -> HistoryEvent:
    """A call with more than may be stored: whatever it was, it failed as an activity does. Its input is not kept."""
    log.warning("%s", error, extra=about(instance, activity=call.id))
    event = instance.draft.record(
        Kind.ACTIVITY_FAILED,
        at_us=instance.now_us(),
        call_id=call.id,
        name=call.name,
        output=encode_error(error),
    )
    if call.activity is not None:
        instance.tell("on_activity_failed", instance.id, call.id, call.name, error)
    return event


def record_failed_attempt(
    instance: Instance,
    kind: Kind,
    step: Step,
    outcome: Outcome,
    error: BaseException,
    decision: TryAgain,
    *,
    at_us: int,
) -> None:
    """One attempt failed and another one follows: its row is what a crash cannot make us forget."""
    instance.draft.record(
        kind,
        at_us=at_us,
        call_id=step.call_id,
        name=step.code.name,
        output=encode_error(error),
        meta={"error": step.errors[-1], DURATION: outcome.duration_us, "delay_us": decision.delay_us},
    )
    delay = decision.delay_us / 1_000_000
    log.warning(
        "%s of %s failed in attempt %d, the next one follows in %.1f s: %s",
        step.call_id, instance.id, len(step.errors), delay, in_words_with_line(error),
        extra=about(instance, activity=step.call_id, attempt=len(step.errors)),
    )  # fmt: skip
    instance.tell("on_activity_retry", instance.id, step.call_id, step.code.name, error, len(step.errors), delay)


def in_words_with_line(error: BaseException) -> str:
    """For a log."""
    words, line = one_line(in_words(error), chars_max=LOGGED_CHARS_MAX), user_line_of(error)
    return f"{words} ({line})" if line is not None else words


def record_unknown(instance: Instance, call: Call) -> None:
    """Cancelled without an answer: its effect may have happened, and people should know. They are told once."""
    if any(event.kind == Kind.ACTIVITY_UNKNOWN and event.call_id == call.id for event in instance.journal.events):
        return
    on_failure = call.activity.on_failure if call.activity is not None else None
    undo = on_failure.compensation.name if on_failure is not None and on_failure.when_unknown else None
    instance.draft.record(
        Kind.ACTIVITY_UNKNOWN,
        at_us=instance.now_us(),
        call_id=call.id,
        name=call.name,
        input=call.input,
        meta={UNDO_KEY: undo} if undo else None,
    )


def record_child_end(instance: Instance, arrival: ChildEnded) -> HistoryEvent:
    """A child that the body waits for has ended."""
    call, row = arrival.call, arrival.row
    return instance.draft.record(
        CHILD_KINDS[row.status],
        at_us=instance.now_us(),
        call_id=call.id,
        name=call.name,
        output=row.output if row.status is Status.COMPLETED else row.error,
        blob=row.blob,
        meta={"workflow": row.workflow, "instance_id": row.id},
    )


def record_child_start(instance: Instance, call: Call) -> HistoryEvent:
    """A child is created by the commit that holds this row."""
    assert call.child is not None
    instance.draft.children.append(call.child._replace(trace=instance.trace) if instance.trace else call.child)
    return instance.draft.record(
        Kind.CHILD_STARTED,
        at_us=instance.now_us(),
        call_id=call.id,
        name=call.name,
        input=call.input,
        meta={"instance_id": call.child.id, "detached": call.child.detached},
    )


def record_event_sent(instance: Instance, call: Call) -> HistoryEvent:
    """The body itself sent an event; its outbox row goes with this one."""
    assert call.sent is not None
    event, data = call.sent
    house = instance.house
    draft = EventDraft(str(UUID(hex=house.environment.sortable_id())), house.app.direct(event), data, instance.trace)
    at_us = instance.now_us()
    post(instance, [draft], at_us=at_us)
    meta = {"id": draft.id, "source": draft.event.source}
    return instance.draft.record(Kind.EVENT_SENT, at_us=at_us, call_id=call.id, name=call.name, meta=meta)


def record_owed(instance: Instance, call: Call) -> HistoryEvent:
    """`register_compensation` in the body."""
    return instance.draft.record(
        Kind.COMPENSATION_REGISTERED,
        at_us=instance.now_us(),
        call_id=call.id,
        name=call.name,
        input=call.input,
        meta={UNDO_KEY: call.name},
    )


def record_received(instance: Instance, call: Call, found: InboxEvent) -> HistoryEvent:
    """An event that the body waited for."""
    event = found.event
    if instance.slice is not None:
        instance.slice.received(event)
    instance.draft.waits_over.append(call.id)
    meta: dict[str, Any] = {KEY: found.key, "id": event.id, "source": event.source}
    for name in ("subject", "time", "datacontenttype", "dataschema"):
        if (value := getattr(event, name)) is not None:
            meta[name] = value
    if event.extensions:
        meta["extensions"] = dict(event.extensions)
    return instance.draft.record(
        Kind.EVENT_RECEIVED,
        at_us=instance.now_us(),
        call_id=call.id,
        name=call.name,
        output=event.json,
        blob=event.blob,
        meta=meta,
    )


def record_rejected(instance: Instance, call: Call, found: InboxEvent, error: Exception) -> None:
    """An event that does not fit the model of its wait: visible in history, and passed over."""
    event = found.event
    log.error("event %s from %s does not fit what %s of %s waits for: %s",
              event.id, event.source, call.id, instance.id, error, extra=about(instance, activity=call.id))  # fmt: skip
    instance.draft.record(
        Kind.EVENT_REJECTED,
        at_us=instance.now_us(),
        call_id=call.id,
        name=call.name,
        output=encode_error(error),
        meta={KEY: found.key, "id": event.id, "source": event.source},
    )


def record_timed_out(instance: Instance, call: Call, *, due_us: int) -> HistoryEvent:
    """No event came in time."""
    instance.draft.waits_over.append(call.id)
    assert call.wish is not None
    return instance.draft.record(
        Kind.EVENT_TIMED_OUT,
        at_us=max(due_us, instance.now_us()),
        call_id=call.id,
        name=call.name,
        meta={"timeout_seconds": call.wish.timeout_seconds},
    )


def post(instance: Instance, drafts: Sequence[EventDraft], *, at_us: int) -> None:
    """Send events, to our own inbox or to the outside, as part of the row that is drafted next."""
    seq = instance.journal.next_seq
    for ordinal, draft in enumerate(drafts):
        instance.tell("on_event_sent", draft.event.type, draft.event.source, draft.event.data)
        if draft.event.to_outbox:
            instance.draft.outbox.append(draft.message(instance_id=instance.id, seq=seq, ordinal=ordinal, at_us=at_us))
        else:
            instance.draft.posts.append(Post(seq, draft.for_inbox(at_us=at_us)))
