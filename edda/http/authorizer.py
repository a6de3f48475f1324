"""Who may do what: the hook, and the one function that asks it.

Laws: it is asked on every way in, for each event of a batch, about the very value that is used afterwards: the event
that is stored, the instance id that is cancelled. Whatever it does but return a `Principal` is a no.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol, runtime_checkable

from edda.core.event import CloudEvent
from edda.exceptions import ForbiddenError
from edda.http.answers import Problem, Refusal
from edda.http.request import Request

Action = Literal["event", "cancel"]

Resource = CloudEvent | str
"""For "event" the event, as it will be stored; for "cancel" the id of the instance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. The name stands beside what was done; it is no secret."""

    name: str


class Authorizer(Protocol):
    """`EddaApp(authorizer=...)`: decides about each event and each cancel that comes over HTTP."""

    async def authorize(self, request: Request, action: Action, resource: Resource) -> Principal | None:
        """Who it is. None: nobody we know (401). Raises `ForbiddenError`: known, but not allowed (403)."""
        ...


@runtime_checkable
class Doorkeeper(Protocol):
    """An authorizer that can tell from the headers alone whom it does not know: those send no body to us."""

    def knows(self, request: Request) -> bool: ...


ANYONE: Final = Principal(name="http")
"""Who asks where no authorizer is set."""


async def admit(authorizer: Authorizer | None, request: Request, action: Action, resource: Resource) -> Principal:
    """Raises Refusal or `ForbiddenError`."""
    if authorizer is None:
        return ANYONE
    return _checked(await authorizer.authorize(request, action, resource), authorizer)


def _checked(answer: object, authorizer: Authorizer) -> Principal:
    if answer is None:
        raise unauthorized()
    if not isinstance(answer, Principal):  # True is nobody's name
        raise TypeError(f"{authorizer!r}.authorize() must return a Principal or None, not {answer!r}")
    return answer


def doorkeeper_of(authorizer: object) -> Doorkeeper | None:
    """To be asked once: the question costs more than all else that is asked of a request."""
    return authorizer if isinstance(authorizer, Doorkeeper) else None


def admit_head(doorkeeper: Doorkeeper | None, request: Request) -> None:
    """Before the body is read."""
    if doorkeeper is not None and not doorkeeper.knows(request):
        raise unauthorized()


def unauthorized() -> Refusal:
    return Refusal(
        Problem(
            status=401,
            error_type="unauthorized",
            error="The request does not say who sends it, or not in a way that is accepted here",
            headers=((b"www-authenticate", b"Bearer"),),
        )
    )


class FirstOf:
    """The first of several authorizers that knows who asks; its no is a no.

    `FirstOf(StandardWebhooks(secret), BearerToken(token))` takes signed events, and everything from who has the token.
    """

    def __init__(self, *authorizers: Authorizer) -> None:
        if not authorizers:
            raise ValueError("FirstOf() needs at least one authorizer")
        self._authorizers = authorizers
        self._doorkeepers = tuple(doorkeeper_of(one) for one in authorizers)

    def __repr__(self) -> str:
        return f"FirstOf{self._authorizers!r}"

    def knows(self, request: Request) -> bool:
        return any(one is None or one.knows(request) for one in self._doorkeepers)

    async def authorize(self, request: Request, action: Action, resource: Resource) -> Principal | None:
        for authorizer in self._authorizers:
            if (principal := await authorizer.authorize(request, action, resource)) is not None:
                return principal
        return None


__all__ = ["Action", "Authorizer", "FirstOf", "ForbiddenError", "Principal", "Resource"]
