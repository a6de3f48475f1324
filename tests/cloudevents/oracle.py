"""What has to hold for whatever comes in: events or CloudEventError, and what was read is normal and comes back."""

from __future__ import annotations

from collections.abc import Sequence

from edda.cloudevents import Batch, CloudEventError, Headers, normal, parse, to_batch, to_binary, to_structured
from edda.cloudevents.errors import STATUS
from edda.core.event import CloudEvent

Outcome = CloudEvent | CloudEventError | Batch


def outcome(headers: Headers, body: bytes) -> Outcome:
    try:
        return parse(headers, body)
    except CloudEventError as error:
        return error


def check(headers: Headers, body: bytes) -> Outcome:
    found = outcome(headers, body)
    events: Sequence[CloudEvent | CloudEventError] = found.events if isinstance(found, Batch) else [found]
    for event in events:
        if isinstance(event, CloudEventError):
            check_refusal(event)
        else:
            check_event(event)
    return found


def check_refusal(error: CloudEventError) -> None:
    assert error.status == STATUS[error.code]
    assert error.status in (400, 413, 415)
    assert not error.retryable
    message = str(error)
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 250


def check_event(event: CloudEvent) -> None:
    assert type(event) is CloudEvent
    assert normal(event) == event
    assert parse(*to_structured(event)) == event
    assert parse(*to_batch([event])) == Batch([event])
    if (event.datacontenttype or "").lower().startswith("application/cloudevents"):
        assert refused_in_binary_mode(event) == "not_for_binary_mode"
    else:
        assert parse(*to_binary(event)) == event


def refused_in_binary_mode(event: CloudEvent) -> str | None:
    try:
        to_binary(event)
    except CloudEventError as error:
        return error.code
    return None
