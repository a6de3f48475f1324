"""A web server for tests: it answers what it is told, byte by byte if need be, and keeps what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Request(NamedTuple):
    line: str
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.encode()]
        assert len(found) <= 1
        return found[0].decode("latin-1") if found else None


def response(status: int = 202, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer; `_` in the name of a header is a `-`."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Web:
    url: str = ""
    requests: list[Request] = field(default_factory=list[Request])
    answer: Callable[[Request, asyncio.StreamWriter], Awaitable[None] | bytes | None] = lambda *_: response()
    """Bytes to send, or a coroutine that writes by itself, or None: hang up."""
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    line, *rest = head[:-4].split(b"\r\n")
                    headers = [(name, value.strip()) for name, _, value in (each.partition(b":") for each in rest)]
                    length = int(dict((name.lower(), value) for name, value in headers).get(b"content-length", b"0"))
                    request = Request(line.decode(), headers, await reader.readexactly(length))
                    self.requests.append(request)
                    answer = self.answer(request, writer)
                    if answer is None:
                        break
                    if isinstance(answer, bytes):
                        writer.write(answer)
                    else:
                        await answer
                    await writer.drain()
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def web() -> AsyncGenerator[Web]:
    found = Web()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(found.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/broker?tenant=a%2Fb"
    try:
        yield found
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
