"""The viewer as a program of its own: on this machine only and read-only, unless somebody says otherwise."""

from __future__ import annotations

import ipaddress
import socket
import sys
import webbrowser
from collections.abc import Callable, Collection
from contextlib import suppress

import uvicorn

from edda.viewer.application import create_app
from edda.viewer.guard import LOOPBACK
from edda.viewer.session import new_token
from edda.viewer.starting import Code


def serve(
    url: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8787,
    allow_actions: bool = False,
    token: str | None = None,
    allowed_hosts: Collection[str] = (),
    open_browser: bool = False,
    app: Code | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Serve the viewer of the database at `url` until it is interrupted; returns then.

    `token`: what visitors must show; by default one is made by chance, and said once with the address to open. A host
    that others can reach needs a token of its own and the names under which it will be asked: ValueError without.
    `port` 0 takes any free one; one that is taken raises OSError. `app`: see `create_app`; it is not run. `say` gets
    each line for people.
    """
    if not is_loopback(host) and (token is None or not allowed_hosts):
        raise ValueError(
            f"On {host} others can reach the viewer: choose a token of your own, and say under which names it will be "
            "asked (allowed_hosts)"
        )
    token = token or new_token()
    say = say or _say
    viewer = create_app(
        url, token=token, allow_actions=allow_actions, allowed_hosts=(*LOOPBACK, *allowed_hosts), app=app
    )
    with socket.create_server((host, port), family=_family(host), backlog=128) as listener:
        address = f"http://{_shown(host)}:{listener.getsockname()[1]}/?token={token}"
        say(f"The viewer is at  {address}")
        say("It only looks." if not allow_actions else "It may act: start, cancel, retry, send events, requeue.")
        say("Ctrl-C ends it.")
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(viewer, log_level="warning", access_log=False, timeout_graceful_shutdown=1, ws="none")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def is_loopback(host: str) -> bool:
    """Only this machine can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
