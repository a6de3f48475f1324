"""Sinks by the scheme of their URL. Each is one file; what it needs is imported when a URL asks for it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final
from urllib.parse import urlsplit

from edda.outbox.sink import Sink

GROUP: Final = "edda.sinks"
OURS: Final = {
    "http": "http",
    "https": "http",
    "kafka": "kafka",
    "nats": "nats",
    "tls": "nats",
    "amqp": "amqp",
    "amqps": "amqp",
    "redis": "redis",
    "rediss": "redis",
}
"""The module for each scheme."""


def sink_for(url: str) -> Sink:
    """The sink that a URL names; not connected yet. `ValueError` says what is wrong with it."""
    scheme = urlsplit(url).scheme.lower()
    if scheme in OURS:
        make: Callable[[str], Sink] = import_module(f"edda.outbox.sinks.{OURS[scheme]}").make
        return make(url)
    for found in entry_points(group=GROUP, name=scheme):
        theirs: Callable[[str], Sink] = found.load()
        return theirs(url)
    known = sorted({*OURS, *(found.name for found in entry_points(group=GROUP))} - {"tls"})
    # Not the whole URL: it may hold a password.
    raise ValueError(f"no sink is known for broker_url='{scheme}://...'; there are {', '.join(known)}")
