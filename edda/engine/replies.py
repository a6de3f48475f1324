"""From a recorded completion to what the body gets: a value, or an error to raise. The same live and on replay."""

from __future__ import annotations

from typing import Any, NamedTuple

from edda.core.event import CloudEvent
from edda.core.history import HistoryEvent, Kind
from edda.engine.body_run import Call
from edda.engine.codec import Stored, ValueCodec, decode_error, decode_event_data
from edda.engine.plans import plan_of
from edda.engine.step import exhausted_error
from edda.events import ReceivedEvent
from edda.exceptions import (
    CompensationFailedError,
    EddaError,
    EventTimeoutError,
    SerializationError,
    WorkflowCancelledException,
)
from edda.workflow import Workflow, workflows


class Reply(NamedTuple):
    """What a body gets for a call."""

    value: object = None
    error: BaseException | None = None


NOTHING = Reply()

_UNTYPED = ValueCodec(what="a result")


def reply_to(call: Call, event: HistoryEvent) -> Reply:
    """Decode the answer that history holds for a call."""
    match event.kind:
        case Kind.ACTIVITY_COMPLETED:
            assert call.activity is not None
            unstorable = event.details().get("unstorable") if event.meta and "unstorable" in event.meta else None
            if unstorable:
                return Reply(error=SerializationError(unstorable))
            if event.output is None and event.blob is None:
                return NOTHING
            return Reply(plan_of(call.activity).signature.result.decode(Stored(event.output, event.blob)))
        case Kind.ACTIVITY_FAILED:
            return Reply(error=activity_error(event))
        case Kind.CHILD_COMPLETED:
            return Reply(decode_result(event.details().get("workflow", ""), event.output, event.blob))
        case Kind.CHILD_FAILED | Kind.CHILD_CANCELLED:
            return Reply(error=decode_error(event.output or "{}"))
        case Kind.EVENT_RECEIVED:
            return Reply(received_event(call, event))
        case Kind.EVENT_TIMED_OUT:
            return Reply(error=EventTimeoutError(event.name, event.details()["timeout_seconds"]))
        case Kind.EVENT_SENT:
            return Reply(event.details()["id"])
        case _:
            return NOTHING


def received_event(call: Call, event: HistoryEvent) -> ReceivedEvent:
    """What `wait_event` returns. Raises SerializationError where today's model refuses what was accepted once."""
    details = event.details()
    model = call.wish.model if call.wish is not None else None
    try:
        data = decode_event_data(event.output, event.blob, model)
    except Exception as error:
        raise SerializationError(
            f"event {details['id']} that {call.id} received does not fit its model: {error}"
        ) from error
    return ReceivedEvent(
        data=data,
        type=event.name,
        source=details["source"],
        id=details["id"],
        time=details.get("time"),
        datacontenttype=details.get("datacontenttype"),
        subject=details.get("subject"),
        extensions=details.get("extensions", {}),
    )


def misfit(event: CloudEvent, model: Any) -> Exception | None:
    """Why an event does not fit the model of a wait; validators of the user's own may raise anything."""
    try:
        decode_event_data(event.json, event.blob, model)
    except Exception as error:
        return error
    return None


def activity_error(event: HistoryEvent) -> BaseException:
    """The error that an `ActivityFailed` row raises in the body."""
    cause = decode_error(event.output or "{}")
    metadata: dict[str, Any] = event.details().get("retry_metadata") or {}
    if metadata.get("exhausted"):
        return exhausted_error(event.name, metadata["total_attempts"], cause)
    return cause


def decode_result(workflow_name: str, output: str | None, blob: bytes | None) -> object:
    """The result of a workflow; with its annotation where the workflow is known in this process."""
    if output is None and blob is None:
        return None
    declared: Workflow[..., object] | None = workflows.get(workflow_name)
    codec = plan_of(declared).signature.result if declared is not None else _UNTYPED
    return codec.decode(Stored(output, blob))


def ending_error(instance_id: str, status: str, error: str | None) -> BaseException:
    """What waiting for an instance raises that did not complete."""
    decoded = decode_error(error) if error else EddaError(f"Workflow instance '{instance_id}' ended as {status}")
    if isinstance(decoded, (CompensationFailedError, WorkflowCancelledException)):
        decoded.instance_id = instance_id
    return decoded
