"""Reading a body: never more than allowed, never longer than allowed, and never for a client that has gone."""

from __future__ import annotations

import asyncio

from edda.http.answers import Problem, Refusal
from edda.http.asgi import Headers, Receive
from edda.http.options import HttpOptions


class ClientGone(Exception):
    """Nobody is there to answer, and what came is not the whole of what was meant."""


async def read_body(receive: Receive, announced: int | None, options: HttpOptions) -> bytes:
    """The whole body. Raises Refusal and `ClientGone`."""
    limit = options.max_body_bytes
    if announced is not None and announced > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(options.read_timeout_seconds):
            return await _read(receive, limit)
    except TimeoutError:
        raise _too_slow(options.read_timeout_seconds) from None


async def _read(receive: Receive, limit: int) -> bytes:
    chunk, more = await _next(receive)
    if len(chunk) > limit:
        raise _too_large(limit)
    if not more:
        return chunk
    body = bytearray(chunk)
    while more:
        chunk, more = await _next(receive)
        if len(body) + len(chunk) > limit:
            raise _too_large(limit)
        body += chunk
        if not chunk:
            await asyncio.sleep(0)  # a server that never waits must not keep the timeout from firing
    return bytes(body)


async def _next(receive: Receive) -> tuple[bytes, bool]:
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGone
    return bytes(message.get("body") or b""), bool(message.get("more_body"))


def announced_bytes(headers: Headers) -> int | None:
    """What `content-length` says, if it says a number. Whether it is true is for the server to find out."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else None
    return None


def announces_body(headers: Headers) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


def _too_large(limit: int) -> Refusal:
    return Refusal(
        Problem(status=413, error_type="body_too_large", error=f"The body is larger than the limit of {limit} bytes")
    )


def _too_slow(seconds: float) -> Refusal:
    text = f"The body was not there after {seconds:g} seconds"
    return Refusal(Problem(status=408, error_type="body_too_slow", error=text, retryable=True))
