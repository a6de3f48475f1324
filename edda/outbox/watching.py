"""Watching deliveries: a span and a measurement for each event that is handed to a sink. Nothing of it when nobody
watches.

The event itself says what sent it (`traceparent`, the same in every delivery); the headers of one delivery say which
attempt to deliver it this is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from edda.core.trace import carrier_of
from edda.outbox.sink import Answer, Delivered, Outgoing, Reject, Retry
from edda.storage.outbox import LeasedMessage
from edda.telemetry import EventFacts, Meters, Span, Tracing

SYSTEMS: Final = {"amqp": "rabbitmq", "amqps": "rabbitmq", "rediss": "redis", "https": "http"}
"""Names that OpenTelemetry has for what a scheme of a URL leads to, where it is not the scheme."""


class DeliveryFailed(Exception):
    """How a delivery went, for those who watch: the reason stays in the database."""


class Watch:
    """Of one relayer."""

    def __init__(
        self, tracing: Tracing | None, meters: Meters | None, *, system: str, steady_us: Callable[[], int]
    ) -> None:
        self.tracing = tracing
        self.meters = meters
        self.system = system
        self.steady_us = steady_us

    def begin(self, leased: Sequence[LeasedMessage]) -> WatchedCall:
        """To be called in the task of the call."""
        return WatchedCall(self, leased)


class WatchedCall:
    """One call of the sink."""

    def __init__(self, watch: Watch, leased: Sequence[LeasedMessage]) -> None:
        self._watch = watch
        self._began_us = watch.steady_us()
        self._spans: list[Span | None] = [self._span_of(one) for one in leased]
        if len(self._spans) == 1 and self._spans[0] is not None:
            self._spans[0].enter()  # what the sink's own client traces is a part of it

    def _span_of(self, leased: LeasedMessage) -> Span | None:
        tracing, message = self._watch.tracing, leased.message
        if tracing is None:
            return None
        event = EventFacts(id=message.id, source=message.source, type=message.type)
        return tracing.delivery(event, system=self._watch.system, attempt=leased.attempts + 1, parent=message.trace)

    def marked(self, events: Sequence[Outgoing]) -> list[Outgoing]:
        """The events, each with the trace context of its own delivery."""
        return [
            event if span is None else event._replace(headers=carrier_of(span.trace))
            for event, span in zip(events, self._spans, strict=True)
        ]

    def ended(self, answers: Sequence[Answer]) -> None:
        for span, answer in zip(self._spans, answers, strict=True):
            self._end(span, *_in_a_word(answer))

    def cut_off(self) -> None:
        """The relayer stops, and nobody knows."""
        for span in self._spans:
            self._end(span, "cut_off", None)

    def _end(self, span: Span | None, outcome: str, error: Exception | None) -> None:
        watch = self._watch
        if watch.meters is not None:
            seconds = (watch.steady_us() - self._began_us) / 1_000_000
            watch.meters.delivery_ended(outcome, seconds=seconds)
        if span is not None:
            span.end(outcome, error)


def _in_a_word(answer: Answer) -> tuple[str, Exception | None]:
    match answer:
        case Delivered():
            return "delivered", None
        case Retry(reason=reason):
            return "retried", DeliveryFailed(reason)
        case Reject(reason=reason):
            return "rejected", DeliveryFailed(reason)


def system_of(broker_url: str | None) -> str:
    """What kind of thing events are sent to, such as `kafka` or `http`."""
    scheme = (broker_url or "").partition(":")[0].lower()
    return SYSTEMS.get(scheme, scheme)
