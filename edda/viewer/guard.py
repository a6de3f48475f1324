"""What stands before every page: is it our host, our origin, our visitor, and does the form come from a page of ours.

It must not know pages or databases. The laws, in the order in which they are asked:
1. A `Host` that is not on the list is refused: a name that somebody points here (DNS rebinding) gets nothing.
2. An `Origin` other than the host asked is refused, whatever the method; a POST without any needs `Sec-Fetch-Site`.
3. Without the token or its cookie there is nothing but the page that asks for the token, and what that is drawn with.
4. A POST carries the secret of its session's forms.
5. Every answer, refusals too, says that nothing of strangers may run in it, frame it, or keep it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edda.viewer.session import Sessions

LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
"""Hosts that only a browser on this machine can mean."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

POLICY: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; object-src 'none'; frame-src 'none'; worker-src 'none'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}

AskForToken = Callable[[HTTPConnection, bool], Response]
"""The page that asks for the token; True: a wrong one was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a request goes no further."""

    status: int
    text: str


class Guard:
    """ASGI, around the pages."""

    def __init__(
        self, app: ASGIApp, *, sessions: Sessions, allowed_hosts: Collection[str], ask_for_token: AskForToken
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._ask_for_token = ask_for_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _with_headers(send)
        connection = HTTPConnection(scope)
        answer = self._answer_instead(connection, str(scope["method"]))
        await (answer or self._app)(scope, receive, send)

    def _answer_instead(self, connection: HTTPConnection, method: str) -> Response | None:
        """None: come in."""
        headers = connection.headers
        refused = refused_host(headers, self._hosts) or refused_origin(headers, method)
        if refused is not None:
            return PlainTextResponse(refused.text + "\n", refused.status)
        if path_of(connection).startswith("/static/"):
            return None
        if method in SAFE_METHODS and "token" in connection.query_params:
            return self._take_token(connection, connection.query_params["token"])
        if self._knows(connection):
            return None
        if path_of(connection) == "/token" and method == "POST":
            return None
        if _came_from_elsewhere(headers, method):
            return _once_more(connection)
        return self._ask_for_token(connection, False)

    def _take_token(self, connection: HTTPConnection, token: str) -> Response:
        """A token in the address becomes a cookie, and leaves the address."""
        if not self._sessions.is_token(token):
            return self._ask_for_token(connection, True)
        response = RedirectResponse(_own_address(connection), 303)
        self.remember(connection, response)
        return response

    def remember(self, connection: HTTPConnection, response: Response) -> None:
        """Give the visitor the cookie."""
        response.set_cookie(
            self._sessions.cookie_name,
            self._sessions.new_cookie(),
            httponly=True,
            samesite="strict",
            secure=connection.url.scheme == "https",
            path=connection.scope.get("root_path", "") or "/",
        )

    def _knows(self, connection: HTTPConnection) -> bool:
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._sessions.is_token(token.strip()):
            connection.scope["edda.viewer.session"] = "bearer"
            return True
        cookie = connection.cookies.get(self._sessions.cookie_name, "")
        if not self._sessions.is_cookie(cookie):
            return False
        connection.scope["edda.viewer.session"] = cookie
        return True


def session_of(connection: HTTPConnection) -> str:
    """Of a visitor whom the guard let in."""
    session: str = connection.scope["edda.viewer.session"]
    return session


def path_of(connection: HTTPConnection) -> str:
    """Below the place where the viewer is mounted."""
    path: str = connection.scope["path"]
    return path.removeprefix(connection.scope.get("root_path", ""))


def refused_host(headers: Headers, allowed: Collection[str]) -> Refused | None:
    """Exactly one `Host`, and one of ours; any port is."""
    hosts = headers.getlist("host")
    if len(hosts) == 1 and host_of(hosts[0]) in allowed:
        return None
    return Refused(
        status=421, text="This viewer does not answer to that host name. Whoever runs it can allow it: allowed_hosts"
    )


def host_of(netloc: str) -> str:
    """Without the port, in lower case."""
    host, _, port = netloc.rpartition(":")
    return (host if host and port.isdigit() else netloc).lower()


def refused_origin(headers: Headers, method: str) -> Refused | None:
    """A page of another origin asks in its visitor's name."""
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site")
    refused = Refused(status=403, text="This came from a page of another origin")
    if origin is not None:
        return None if urlsplit(origin).netloc.lower() == headers.get("host", "").lower() else refused
    if method in SAFE_METHODS:
        return None
    if "authorization" in headers and site is None:  # no browser
        return None
    return None if site == "same-origin" else refused


def _came_from_elsewhere(headers: Headers, method: str) -> bool:
    """A link on another site was followed: a strict cookie does not come along, though the visitor may have one."""
    return (
        method == "GET"
        and headers.get("sec-fetch-site") == "cross-site"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _once_more(connection: HTTPConnection) -> Response:
    """Ask for the same page from here: then the cookie comes."""
    return PlainTextResponse("", 200, headers={"refresh": f"0; url={_own_address(connection)}"}, media_type="text/html")


def _own_address(connection: HTTPConnection) -> str:
    """Without the token. One slash at the beginning: two of them would be another host."""
    kept = QueryParams([(key, value) for key, value in connection.query_params.multi_items() if key != "token"])
    path = "/" + quote(connection.scope["path"]).lstrip("/")
    return path + (f"?{kept}" if kept else "")


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def send_with_headers(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            for name, value in HEADERS.items():
                headers[name] = value
            if "cache-control" not in headers:
                headers["cache-control"] = "no-store"
            message = {**message, "headers": headers.raw}
        await send(message)

    return send_with_headers
