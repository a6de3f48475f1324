"""edda in FastAPI: the app and its instances as dependencies, and edda's errors as answers.

`setup(api, app)` makes the lifespan of the app part of the API's, and from then on `Edda` and `Instance` are parameters
of its endpoints. Errors are answered as edda's own routes answer them (docs/how-to/http.md), with the same body.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

from edda.app import EddaApp
from edda.exceptions import (
    ConflictError,
    DatabaseUnavailableError,
    InstanceNotFoundError,
    MissingExtraError,
    NotCancellableError,
    NotRepairableError,
    ShuttingDownError,
)
from edda.http.answers import Problem, problem_of
from edda.workflow import WorkflowHandle

try:
    from fastapi import Depends, FastAPI, Response
    from fastapi.requests import HTTPConnection, Request
except ImportError as error:
    raise MissingExtraError(what=__name__, package="fastapi", extra="fastapi") from error

__all__ = ["Edda", "Instance", "setup"]

_CONFLICTS: Final = (ConflictError, NotRepairableError)
_ANSWERED: Final = (
    *_CONFLICTS,
    DatabaseUnavailableError,
    InstanceNotFoundError,
    NotCancellableError,
    ShuttingDownError,
)


def setup(api: FastAPI, app: EddaApp) -> None:
    """Begin and end the app with the API, beside the lifespan that this has; answer edda's errors.

    Before the API is served, and once for one API.
    """
    inner = api.router.lifespan_context

    @asynccontextmanager
    async def both(_: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with app.lifespan() as state, inner(api) as own:
            yield {**state, **(own or {})}

    api.router.lifespan_context = both
    for kind in _ANSWERED:
        api.add_exception_handler(kind, _answer)


def app_of(connection: HTTPConnection) -> EddaApp:
    """The app that the API was set up with."""
    app = getattr(connection.state, "edda", None)
    if not isinstance(app, EddaApp):
        raise RuntimeError("there is no edda here: call edda.adapters.fastapi.setup(api, app) before the API is served")
    return app


Edda = Annotated[EddaApp, Depends(app_of)]
"""As the annotation of a parameter: the app."""


async def instance_of(instance_id: str, app: Edda) -> WorkflowHandle[Any]:
    """The instance that the path names; 404 where there is none."""
    handle = app.handle(instance_id)
    await handle.status()
    return handle


Instance = Annotated[WorkflowHandle[Any], Depends(instance_of)]
"""As the annotation of a parameter: the instance that `{instance_id}` in the path names."""


async def _answer(request: Request, error: Exception) -> Response:
    problem = _conflict(error) if isinstance(error, _CONFLICTS) else problem_of(error)
    answer = problem.answer
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, status_code=answer.status, headers=headers, media_type="application/json")


def _conflict(error: Exception) -> Problem:
    return Problem(status=409, error_type="conflict", error=str(error))
