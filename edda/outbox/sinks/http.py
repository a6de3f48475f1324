"""Events to an HTTP endpoint, as CloudEvents: a broker of Knative, a webhook, another edda.

JSON goes in structured mode, bytes in binary mode as they are. Laws (S21):
- One fixed URL. No redirect is followed: it would lead where nobody allowed us to go.
- 5 seconds to connect, 30 for everything; of the answer no more than 64 KiB is read. TLS is verified, proxies from the
  environment are not used.
- 408, 425, 429, 5xx, and no answer at all mean "later", and so do 404 and 409: what is being deployed has them for a
  moment. Any other 3xx and 4xx means that the same event would be refused for ever.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from edda.cloudevents import CloudEventError, Message, to_binary, to_structured
from edda.core.event import CloudEvent
from edda.outbox.sink import Answer, Delivered, Outgoing, Reject, Retry, Sink

CONNECT_SECONDS_MAX: Final = 5.0
SECONDS_MAX: Final = 30.0
ANSWER_BYTES_MAX: Final = 64 * 1024
CALLS_MAX: Final = 32
USER_AGENT: Final = "edda"
LATER: Final = frozenset({404, 408, 409, 425, 429})
QUOTED_CHARS: Final = 200
"""Of an answer, in the reason of a dead letter."""


class Response(NamedTuple):
    """What counts of an answer."""

    status: int
    retry_after: str | None
    body: bytes
    """At most the first 64 KiB."""


class Client(Protocol):
    """An HTTP library that keeps the laws above."""

    async def post(self, url: str, message: Message) -> Response: ...

    async def close(self) -> None: ...


def make(url: str) -> Sink:
    if not urlsplit(url).hostname:
        raise ValueError("broker_url='http://...' names no host")
    return HttpSink(url)


def best_client() -> Client:
    """aiohttp where it is installed: a request costs it a fifth of the time."""
    if is_installed("aiohttp"):
        from edda.outbox.sinks.http_aiohttp import AiohttpClient

        return AiohttpClient()
    from edda.outbox.sinks.http_httpx2 import Httpx2Client

    return Httpx2Client()


def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


class HttpSink:
    """One POST for each event."""

    batch_max = 1

    def __init__(self, url: str, *, client: Callable[[], Client] = best_client, calls_max: int = CALLS_MAX) -> None:
        self.calls_max = calls_max
        self._url = url
        self._make_client = client
        self._client: Client | None = None

    async def publish(self, events: Sequence[Outgoing]) -> Sequence[Answer]:
        return [await self._publish(outgoing) for outgoing in events]

    async def _publish(self, outgoing: Outgoing) -> Answer:
        try:
            message = formatted(outgoing.event)
        except CloudEventError as error:
            return Reject(f"this is no event of CloudEvents: {error}")
        if outgoing.headers:
            added = [(name.encode(), value.encode()) for name, value in outgoing.headers.items()]
            message = message._replace(headers=[*message.headers, *added])
        if self._client is None:
            self._client = self._make_client()
        async with asyncio.timeout(SECONDS_MAX):
            return judged(await self._client.post(self._url, message))

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def formatted(event: CloudEvent) -> Message:
    """Structured mode for JSON, binary mode for bytes."""
    return to_structured(event) if event.blob is None else to_binary(event)


def judged(response: Response, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Answer:
    """What a status means."""
    status = response.status
    if 200 <= status < 300:
        return Delivered()
    reason = f"HTTP {status}"
    if said := response.body[:QUOTED_CHARS].decode("utf-8", "replace").strip():
        reason += f": {said}"
    if status in LATER or status >= 500 or status < 200:
        return Retry(reason, after_seconds(response.retry_after, now))
    return Reject(reason)


def after_seconds(retry_after: str | None, now: Callable[[], datetime]) -> float | None:
    """The header `Retry-After`: seconds, or a date. Nonsense is no wish."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now()).total_seconds())
