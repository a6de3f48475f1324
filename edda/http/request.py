"""A request, as authorizers see it: a value, without a server behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edda.http.asgi import Headers, Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The facts of one request. `path` is the path within the app, below wherever it is mounted."""

    method: str
    path: str
    query: bytes
    headers: Headers
    client: str | None
    """The address of the other side, as the server tells it; behind a proxy that may be the proxy."""
    body: bytes = b""
    """Exactly as it was sent; empty while it has not been read."""

    def header(self, name: str) -> str | None:
        """Its value, if it was sent exactly once: of two values, nobody can say which one was meant."""
        wanted = name.lower().encode()
        values = [value for key, value in self.headers if key == wanted]
        return values[0].decode("latin-1").strip() if len(values) == 1 else None

    def with_body(self, body: bytes) -> Request:
        return replace(self, body=body)


def request_of(scope: Scope) -> Request:
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=path_within(scope["path"], scope.get("root_path") or ""),
        query=scope.get("query_string") or b"",
        headers=tuple((bytes(name).lower(), bytes(value)) for name, value in scope["headers"]),
        client=str(client[0]) if client else None,
    )


def path_within(path: str, root_path: str) -> str:
    """The path below the mount: ASGI has the whole path in `path`; some dispatchers have cut off the prefix already."""
    root = root_path.rstrip("/")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    return path or "/"
