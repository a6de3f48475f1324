"""Events that come in: each is judged alone, those that may are stored together, and each is told what became of it.

One event is a batch of one. The answer to a batch: where all events share one fate, its status is the status of the
whole (202 when all are stored); otherwise it is 207, and the body names every event by its index and id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import from_json

from edda.callbacks import answer_to
from edda.cloudevents import CloudEventError, Limits, normal, parse
from edda.core.event import JSON_TYPE, CloudEvent, Receipt
from edda.core.trace import TRACEPARENT, TRACESTATE, carrier_of, trace_of
from edda.exceptions import ForbiddenError
from edda.http.answers import Answer, Problem, Refusal, encoded, problem_of, unknown_instance
from edda.http.authorizer import Authorizer, admit
from edda.http.door import Door
from edda.http.request import Request
from edda.telemetry import Tracing

ID_CHARACTERS_MAX: Final = 255
READ_AT_ONCE_BYTES_MAX: Final = 64 << 10
"""What is read within some milliseconds, whatever it holds."""

ACCEPTED: Final = Answer(202, encoded({"status": "accepted"}))
ANSWERED_BEFORE: Final = Answer(202, encoded({"status": "answered before"}))


@dataclass(slots=True, kw_only=True)
class Item:
    """One event on its way: read, or refused; then stored, or refused."""

    id: str | None
    event: CloudEvent | None = None
    problem: Problem | None = None
    receipt: Receipt | None = None


async def take_events(
    door: Door, authorizer: Authorizer | None, request: Request, limits: Limits, tracing: Tracing | None = None
) -> Answer:
    items, is_batch = await _read(request, limits)
    if tracing is not None and (trace := tracing.current() or _trace_of(request)) is not None:
        for item in items:
            _say_what_caused(item, trace)
    for item in items:
        await _judge(item, authorizer, request)
    await _store(door, items)
    return batch_answer(items) if is_batch else _single_answer(items[0])


def _trace_of(request: Request) -> str | None:
    headers = {name: request.header(name) or "" for name in (TRACEPARENT, TRACESTATE)}
    return trace_of(headers)


def _say_what_caused(item: Item, trace: str) -> None:
    """An event that tells no trace context of its own is caused by what sent the request."""
    if item.event is not None and TRACEPARENT not in item.event.extensions:
        item.event = item.event._replace(extensions={**item.event.extensions, **carrier_of(trace)})


NO_SUCH_CALLBACK: Final = Problem(status=404, error_type="callback_not_found", error="There is no such callback")


async def take_answer(door: Door, request: Request, token: str, limits: Limits) -> Answer:
    """The answer to a callback: JSON, or bytes of any other type, kept as they are."""
    content_type = next(
        (value.decode("latin-1") for name, value in request.headers if name == b"content-type"), JSON_TYPE
    )
    try:
        event = answer_to(token, json=None, blob=request.body, content_type=content_type)
    except ValueError:
        raise Refusal(NO_SUCH_CALLBACK) from None
    item = Item(id=None, event=normal(event, limits))
    await _store(door, [item])
    if item.receipt is Receipt.NO_SUCH_INSTANCE:
        raise Refusal(NO_SUCH_CALLBACK)
    return ANSWERED_BEFORE if item.receipt is Receipt.DUPLICATE else _single_answer(item)


async def _read(request: Request, limits: Limits) -> tuple[list[Item], bool]:
    """A large body is read in a thread: a full batch takes a tenth of a second, in which the loop has other work."""
    if len(request.body) <= READ_AT_ONCE_BYTES_MAX:
        return read_items(request, limits)
    return await asyncio.to_thread(read_items, request, limits)


async def _judge(item: Item, authorizer: Authorizer | None, request: Request) -> None:
    if item.event is None:
        return
    try:
        await admit(authorizer, request, "event", item.event)
    except (Refusal, ForbiddenError) as error:
        item.problem = problem_of(error)


async def _store(door: Door, items: Sequence[Item]) -> None:
    """Those that nobody has refused, at once: they are durable together, or the whole request is answered 503."""
    admitted = [item for item in items if item.problem is None]
    if not admitted:
        return
    receipts = await door.accept([item.event for item in admitted if item.event is not None])
    for item, receipt in zip(admitted, receipts, strict=True):
        item.receipt = receipt
        item.problem = _problem_of_receipt(receipt, item.event)


def _problem_of_receipt(receipt: Receipt, event: CloudEvent | None) -> Problem | None:
    target = (event.target if event is not None else None) or ""
    match receipt:
        case Receipt.STORED | Receipt.DUPLICATE:
            return None
        case Receipt.NO_SUCH_INSTANCE:
            return unknown_instance(target)
        case Receipt.INSTANCE_ENDED:
            text = f"Workflow instance '{target}' has ended: it takes no more events"
            return Problem(status=410, error_type="instance_ended", error=text)


def _single_answer(item: Item) -> Answer:
    return ACCEPTED if item.problem is None else item.problem.answer


def batch_answer(items: Sequence[Item]) -> Answer:
    problems = [item.problem for item in items if item.problem is not None]
    entries = [_entry(index, item) for index, item in enumerate(items)]
    if not problems:
        return Answer(202, encoded({"status": "accepted", "events": entries}))
    statuses = {problem.status for problem in problems}
    one_fate = len(problems) == len(items) and len(statuses) == 1
    body: dict[str, object] = {
        "error": f"{len(problems)} of {len(items)} events were refused",
        "error_type": problems[0].error_type if one_fate else "batch_refused_in_part",
        "retryable": any(problem.retryable for problem in problems),
        "events": entries,
    }
    return Answer(statuses.pop() if one_fate else 207, encoded(body), problems[0].headers if one_fate else ())


def _entry(index: int, item: Item) -> dict[str, object]:
    entry: dict[str, object] = {"index": index, "id": item.id}
    if item.problem is not None:
        return {**entry, "status": item.problem.status, **item.problem.fields}
    outcome = item.receipt.value if item.receipt is not None else ""
    return {**entry, "status": 202, "outcome": outcome}


def read_items(request: Request, limits: Limits) -> tuple[list[Item], bool]:
    """And whether they came as a batch. Raises `CloudEventError` where there is nothing to judge one by one."""
    if any(name == b"content-encoding" and value != b"identity" for name, value in request.headers):
        text = "A body is taken as it is, not compressed: send it without Content-Encoding"
        raise Refusal(Problem(status=415, error_type="unsupported_encoding", error=text))
    try:
        parsed = parse(request.headers, request.body, limits)
    except (MemoryError, RecursionError):  # the same body would do it again: no sender should repeat it
        raise Refusal(Problem(status=400, error_type="too_complex", error="This cannot be read")) from None
    if isinstance(parsed, CloudEvent):
        return [Item(id=parsed.id, event=parsed)], False
    items = [_item(one) for one in parsed.events]
    if any(item.id is None for item in items):
        _name(items, request.body)
    return items, True


def _item(one: CloudEvent | CloudEventError) -> Item:
    return Item(id=one.id, event=one) if isinstance(one, CloudEvent) else Item(id=None, problem=problem_of(one))


def _name(items: Sequence[Item], body: bytes) -> None:
    """Events that could not be read are named to their sender by what they have as an id, if that is one."""
    try:
        elements: list[object] = from_json(body)
    except ValueError:
        return
    for item, element in zip(items, elements, strict=True):
        match element:
            case {"id": str(name)} if item.id is None:
                item.id = name[:ID_CHARACTERS_MAX]
            case _:
                pass
