"""One order over two worker processes, one of them killed: events in, events out, and one linked trace at an OTLP
receiver."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings

from tests.databases import available, fresh_database
from tests.outbox.web import Web, web

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 60.0
CUSTOMER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""What the order was placed in."""
BANK = "00-11111111111111111111111111111111-2222222222222222-01"
"""What the payment was made in."""


def trace_id(traceparent: str) -> bytes:
    return bytes.fromhex(traceparent.split("-")[1])


def span_id(traceparent: str) -> bytes:
    return bytes.fromhex(traceparent.split("-")[2])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Traces:
    """All spans that came, and a way to wait for one."""

    def __init__(self, receiver: OtelTapHttpProtobufReceiver) -> None:
        self.spans: list[Span] = []
        self._came = asyncio.Condition()
        self._receiver = receiver

    async def read(self) -> None:
        async for span in self._receiver.stream_traces():
            async with self._came:
                self.spans.append(span)
                self._came.notify_all()

    def named(self, name: str) -> list[Span]:
        found = [span for span in self.spans if span.name == name]
        return sorted(found, key=lambda span: span.start_time_unix_nano)

    async def until(self, condition: Callable[[Traces], bool]) -> None:
        async with asyncio.timeout(SECONDS_MAX), self._came:
            await self._came.wait_for(lambda: condition(self))


@contextlib.asynccontextmanager
async def traces() -> AsyncIterator[tuple[Traces, str]]:
    port = free_port()
    async with OtelTapHttpProtobufReceiver(OtelTapHttpProtobufReceiverSettings(http_port=port)) as receiver:
        found = Traces(receiver)
        reading = asyncio.create_task(found.read())
        await asyncio.sleep(0)
        try:
            yield found, f"http://127.0.0.1:{port}/v1/traces"
        finally:
            reading.cancel()
            await asyncio.wait({reading})


@contextlib.asynccontextmanager
async def shop(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A worker process, and the URL of its app. It is killed afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.telemetry.shop", *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS_MAX):
            port = int(await process.stdout.readline())
        yield process, f"http://127.0.0.1:{port}/events"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def send(url: str, event: dict[str, object], **headers: str) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        answer = await client.post(
            url, content=json.dumps(event), headers={"content-type": "application/cloudevents+json", **headers}
        )
    assert answer.status_code == 202, answer.text


def event(kind: str, **more: object) -> dict[str, object]:
    return {"specversion": "1.0", "id": f"e-{kind}", "source": "test", "type": kind, "data": {"order_id": "7"}, **more}


def sent_to(sink: Web, kind: str) -> tuple[dict[str, str], str]:
    """The event that the sink got, and the `traceparent` of its delivery."""
    for request in sink.requests:
        body = json.loads(request.body)
        if body["type"] == kind:
            return body, request.header("traceparent") or ""
    raise AssertionError(f"no {kind} among {sink.requests}")


@pytest.mark.process
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "database",
    [pytest.param("postgresql", marks=pytest.mark.postgresql), pytest.param("mysql", marks=pytest.mark.mysql)],
)
async def test_an_order_an_event_and_the_outbox_are_one_linked_trace_over_two_processes(database: str) -> None:
    if available()[database] is None:
        pytest.skip(f"there is no {database} server")
    with fresh_database(database) as url:
        async with web() as sink, traces() as (found, receiver):
            async with shop(url, sink.url, receiver) as (process, door):
                await send(door, event("order.placed", traceparent=CUSTOMER))
                await found.until(lambda all: bool(all.named("send order.charged")) and parked(all))
                process.kill()
                await process.wait()
            async with shop(url, sink.url, receiver) as (_, door):
                await send(door, event("payment.received"), traceparent=BANK)
                await found.until(lambda all: bool(all.named("send order.shipped")) and ended(all))
    slices = found.named("workflow order.placed")
    assert {slice.trace_id for slice in slices} == {trace_id(CUSTOMER)}
    assert {slice.parent_span_id for slice in slices} == {span_id(CUSTOMER)}
    assert len({attribute(slice, "edda.worker_id") for slice in slices}) == 2
    assert len({attribute(slice, "edda.instance_id") for slice in slices}) == 1
    for before, slice in itertools.pairwise(slices):
        assert before.span_id in [link.span_id for link in slice.links]
    assert (trace_id(BANK), span_id(BANK)) in [(link.trace_id, link.span_id) for link in slices[-1].links]
    for name, slice in (("charge", slices[0]), ("ship", slices[-1])):
        (activity,) = found.named(f"activity {name}_traced")
        kind = "order.charged" if name == "charge" else "order.shipped"
        deliveries = found.named(f"send {kind}")  # a second one, if the process died before it had noted the first
        assert (activity.trace_id, activity.parent_span_id) == (slice.trace_id, slice.span_id)
        for delivery in deliveries:
            assert (delivery.trace_id, delivery.parent_span_id) == (activity.trace_id, activity.span_id)
            assert delivery.kind == Span.SPAN_KIND_PRODUCER
        body, header = sent_to(sink, kind)
        assert (trace_id(body["traceparent"]), span_id(body["traceparent"])) == (activity.trace_id, activity.span_id)
        assert (trace_id(header), span_id(header)) in [(span.trace_id, span.span_id) for span in deliveries]


def attribute(span: Span, name: str) -> str:
    (value,) = [pair.value.string_value for pair in span.attributes if pair.key == name]
    return str(value)


def parked(found: Traces) -> bool:
    slices = found.named("workflow order.placed")
    return bool(slices) and attribute(slices[-1], "edda.outcome") == "parked" and has(found, "activity charge_traced")


def ended(found: Traces) -> bool:
    return any(attribute(slice, "edda.outcome") == "completed" for slice in found.named("workflow order.placed"))


def has(found: Traces, name: str) -> bool:
    return bool(found.named(name))
