"""The HTTP face of an app, in raw ASGI: from a scope to an answer.

It knows routes, limits and authorizers, and one `Door`; what is behind that is not known here. Laws: an event is
answered with 202 only after the door says that it is stored; every way in passes `admit`; whatever goes wrong is turned
into an answer by `problem_of`, in one place; a request whose client has gone stores nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from edda.careful_log import CarefulLogger
from edda.http.answers import (
    Answer,
    Problem,
    Refusal,
    encoded,
    later,
    logged,
    problem_of,
)
from edda.http.asgi import Receive, Scope, Send
from edda.http.authorizer import Authorizer, admit, admit_head, doorkeeper_of
from edda.http.body import ClientGone, announced_bytes, announces_body, read_body
from edda.http.door import Door
from edda.http.events import ID_CHARACTERS_MAX, take_answer, take_events
from edda.http.handshake import handshake
from edda.http.life import Life
from edda.http.options import HttpOptions
from edda.http.origin import check_origin
from edda.http.places import Places
from edda.http.request import Request, request_of
from edda.http.routes import Callback, Cancel, Event, Handshake, Health, NotAllowed, Readiness, route_of
from edda.telemetry import Tracing

log = CarefulLogger("edda.http")

CHECK_SECONDS: Final = 5.0
"""For `/readyz`: whoever asks usually gives up after a few seconds."""

_JSON: Final = ((b"content-type", b"application/json"), (b"x-content-type-options", b"nosniff"))
_CLOSE: Final = ((b"connection", b"close"),)

ALIVE: Final = Answer(200, encoded({"status": "alive"}))
READY: Final = Answer(200, encoded({"status": "ready"}))


def _untraced() -> Tracing | None:
    return None


class HttpApp:
    """An ASGI application. `EddaApp` is one itself, and hands its calls to this."""

    def __init__(
        self,
        door: Door,
        *,
        authorizer: Authorizer | None = None,
        options: HttpOptions | None = None,
        tracing: Callable[[], Tracing | None] = _untraced,
    ) -> None:
        self._door = door
        self._tracing = tracing
        self._authorizer = authorizer
        self._doorkeeper = doorkeeper_of(authorizer)
        self._options = options or HttpOptions()
        self._event_limits = self._options.event_limits()
        self._places = Places(self._options)
        self._life = Life(door)
        self._seen_host: str | None = None
        self._warned = authorizer is not None

    def lifespan(self, app: object = None) -> AbstractAsyncContextManager[dict[str, Door]]:
        """`FastAPI(lifespan=...)`, `Starlette(lifespan=...)`; or `async with` within a lifespan of your own."""
        return self._life.span()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "lifespan":
                await self._life.serve(receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1003, "reason": "edda speaks HTTP only"})
            case unknown:
                raise NotImplementedError(f"edda serves ASGI scopes http and lifespan, not {unknown!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = request_of(scope)
        try:
            answer = await self._answer(scope, request, receive)
        except ClientGone:
            return
        headers = (*_JSON, (b"content-length", str(len(answer.body)).encode()), *answer.headers)
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": list(headers)})
            await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" else answer.body})
        except OSError:
            log.debug("the client went before its answer (%d)", answer.status)

    async def _answer(self, scope: Scope, request: Request, receive: Receive) -> Answer:
        if not self._warned:
            self._warn_if_open_to_all(scope)
        whole = Reading(receive)
        try:
            answer = await self._serve(request, whole)
        except ClientGone:
            raise
        except Exception as error:
            answer = problem_of(error).answer
        if not whole.complete and announces_body(request.headers) and scope.get("http_version", "1.1") < "2":
            return answer._replace(headers=(*answer.headers, *_CLOSE))  # what is still to come is no next request
        return answer

    async def _serve(self, request: Request, whole: Reading) -> Answer:
        check_headers(request, self._options)
        route = route_of(request.method, request.path, handshake=bool(self._options.webhook_origins))
        match route:
            case Event() | Cancel() | Callback():
                return await self._take(route, request, whole)
            case Health():
                return ALIVE
            case Readiness():
                return await self._readiness()
            case Handshake():
                return handshake(request, self._options)
            case NotAllowed(allow):
                raise Refusal(_not_allowed(request.method, allow))

    async def _take(self, route: Event | Cancel | Callback, request: Request, whole: Reading) -> Answer:
        if not isinstance(route, Callback):  # whose token is leave enough
            if self._authorizer is None:
                check_origin(request)
            admit_head(self._doorkeeper, request)
        self._places.check()
        with self._places.reading(request.client):
            request = await whole.body(request, self._options)
        with self._places.in_flight():
            return await self._handle(route, request)

    async def _handle(self, route: Event | Cancel | Callback, request: Request) -> Answer:
        deadline = asyncio.timeout(self._options.answer_timeout_seconds)
        try:
            async with deadline:
                await self._life.ensure()
                if isinstance(route, Cancel):
                    return await self._cancel(request, route.instance_id)
                if isinstance(route, Callback):
                    return await take_answer(self._door, request, route.token, self._event_limits)
                tracing = self._tracing()
                return await take_events(self._door, self._authorizer, request, self._event_limits, tracing)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            text = "There was no answer in time; it may have been stored: try again, the same event is stored once"
            return logged(later(503, "timeout", text), error).answer

    async def _cancel(self, request: Request, instance_id: str) -> Answer:
        check_id(instance_id)
        principal = await admit(self._authorizer, request, "cancel", instance_id)
        await self._door.cancel(instance_id, by=principal.name)
        return Answer(202, encoded({"status": "cancelling", "instance_id": instance_id}))

    async def _readiness(self) -> Answer:
        """Where nobody tells us of a lifespan, the first probe begins the app: no other request may ever come."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._life.ensure()
                if await self._door.check():
                    return READY
        except Exception as error:
            log.warning("not ready: %s: %s", type(error).__name__, error)
        return later(503, "not_ready", "This worker cannot serve now").answer

    def _warn_if_open_to_all(self, scope: Scope) -> None:
        server = scope.get("server")
        host = str(server[0]) if server else None
        if host == self._seen_host:
            return
        self._seen_host = host
        if host is not None and is_reachable(host):
            self._warned = True
            log.warning(
                "%s can be reached by others, and everyone who reaches it may send events and cancel workflows: "
                "set EddaApp(authorizer=...), for example edda.http.BearerToken, or serve it on 127.0.0.1 only",
                host,
            )


