"""Where a request goes: a pure function of its method and its path.

Routes are few and explicit; whatever else is POSTed, on any path, is a CloudEvent. The path has been percent-decoded
once, by the server, so an id may hold slashes: `/cancel/parent/call` and `/cancel/parent%2Fcall` are the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Health(NamedTuple):
    """Does the process live?"""


class Readiness(NamedTuple):
    """May it get traffic?"""


class Cancel(NamedTuple):
    instance_id: str


class Callback(NamedTuple):
    """The answer that a workflow waits for: whoever has the token may give it."""

    token: str


class Event(NamedTuple):
    """One CloudEvent, or a batch of them."""


class Handshake(NamedTuple):
    """May somebody deliver here? (CloudEvents WebHook)"""


class NotAllowed(NamedTuple):
    allow: str


Route = Health | Readiness | Cancel | Callback | Event | Handshake | NotAllowed

CANCEL: Final = "/cancel/"
CALLBACK: Final = "/callback/"
READS: Final = ("GET", "HEAD")


def route_of(method: str, path: str, *, handshake: bool) -> Route:
    """`handshake`: whether the WebHook handshake is configured."""
    if path == "/healthz":
        return Health() if method in READS else NotAllowed("GET, HEAD")
    if path == "/readyz":
        return Readiness() if method in READS else NotAllowed("GET, HEAD")
    if path.startswith(CANCEL) or path == "/cancel":
        return Cancel(path[len(CANCEL) :]) if method == "POST" else NotAllowed("POST")
    if path.startswith(CALLBACK):
        return Callback(path[len(CALLBACK) :]) if method == "POST" else NotAllowed("POST")
    if method == "POST":
        return Event()
    if method == "OPTIONS" and handshake:
        return Handshake()
    return NotAllowed("POST, OPTIONS" if handshake else "POST")
