"""The HTTP sink's quicker client."""

from __future__ import annotations

from typing import Final

import aiohttp
from yarl import URL

from edda.cloudevents import Message
from edda.outbox.sinks.http import ANSWER_BYTES_MAX, CALLS_MAX, CONNECT_SECONDS_MAX, SECONDS_MAX, USER_AGENT, Response

HEADERS: Final = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}


class AiohttpClient:
    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            headers=HEADERS,
            timeout=aiohttp.ClientTimeout(total=SECONDS_MAX, sock_connect=CONNECT_SECONDS_MAX),
            connector=aiohttp.TCPConnector(limit=CALLS_MAX),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def post(self, url: str, message: Message) -> Response:
        headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in message.headers]
        # Encoded: the URL is sent as it was given.
        request = self._session.post(URL(url, encoded=True), data=message.body, headers=headers, allow_redirects=False)
        async with request as answer:
            body = b""
            while len(body) < ANSWER_BYTES_MAX and (chunk := await answer.content.read(ANSWER_BYTES_MAX - len(body))):
                body += chunk
            if not answer.content.at_eof():
                answer.close()
            return Response(answer.status, answer.headers.get("retry-after"), body)

    async def close(self) -> None:
        await self._session.close()
