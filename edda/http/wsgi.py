"""The ASGI application as a WSGI one: a request waits in its own thread while the app's loop answers it.

The body is read by the request's thread, piece by piece and only when the application asks: so the limits, and who may
send a body at all, are decided in one place, before the bytes are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import suppress
from http import HTTPStatus
from queue import SimpleQueue
from typing import Any, Final, NamedTuple, Protocol

from edda.http.asgi import Headers, Message, Receive, Scope, Send

Environ = dict[str, Any]

PIECE_BYTES: Final = 64 << 10


class StartResponse(Protocol):
    def __call__(self, status: str, headers: list[tuple[str, str]], /) -> object: ...


WsgiApplication = Callable[[Environ, StartResponse], Iterable[bytes]]

AsgiApplication = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]


class _Read(NamedTuple):
    """The application wants a piece of the body."""

    answer: Callable[[Message], object]


class _End(NamedTuple):
    error: BaseException | None


class Wsgi:
    """Callable as WSGI has it."""

    def __init__(self, app: AsgiApplication, *, submit: Callable[[Coroutine[Any, Any, None]], Future[None]]) -> None:
        self._app = app
        self._submit = submit

    def __call__(self, environ: Environ, start_response: StartResponse) -> list[bytes]:
        exchange = _Exchange(environ)
        future = self._submit(self._app(scope_of(environ), exchange.receive, exchange.send))
        future.add_done_callback(exchange.ended)
        exchange.serve_reads()
        status, headers, body = exchange.answer()
        start_response(f"{status} {HTTPStatus(status).phrase}", headers)
        return [body]


class _Exchange:
    """One request: its thread on one side, the loop on the other, a queue of wishes between them."""

    def __init__(self, environ: Environ) -> None:
        self._input = environ["wsgi.input"]
        self._left = bytes_left(environ)
        self._wishes: SimpleQueue[_Read | _End] = SimpleQueue()
        self._sent: list[Message] = []

    # -- in the loop ---

    async def receive(self) -> Message:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message] = loop.create_future()

        def answer(message: Message) -> None:
            if not future.done():  # else nobody waits any more: too slow
                future.set_result(message)

        def hand_over(message: Message) -> None:
            with suppress(RuntimeError):  # the loop has ended meanwhile: so has the exchange
                loop.call_soon_threadsafe(answer, message)

        self._wishes.put(_Read(hand_over))
        return await future

    async def send(self, message: Message) -> None:
        self._sent.append(message)

    def ended(self, future: Future[None]) -> None:
        self._wishes.put(_End(None if future.cancelled() else future.exception()))

    # -- in the thread of the request ---

    def serve_reads(self) -> None:
        while isinstance(wish := self._wishes.get(), _Read):
            wish.answer(self._next())
        if wish.error is not None:
            raise wish.error

    def _next(self) -> Message:
        try:
            piece: bytes = self._input.read(PIECE_BYTES if self._left is None else min(PIECE_BYTES, self._left))
        except OSError:
            return {"type": "http.disconnect"}
        if self._left is None:
            return {"type": "http.request", "body": piece, "more_body": bool(piece)}
        self._left -= len(piece)
        if self._left and not piece:  # it ended before the length that was announced
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": self._left > 0}

    def answer(self) -> tuple[int, list[tuple[str, str]], bytes]:
        if not self._sent:  # the client has gone, or the portal was closed
            return 503, [("Content-Length", "0")], b""
        start, *parts = self._sent
        headers = [
            (name.decode("latin-1").title(), value.decode("latin-1"))
            for name, value in start["headers"]
            if name != b"connection"  # is for the server to say, under WSGI
        ]
        return start["status"], headers, b"".join(part.get("body", b"") for part in parts)


def bytes_left(environ: Environ) -> int | None:
    """Of the body; None where the server ends it (`wsgi.input_terminated`)."""
    length = environ.get("CONTENT_LENGTH") or ""
    if length.isdigit():
        return int(length)
    return None if environ.get("wsgi.input_terminated") else 0


def scope_of(environ: Environ) -> Scope:
    """WSGI's strings are bytes in disguise: latin-1."""
    root_path = _text(environ.get("SCRIPT_NAME", ""))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": environ.get("SERVER_PROTOCOL", "HTTP/1.1").partition("/")[2],
        "method": environ["REQUEST_METHOD"],
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "path": root_path + _text(environ.get("PATH_INFO", "")),
        "root_path": root_path,
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "headers": list(_headers(environ)),
        "client": (environ["REMOTE_ADDR"], 0) if environ.get("REMOTE_ADDR") else None,
        "server": (environ.get("SERVER_NAME", ""), int(environ.get("SERVER_PORT") or 0)),
    }


def _text(disguised: str) -> str:
    return disguised.encode("latin-1", "replace").decode("utf-8", "replace")


def _headers(environ: Environ) -> Iterable[tuple[bytes, bytes]]:
    found: Headers = tuple(
        (name.removeprefix("HTTP_").replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
    )
    return found


class Beside:
    """Two WSGI applications in one, by the beginning of the path."""

    def __init__(
        self,
        portal: WsgiApplication,
        other: WsgiApplication,
        prefix: str,
    ) -> None:
        if not prefix.startswith("/") or prefix.endswith("/"):
            raise ValueError(f"prefix must begin with a slash and not end with one, as '/workflows', not {prefix!r}")
        self._portal = portal
        self._other = other
        self._prefix = prefix

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path != self._prefix and not path.startswith(self._prefix + "/"):
            return self._other(environ, start_response)
        below = {
            **environ,
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + self._prefix,
            "PATH_INFO": path[len(self._prefix) :],
        }
        return self._portal(below, start_response)
