"""OpenTelemetry: spans of what workflows do, made through the API only.

`EddaApp(tracing=OpenTelemetry())`, or nothing at all where a tracer provider is set before the app is initialised. The
provider, its exporter and sampling are the user's. One span for each *slice* of an instance (from a claim to its park
or end: a workflow that waits for a week holds no span for a week), linked to the slice before; in it one for each
attempt of an activity; and one for each delivery from the outbox. All slices of an instance are in the trace of what
started it.

Laws: nothing of the user's values is put into a span: no arguments, results, data of events, nor texts of errors
(`error_details=True` adds those). No span is made for what is replayed.
"""

from __future__ import annotations

from typing import Final

from edda.core.trace import carrier_of, trace_of
from edda.exceptions import MissingExtraError
from edda.telemetry import AttemptFacts, EventFacts, SliceFacts

try:
    from opentelemetry import trace as api
    from opentelemetry.context import Context, attach
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise MissingExtraError(what="Tracing", package="opentelemetry-api", extra="otel") from error

SPEC_VERSION: Final = "1.0"
NO_ERRORS: Final = frozenset({"cancelled", "completed", "delivered", "dropped", "interrupted", "parked"})
"""Outcomes that are as somebody wanted them, whatever was raised on the way."""

_W3C: Final = TraceContextTextMapPropagator()


def is_set_up() -> bool:
    """Whether somebody has set a tracer provider for this process."""
    return not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider | api.NoOpTracerProvider)


class OpenTelemetry:
    """The `Tracing` of an app."""

    def __init__(self, tracer_provider: api.TracerProvider | None = None, *, error_details: bool = False) -> None:
        """`tracer_provider`: by default the global one. `error_details`: record messages and stacks of errors, too."""
        self._tracer = api.get_tracer("edda", tracer_provider=tracer_provider)
        self._error_details = error_details

    def current(self) -> str | None:
        return _text_of(None)

    def slice(self, facts: SliceFacts, *, parent: str | None, follows: str | None) -> OpenTelemetrySpan:
        return self._start(
            f"workflow {facts.workflow}",
            {
                "edda.workflow.name": facts.workflow,
                "edda.instance_id": facts.instance_id,
                "edda.worker_id": facts.worker,
                "edda.claim": facts.claim,
                "edda.replayed_rows": facts.replayed,
            },
            parent=parent,
            links=_link(follows, {"edda.link": "slice before"}),
        )

    def attempt(self, facts: AttemptFacts, *, parent: str | None) -> OpenTelemetrySpan:
        return self._start(
            f"activity {facts.activity}",
            {
                "edda.workflow.name": facts.workflow,
                "edda.instance_id": facts.instance_id,
                "edda.worker_id": facts.worker,
                "edda.claim": facts.claim,
                "edda.activity.name": facts.activity,
                "edda.activity.id": facts.activity_id,
                "edda.activity.attempt": facts.attempt,
            },
            parent=parent,
        )

    def delivery(self, event: EventFacts, *, system: str, attempt: int, parent: str | None) -> OpenTelemetrySpan:
        return self._start(
            f"send {event.type}",
            {
                "messaging.system": system,
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.message.id": event.id,
                "edda.delivery.attempt": attempt,
                **_cloudevent(event),
            },
            parent=parent,
            kind=api.SpanKind.PRODUCER,
        )

    def _start(
        self,
        name: str,
        attributes: dict[str, str | int],
        *,
        parent: str | None,
        kind: api.SpanKind = api.SpanKind.INTERNAL,
        links: list[api.Link] | None = None,
    ) -> OpenTelemetrySpan:
        # An empty context to begin with: whatever span the event loop happens to be in is none of ours.
        context = _W3C.extract(carrier_of(parent), context=Context())
        span = self._tracer.start_span(name, context=context, kind=kind, attributes=attributes, links=links)
        return OpenTelemetrySpan(span, error_details=self._error_details)


class OpenTelemetrySpan:
    """One span."""

    __slots__ = ("_context", "_error_details", "_span", "trace")

    def __init__(self, span: api.Span, *, error_details: bool) -> None:
        self._span = span
        self._error_details = error_details
        self._context = api.set_span_in_context(span, Context())
        self.trace = _text_of(self._context)

    def enter(self) -> None:
        attach(self._context)  # for good: the context ends with the task or the thread's call

    def received(self, trace: str, event: EventFacts) -> None:
        for link in _link(trace, {"messaging.operation.type": "receive", **_cloudevent(event)}):
            self._span.add_link(link.context, link.attributes)

    def end(self, outcome: str, error: BaseException | None = None) -> None:
        self._span.set_attribute("edda.outcome", outcome)
        if outcome not in NO_ERRORS:
            self._fail(error)
        self._span.end()

    def _fail(self, error: BaseException | None) -> None:
        description = None
        if error is not None:
            self._span.set_attribute("error.type", _name_of(type(error)))
            if self._error_details:
                description = str(error)
                self._span.record_exception(error)
        self._span.set_status(api.Status(api.StatusCode.ERROR, description))


def _text_of(context: Context | None) -> str | None:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context=context)
    return trace_of(carrier)


def _link(trace: str | None, attributes: dict[str, str]) -> list[api.Link]:
    there = api.get_current_span(_W3C.extract(carrier_of(trace), context=Context())).get_span_context()
    return [api.Link(there, attributes)] if there.is_valid else []


def _cloudevent(event: EventFacts) -> dict[str, str]:
    """As the semantic conventions name them. The subject is left out: it may say whom the event is about."""
    return {
        "cloudevents.event_id": event.id,
        "cloudevents.event_source": event.source,
        "cloudevents.event_spec_version": SPEC_VERSION,
        "cloudevents.event_type": event.type,
    }


def _name_of(kind: type[BaseException]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
