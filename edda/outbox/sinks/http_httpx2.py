"""The HTTP sink's client that is always there."""

from __future__ import annotations

from typing import Final

import httpx2

from edda.cloudevents import Message
from edda.outbox.sinks.http import ANSWER_BYTES_MAX, CALLS_MAX, CONNECT_SECONDS_MAX, SECONDS_MAX, USER_AGENT, Response

HEADERS: Final = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "identity"}


class Httpx2Client:
    def __init__(self) -> None:
        self._client = httpx2.AsyncClient(
            headers=HEADERS,
            timeout=httpx2.Timeout(SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
            limits=httpx2.Limits(max_connections=CALLS_MAX, max_keepalive_connections=CALLS_MAX),
            follow_redirects=False,
            trust_env=False,
        )

    async def post(self, url: str, message: Message) -> Response:
        self._client.cookies.clear()
        async with self._client.stream("POST", url, content=message.body, headers=message.headers) as answer:
            body = b""
            # Raw: nobody unpacks a bomb.
            async for chunk in answer.aiter_raw(ANSWER_BYTES_MAX):
                body += chunk
                if len(body) >= ANSWER_BYTES_MAX:
                    break
            return Response(answer.status_code, answer.headers.get("retry-after"), body[:ANSWER_BYTES_MAX])

    async def close(self) -> None:
        await self._client.aclose()
