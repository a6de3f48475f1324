"""What becomes a span, what is in it, and where trace contexts are kept."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
import pytest
from opentelemetry import trace as api
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from edda import EddaApp, RetryPolicy, WorkflowContext, activity, send_event, wait_event, workflow
from edda.core.trace import carrier_of, trace_of
from edda.otel import OpenTelemetry
from edda.telemetry import SliceFacts
from tests.outbox.web import response, web

OUTSIDE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "hunter2"


class Spans:
    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("user")

    def all(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.provider.shutdown()


def written(context: api.SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def text(span: ReadableSpan) -> str:
    assert span.context is not None
    return written(span.context)


def parent(span: ReadableSpan) -> str | None:
    return None if span.parent is None else written(span.parent)


def links(span: ReadableSpan) -> list[str]:
    return [written(link.context) for link in span.links]


def attribute(spans: Sequence[ReadableSpan], name: str) -> list[object]:
    return [(span.attributes or {})[name] for span in spans]


_spans: list[Spans] = []


@activity
async def otel_charge(ctx: WorkflowContext, card: str) -> str:
    with _spans[-1].tracer.start_as_current_span("the user's own"):
        return card


@activity
def otel_in_a_thread(ctx: WorkflowContext, card: str) -> str:
    with _spans[-1].tracer.start_as_current_span("in a thread"):
        return card


@workflow
async def otel_child(ctx: WorkflowContext) -> int:
    return 1


@workflow
async def otel_order(ctx: WorkflowContext, card: str) -> str:
    await otel_charge(ctx, card)
    await otel_in_a_thread(ctx, card)
    await otel_child.run()
    event = await wait_event(ctx, "otel.paid")
    return str(event.data["note"])


@activity(retry_policy=RetryPolicy(max_attempts=2, initial_interval=0.01))
async def otel_failure(ctx: WorkflowContext) -> None:
    raise ValueError(f"card {SECRET}")


@workflow
async def otel_failing(ctx: WorkflowContext) -> None:
    await otel_failure(ctx)


@activity
async def otel_starter(ctx: WorkflowContext) -> str:
    await send_event("otel.noted", "test", {})
    return str(await otel_child.start())


@workflow
async def otel_starting(ctx: WorkflowContext) -> str:
    return await otel_starter(ctx)


@workflow(name="otel.placed", event_handler=True)
async def otel_placed(ctx: WorkflowContext) -> None:
    await wait_event(ctx, "otel.confirmed")


def database(path: Path) -> str:
    return f"sqlite:///{path}/edda.db"


async def run_the_order(path: Path, spans: Spans, **options: int) -> str:
    _spans.append(spans)
    async with EddaApp(db_url=database(path), tracing=OpenTelemetry(spans.provider), **options) as app:
        with spans.tracer.start_as_current_span("the request"):
            handle = await app.start(otel_order, SECRET)
        while await handle.status() != "waiting_for_event":
            pass
        with spans.tracer.start_as_current_span("the payment"):
            await send_event("otel.paid", "test", {"note": SECRET})
        assert await handle.result(timeout=20) == SECRET
        return handle.id


@pytest.mark.parametrize("residents", [0, 10])
async def test_each_slice_is_part_of_the_start_and_linked_to_the_slice_before(
    tmp_path: Path, spans: Spans, residents: int
) -> None:
    await run_the_order(tmp_path, spans, max_residents=residents)
    (request,), (payment,) = spans.named("the request"), spans.named("the payment")
    slices = spans.named("workflow otel_order")
    assert len(slices) > 1
    assert {parent(slice) for slice in slices} == {text(request)}
    for before, slice in zip(slices, slices[1:], strict=False):  # noqa: RUF007 - two by two
        assert text(before) in links(slice)
    assert links(slices[0]) == []
    assert text(payment) in links(slices[-1])
    assert attribute(slices, "edda.outcome") == ["parked"] * (len(slices) - 1) + ["completed"]
    assert attribute(slices, "edda.claim") == list(range(1, len(slices) + 1))


async def test_what_the_user_traces_is_part_of_the_activity_also_in_a_thread(tmp_path: Path, spans: Spans) -> None:
    await run_the_order(tmp_path, spans)
    slices = [text(slice) for slice in spans.named("workflow otel_order")]
    for ours, theirs in (("otel_charge", "the user's own"), ("otel_in_a_thread", "in a thread")):
        (span,), (inner,) = spans.named(f"activity {ours}"), spans.named(theirs)
        assert parent(inner) == text(span)
        assert parent(span) in slices


def test_what_the_event_loop_happens_to_be_in_is_no_parent(spans: Spans) -> None:
    tracing = OpenTelemetry(spans.provider)
    facts = SliceFacts(instance_id="i", workflow="w", worker="me", claim=1, replayed=0)
    with spans.tracer.start_as_current_span("somebody else's"):
        tracing.slice(facts, parent=None, follows=None).end("parked")
    (slice,) = spans.named("workflow w")
    assert parent(slice) is None
    assert links(slice) == []


async def test_a_child_is_part_of_the_slice_that_started_it(tmp_path: Path, spans: Spans) -> None:
    await run_the_order(tmp_path, spans)
    (child,) = spans.named("workflow otel_child")
    assert parent(child) in [text(slice) for slice in spans.named("workflow otel_order")]


async def test_nothing_that_is_replayed_gets_a_span(tmp_path: Path, spans: Spans) -> None:
    await run_the_order(tmp_path, spans, max_residents=0)
    assert len(spans.named("activity otel_charge")) == len(spans.named("activity otel_in_a_thread")) == 1


async def test_no_value_of_the_users_is_in_a_span(tmp_path: Path, spans: Spans) -> None:
    await run_the_order(tmp_path, spans)
    await fail(tmp_path, spans, OpenTelemetry(spans.provider))
    assert SECRET not in "".join(span.to_json() for span in spans.all())


async def fail(path: Path, spans: Spans, tracing: OpenTelemetry) -> None:
    async with EddaApp(db_url=database(path), tracing=tracing) as app:
        handle = await app.start(otel_failing)
        with pytest.raises(Exception, match="otel_failure"):
            await handle.result(timeout=20)


async def test_errors_are_recorded_by_their_type_for_each_attempt(tmp_path: Path, spans: Spans) -> None:
    await fail(tmp_path, spans, OpenTelemetry(spans.provider))
    attempts = spans.named("activity otel_failure")
    assert attribute(attempts, "edda.activity.attempt") == [1, 2]
    assert attribute(attempts, "error.type") == ["ValueError", "ValueError"]
    assert attribute(attempts, "edda.activity.id") == ["otel_failure:1"] * 2
    slice = spans.named("workflow otel_failing")[-1]
    assert (slice.attributes or {})["edda.outcome"] == "failed"
    for span in (*attempts, slice):
        assert span.status.status_code is api.StatusCode.ERROR
        assert span.status.description is None
        assert not span.events


async def test_the_details_of_errors_are_recorded_where_that_is_asked_for(tmp_path: Path, spans: Spans) -> None:
    await fail(tmp_path, spans, OpenTelemetry(spans.provider, error_details=True))
    span = spans.named("activity otel_failure")[0]
    assert span.status.description == f"card {SECRET}"
    assert [event.name for event in span.events] == ["exception"]


async def test_what_an_activity_starts_and_sends_is_part_of_it(tmp_path: Path, spans: Spans) -> None:
    async with web() as sink:
        app = EddaApp(
            db_url=database(tmp_path), outbox_enabled=True, broker_url=sink.url, tracing=OpenTelemetry(spans.provider)
        )
        async with app:
            handle = await app.start(otel_starting)
            await app.handle(await handle.result(timeout=20)).result(timeout=20)
            while not spans.named("send otel.noted"):
                await app.check()
    (starter,) = spans.named("activity otel_starter")
    (child,) = spans.named("workflow otel_child")
    (delivery,) = spans.named("send otel.noted")
    assert parent(child) == parent(delivery) == text(starter)
    assert (delivery.attributes or {})["messaging.system"] == "http"


async def test_each_delivery_is_a_span_with_its_error(tmp_path: Path, spans: Spans) -> None:
    async with web() as sink:
        answers = iter([response(503, body=SECRET.encode(), retry_after="0"), response(202)])
        sink.answer = lambda *_: next(answers)
        app = EddaApp(
            db_url=database(tmp_path), outbox_enabled=True, broker_url=sink.url, tracing=OpenTelemetry(spans.provider)
        )
        async with app:
            await send_event("otel.noted", "test", {})
            while len(spans.named("send otel.noted")) < 2:
                await app.check()
    deliveries = spans.named("send otel.noted")
    assert attribute(deliveries, "edda.outcome") == ["retried", "delivered"]
    assert attribute(deliveries, "edda.delivery.attempt") == [1, 2]
    assert deliveries[0].status.status_code is api.StatusCode.ERROR
    assert SECRET not in deliveries[0].to_json()
    assert [request.header("traceparent") for request in sink.requests] == [text(one) for one in deliveries]
    bodies = [json.loads(request.body) for request in sink.requests]
    assert bodies[0] == bodies[1]


async def test_a_slice_after_a_crash_is_linked_to_what_was_written_before(tmp_path: Path, spans: Spans) -> None:
    """The row that a slice writes first says which slice that was: here nobody remembers but the database."""
    instance_id = await run_the_order(tmp_path, spans, max_residents=0)
    async with EddaApp(db_url=database(tmp_path), tracing=False) as app:
        history = await app.handle(instance_id).history()
    traces = [entry.event_data["trace"] for entry in history if "trace" in entry.event_data]
    slices = [text(slice) for slice in spans.named("workflow otel_order")]
    assert traces == [trace for trace in slices if trace in traces]
    assert len(traces) == len(set(traces)) >= 2


async def test_an_event_over_http_says_what_caused_the_instance(tmp_path: Path, spans: Spans) -> None:
    app = EddaApp(db_url=database(tmp_path), tracing=OpenTelemetry(spans.provider))
    async with app, httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://edda") as client:
        other = OUTSIDE.replace("b7ad", "0000")
        for number, (attributes, headers) in enumerate(
            [({"ce-traceparent": OUTSIDE}, {"traceparent": other}), ({}, {"traceparent": OUTSIDE, "tracestate": "a=1"})]
        ):
            answer = await client.post(
                "/",
                headers={
                    "ce-specversion": "1.0", "ce-id": str(number), "ce-source": "test", "ce-type": "otel.placed",
                    **attributes, **headers,
                },
            )  # fmt: skip
            assert answer.status_code == 202
        while len(spans.named("workflow otel.placed")) < 2:
            await app.check()
    slices = spans.named("workflow otel.placed")
    assert [parent(slice) for slice in slices] == [OUTSIDE, OUTSIDE]
    contexts = [slice.context for slice in slices]
    assert sorted(context.trace_state.to_header() for context in contexts if context) == ["", "a=1"]


@pytest.mark.parametrize(
    ("carrier", "found"),
    [
        ({"traceparent": OUTSIDE}, OUTSIDE),
        ({"traceparent": OUTSIDE, "tracestate": "a=1, b=2"}, f"{OUTSIDE} a=1, b=2"),
        ({"traceparent": OUTSIDE, "tracestate": "a=" + "x" * 600}, OUTSIDE),
        ({"traceparent": OUTSIDE, "tracestate": "a=\x01b"}, OUTSIDE),
        ({"traceparent": OUTSIDE.upper()}, None),
        ({"traceparent": "ff" + OUTSIDE[2:]}, None),
        ({"traceparent": OUTSIDE.replace("b7ad6b7169203331", "0" * 16)}, None),
        ({"traceparent": "nonsense"}, None),
        ({"tracestate": "a=1"}, None),
    ],
)
def test_only_what_has_the_form_of_a_trace_context_is_one(carrier: dict[str, str], found: str | None) -> None:
    assert trace_of(carrier) == found
    assert trace_of(carrier_of(found)) == found


PROBE = """
import asyncio, sys
{before}
from edda import EddaApp
async def main():
    async with EddaApp(db_url="sqlite://", {options}) as app:
        print(type(app._tracing).__name__, "edda.otel" in sys.modules)
asyncio.run(main())
"""
SET_UP = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("before", "options", "said"),
    [
        ("", "", "NoneType False"),
        ("import opentelemetry.trace", "", "NoneType True"),
        (SET_UP, "", "OpenTelemetry True"),
        (SET_UP, "tracing=False", "NoneType False"),
    ],
)
def test_tracing_is_on_where_opentelemetry_is_set_up(before: str, options: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before, options=options)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == said


@pytest.mark.process
@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("edda.otel", "opentelemetry", "otel"), ("edda.metrics", "prometheus_client", "prometheus")],
)
def test_without_the_package_the_error_names_the_extra(module: str, package: str, extra: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"edda-framework[{extra}]" in done.stderr.splitlines()[-1]
