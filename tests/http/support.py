"""A door that only remembers, and a way to call an ASGI application without a server."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edda.core.event import CloudEvent, Receipt
from edda.exceptions import InstanceNotFoundError, NotCancellableError
from edda.http.asgi import Message, Receive, Scope, Send

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class FakeDoor:
    """Knows the instances it is told of. What `failure` names is raised by every verb."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.ended: set[str] = set()
        self.stored: dict[tuple[str, str], CloudEvent] = {}
        self.cancelled: list[tuple[str, str]] = []
        self.life: list[str] = []
        self.failure: BaseException | None = None
        self.before: Callable[[], Awaitable[None]] | None = None
        self.ready = True

    async def accept(self, events: Sequence[CloudEvent]) -> Sequence[Receipt]:
        await self._may()
        return [self._accept(event) for event in events]

    def _accept(self, event: CloudEvent) -> Receipt:
        if event.target in self.ended:
            return Receipt.INSTANCE_ENDED
        if event.target is not None and event.target not in self.running:
            return Receipt.NO_SUCH_INSTANCE
        if (event.source, event.id) in self.stored:
            return Receipt.DUPLICATE
        self.stored[event.source, event.id] = event
        return Receipt.STORED

    async def cancel(self, instance_id: str, *, by: str) -> None:
        await self._may()
        if instance_id in self.ended:
            raise NotCancellableError(instance_id, "completed")
        if instance_id not in self.running:
            raise InstanceNotFoundError(instance_id)
        self.cancelled.append((instance_id, by))

    async def initialize(self) -> None:
        await self._may()
        self.life.append("initialize")

    async def shutdown(self) -> None:
        self.life.append("shutdown")

    async def check(self) -> bool:
        await self._may()
        return self.ready

    async def _may(self) -> None:
        if self.before is not None:
            await self.before()
        if self.failure is not None:
            raise self.failure


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def scope_of(
    method: str, path: str, headers: Mapping[str, str] | Iterable[tuple[str, str]] = (), *, root_path: str = ""
) -> Scope:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogatepass"),
        "root_path": root_path,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
        "client": ("127.0.0.1", 4711),
        "server": ("127.0.0.1", 80),
    }


def chunk(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


GONE: Message = {"type": "http.disconnect"}


async def exchange(app: App, scope: Scope, messages: Iterable[Message]) -> Response | None:
    """None if the application sent nothing. After the last message the client is gone, as servers have it."""
    incoming = iter(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        return next(incoming, GONE)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return response_of(sent)


def response_of(sent: list[Message]) -> Response | None:
    if not sent:
        return None
    start, *parts = sent
    assert start["type"] == "http.response.start"
    assert all(part["type"] == "http.response.body" for part in parts)
    assert [bool(part.get("more_body")) for part in parts] == [True] * (len(parts) - 1) + [False]
    headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
    return Response(start["status"], headers, b"".join(part.get("body", b"") for part in parts))


async def call(
    app: App,
    method: str,
    path: str,
    body: bytes = b"",
    headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    *,
    root_path: str = "",
) -> Response:
    response = await exchange(app, scope_of(method, path, headers, root_path=root_path), [chunk(body)])
    assert response is not None
    return response


def event(id: str = "1", **attributes: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id, "source": "/shop", "type": "order.paid", **attributes}


STRUCTURED = {"content-type": "application/cloudevents+json"}
BATCH = {"content-type": "application/cloudevents-batch+json"}


async def post(app: App, content: Any, headers: Mapping[str, str] = STRUCTURED, path: str = "/") -> Response:
    """POST one event in structured mode, or with `BATCH` a list of them."""
    return await call(app, "POST", path, json.dumps(content).encode(), headers)
