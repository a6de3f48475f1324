"""The message brokers that the relayer's sinks are tested against: which there are.

Each is looked for on 127.0.0.1 at its usual port, or where `EDDA_TEST_NATS_URL`, `EDDA_TEST_REDIS_URL` and
`EDDA_TEST_AMQP_URL` say. What is not there is skipped, loudly; `EDDA_REQUIRE=nats,redis,amqp` makes that an error.
Kafka needs no server: librdkafka has a cluster to play with in its library.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from urllib.parse import urlsplit

import pytest

DEFAULTS = {
    "nats": "nats://127.0.0.1:4222",
    "redis": "redis://127.0.0.1:6379",
    "amqp": "amqp://guest:guest@127.0.0.1:5672/",
}


def broker(kind: str) -> str:
    """The URL of a broker; skips the test where there is none."""
    url, problem = _found(kind)
    if problem:
        if kind in os.environ.get("EDDA_REQUIRE", "").replace(" ", "").split(","):
            pytest.fail(f"EDDA_REQUIRE asks for {kind}, but there is none: {problem}")
        pytest.skip(f"there is no {kind} server: {problem}")
    return url


def report_lines() -> list[str]:
    return [f"{kind}: {problem or url.rpartition('@')[2]}" for kind in DEFAULTS for url, problem in [_found(kind)]]


@cache
def _found(kind: str) -> tuple[str, str]:
    """The URL, and what is wrong with it."""
    url = os.environ.get(f"EDDA_TEST_{kind.upper()}_URL", DEFAULTS[kind])
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=5):
            return url, ""
    except OSError as error:
        return url, f"{parts.hostname}:{parts.port}: {error}"
