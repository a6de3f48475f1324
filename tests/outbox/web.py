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

    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _port: int = 0

    async def listen_again(self) -> None:
        """On the port it had before."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/broker?tenant=a%2Fb"

    async def stop_listening(self) -> None:
        """Nobody is there; connections break."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextlib.asynccontextmanager
async def web() -> AsyncGenerator[Web]:
    found = Web()
    await found.listen_again()
    try:
        yield found
    finally:
        await found.stop_listening()
