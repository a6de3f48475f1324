"""Bearer tokens (RFC 6750), each with what its holder may do.

Tokens are compared by their hashes, all of them, in constant time; only the hashes are kept.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from edda.core.event import CloudEvent
from edda.exceptions import ForbiddenError
from edda.http.authorizer import Action, Principal, Resource
from edda.http.request import Request

ANY: Final = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the holder of one token may do. Patterns are exact, or begin with what stands before a final `*`."""

    token: str = field(repr=False)
    name: str
    """Of the holder: the principal."""
    sources: tuple[str, ...] = ANY
    """Of the events it may send."""
    types: tuple[str, ...] = ANY
    instances: tuple[str, ...] = ()
    """Those to which it may address events (`eddainstanceid`), and, with `cancel`, which it may cancel."""
    cancel: bool = False

    def __post_init__(self) -> None:
        if not self.token.strip() or not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            raise ValueError(f"the token of {self.name!r} must be visible ASCII characters without spaces")
        for option in ("sources", "types", "instances"):
            if isinstance(getattr(self, option), str):
                raise TypeError(f'{option} of {self.name!r} must be a tuple of patterns: ("order.*",)')


class BearerToken:
    """`Authorization: Bearer <token>`.

    A plain string is a token that may do everything: `BearerToken(os.environ["EDDA_TOKEN"])`. Several of them let
    tokens be changed without a break. A `Grant` may do only what it says.
    """

    def __init__(self, *tokens: str | Grant) -> None:
        if not tokens:
            raise ValueError("BearerToken() needs at least one token")
        self._grants = tuple((_hash(grant.token), grant) for grant in map(_grant_of, tokens))

    def __repr__(self) -> str:
        return f"BearerToken({', '.join(grant.name for _, grant in self._grants)})"

    def knows(self, request: Request) -> bool:
        return self._grant(request) is not None

    async def authorize(self, request: Request, action: Action, resource: Resource) -> Principal | None:
        grant = self._grant(request)
        if grant is None:
            return None
        if isinstance(resource, CloudEvent):
            _check_event(grant, resource)
        else:
            _check_cancel(grant, action, resource)
        return Principal(name=grant.name)

    def _grant(self, request: Request) -> Grant | None:
        scheme, _, token = (request.header("authorization") or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        sent = _hash(token.strip())
        found = [grant for known, grant in self._grants if hmac.compare_digest(known, sent)]
        return found[0] if found else None


def _grant_of(token: str | Grant) -> Grant:
    return token if isinstance(token, Grant) else Grant(token=token, name="bearer", instances=ANY, cancel=True)


def _check_event(grant: Grant, event: CloudEvent) -> None:
    if not fits(grant.sources, event.source):
        raise ForbiddenError(f"{grant.name} may not send events of source '{event.source}'")
    if not fits(grant.types, event.type):
        raise ForbiddenError(f"{grant.name} may not send events of type '{event.type}'")
    if event.target is not None and not fits(grant.instances, event.target):
        raise ForbiddenError(f"{grant.name} may not address events to instance '{event.target}'")


def _check_cancel(grant: Grant, action: Action, instance_id: str) -> None:
    if action != "cancel" or not grant.cancel or not fits(grant.instances, instance_id):
        raise ForbiddenError(f"{grant.name} may not cancel instance '{instance_id}'")


def fits(patterns: tuple[str, ...], value: str) -> bool:
    return any(value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern for pattern in patterns)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
