"""What sinks share: their URL, the form of an event for brokers that are not HTTP, and an answer for each event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from edda.cloudevents import CloudEventError, normal, to_structured
from edda.cloudevents.data import attributes_of
from edda.cloudevents.http_binding import STRUCTURED
from edda.core.event import CloudEvent
from edda.exceptions import MissingExtraError
from edda.outbox.sink import Answer, Delivered, Outgoing, Reject, Retry

CONNECT_SECONDS_MAX = 5.0
SECONDS_MAX = 30.0


class RefusedForEver(Exception):
    """The broker would never take this event."""


class BrokerUrl(NamedTuple):
    """A URL whose options are ours, not the client library's."""

    parts: SplitResult
    options: Mapping[str, str]

    @property
    def bare(self) -> str:
        """For the client library."""
        return self.parts._replace(query="", fragment="").geturl()

    @property
    def path(self) -> str:
        return unquote(self.parts.path.strip("/"))


def broker_url(url: str, *options: str) -> BrokerUrl:
    """`ValueError` names what is missing or unknown, and never the whole URL: it may hold a password."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(given.keys() - set(options)):
        known = ", ".join(f"{option}=" for option in options) or "none"
        raise ValueError(
            f"broker_url='{parts.scheme}://...' has an unknown option {unknown[0]!r}; its options are: {known}"
        )
    if not parts.hostname:
        raise ValueError(f"broker_url='{parts.scheme}://...' names no host")
    return BrokerUrl(parts, given)


def library(module: str, *, package: str, extra: str) -> Any:
    """A client library, untyped; they differ in how much they say about themselves."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(what=f"A broker_url of {extra}", package=package, extra=extra) from error


class Content(NamedTuple):
    """An event as a message. Structured: the body is the whole event. Binary: the attributes go beside it."""

    type: str
    attributes: Mapping[str, str]
    body: bytes


def content_of(event: CloudEvent) -> Content:
    """Structured mode for JSON, binary mode for bytes. CloudEventError if it is no event of CloudEvents."""
    if event.blob is None:
        return Content(STRUCTURED, {}, to_structured(event).body)
    event = normal(event)
    return Content(event.datacontenttype or "application/octet-stream", attributes_of(event), event.blob or b"")


def filled(template: str, event: CloudEvent) -> str:
    """`{type}` in the name of a topic, a subject or a routing key stands for the event's type."""
    return template.replace("{type}", event.type)


async def each(events: Sequence[Outgoing], send: Callable[[Outgoing, Content], Awaitable[object]]) -> list[Answer]:
    """Send all at once; what fails for one is the fate of that one."""
    return list(await asyncio.gather(*(_one(outgoing, send) for outgoing in events)))


async def _one(outgoing: Outgoing, send: Callable[[Outgoing, Content], Awaitable[object]]) -> Answer:
    try:
        await send(outgoing, content_of(outgoing.event))
    except CloudEventError as error:
        return Reject(f"this is no event of CloudEvents: {error}")
    except RefusedForEver as error:
        return Reject(str(error))
    except Exception as error:
        return Retry(f"{type(error).__name__}: {error}")
    return Delivered()