class Reading:
    """The body of one request, read at most once."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.complete = False

    async def body(self, request: Request, options: HttpOptions) -> Request:
        """The request with its body."""
        body = await read_body(self._receive, announced_bytes(request.headers), options)
        self.complete = True
        return request.with_body(body)


def check_headers(request: Request, options: HttpOptions) -> None:
    size = sum(len(name) + len(value) for name, value in request.headers)
    if len(request.headers) > options.max_headers or size > options.max_header_bytes:
        text = f"More than {options.max_headers} headers, or more than {options.max_header_bytes} bytes of them"
        raise Refusal(Problem(status=431, error_type="headers_too_large", error=text))


def check_id(instance_id: str) -> None:
    if not instance_id:
        raise Refusal(
            Problem(status=400, error_type="missing_instance_id", error="Which instance? POST /cancel/{instance_id}")
        )
    try:
        instance_id.encode()
    except UnicodeEncodeError:
        storable = False
    else:
        storable = "\x00" not in instance_id and len(instance_id) <= ID_CHARACTERS_MAX
    if not storable:
        raise Refusal(Problem(status=400, error_type="invalid_instance_id", error="No instance can have this id"))


def is_reachable(host: str) -> bool:
    """By others than this machine, as far as one can see: names and sockets of the file system are not judged."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _not_allowed(method: str, allow: str) -> Problem:
    return Problem(
        status=405,
        error_type="method_not_allowed",
        error=f"{method} is not answered here; {allow} is",
        headers=((b"allow", allow.encode()),),
    )
