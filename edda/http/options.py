"""Every bound of the HTTP face, with its motive."""

from __future__ import annotations

from dataclasses import dataclass

from edda.cloudevents import Limits
from edda.core.options import check_count, check_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How an app serves HTTP: `EddaApp(http=HttpOptions(max_in_flight=200))`."""

    max_body_bytes: int = 1 << 20
    """Reading stops here, whatever `content-length` said. The CloudEvents specification asks for at least 64 KiB."""
    max_batch_events: int = 100
    max_json_depth: int = 64
    max_attribute_bytes: int = 1024
    """For one attribute of an event."""
    max_headers: int = 100
    max_header_bytes: int = 16 << 10
    """All names and values together."""
    read_timeout_seconds: float = 30.0
    """For a whole body, however its pieces come."""
    answer_timeout_seconds: float = 30.0
    """For everything after the body: authorizing and storing."""
    max_in_flight: int = 64
    """Requests whose body is there and that are authorized and stored now; further ones are told to come again."""
    max_reading: int = 128
    """Bodies on their way at once: with `max_in_flight` and `max_body_bytes`, the memory that requests can hold."""
    max_reading_per_client: int = 32
    """Of these, from one client address. Raise it behind a proxy that passes slow bodies on as they come."""
    retry_after_seconds: int = 1
    """What a client is told to wait when there is no place."""
    webhook_origins: tuple[str, ...] = ()
    """Origins that may deliver here, by the WebHook handshake (`OPTIONS`); `("*",)` for any. Empty: no handshake."""
    webhook_requests_per_minute: int | None = None
    """What the handshake grants; None: no limit."""

    def __post_init__(self) -> None:
        check_count("max_body_bytes", self.max_body_bytes)
        check_count("max_batch_events", self.max_batch_events)
        check_count("max_json_depth", self.max_json_depth)
        check_count("max_attribute_bytes", self.max_attribute_bytes)
        check_count("max_headers", self.max_headers)
        check_count("max_header_bytes", self.max_header_bytes)
        self.event_limits()
        check_seconds("read_timeout_seconds", self.read_timeout_seconds, above=0)
        check_seconds("answer_timeout_seconds", self.answer_timeout_seconds, above=0)
        check_count("max_in_flight", self.max_in_flight)
        check_count("max_reading", self.max_reading)
        check_count("max_reading_per_client", self.max_reading_per_client)
        check_count("retry_after_seconds", self.retry_after_seconds)
        if isinstance(self.webhook_origins, str):
            raise TypeError(f"webhook_origins must be a tuple of origins: ({self.webhook_origins!r},)")
        if self.webhook_requests_per_minute is not None:
            check_count("webhook_requests_per_minute", self.webhook_requests_per_minute)

    def event_limits(self) -> Limits:
        """Those that are about events, for their parser."""
        return Limits(
            body_bytes=self.max_body_bytes,
            batch_events=self.max_batch_events,
            headers=self.max_headers,
            headers_bytes=self.max_header_bytes,
            attribute_bytes=self.max_attribute_bytes,
            json_depth=self.max_json_depth,
        )
