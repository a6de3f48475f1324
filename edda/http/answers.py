"""What is sent back: an answer, and the problems that are answers, too.

Laws: the body of every error is `{"error": text, "error_type": word, "retryable": bool}`. A text is written here or by
whoever refuses; it is never the text of an error that was not meant for the client. Such an error gets an id, which
stands in the answer and in the log, and nothing else leaves the house.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from edda.careful_log import CarefulLogger
from edda.cloudevents import CloudEventError
from edda.exceptions import (
    DatabaseUnavailableError,
    ForbiddenError,
    InstanceNotFoundError,
    NotCancellableError,
    PayloadTooLargeError,
    ShuttingDownError,
)
from edda.http.asgi import Headers

log = CarefulLogger("edda.http")

RETRY_AFTER_SECONDS: Final = 1


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a request, or one event of a batch, is refused."""

    status: int
    error_type: str
    error: str
    retryable: bool = False
    error_id: str | None = None
    """Names the entry in the log."""
    headers: Headers = ()

    @property
    def fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"error": self.error, "error_type": self.error_type, "retryable": self.retryable}
        return fields if self.error_id is None else {**fields, "error_id": self.error_id}

    @property
    def answer(self) -> Answer:
        return Answer(self.status, encoded(self.fields), self.headers)


class Refusal(Exception):
    """Carries a problem to whoever answers."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.error_type)
        self.problem = problem


def encoded(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields).encode()


def retry_after(seconds: int) -> Headers:
    return ((b"retry-after", str(seconds).encode()),)


def later(status: int, error_type: str, error: str, *, seconds: int = RETRY_AFTER_SECONDS) -> Problem:
    """A problem that time may solve."""
    return Problem(status=status, error_type=error_type, error=error, retryable=True, headers=retry_after(seconds))


def problem_of(error: Exception) -> Problem:
    """What the client hears of any error; the one place that decides it."""
    match error:
        case Refusal():
            return error.problem
        case CloudEventError():
            return Problem(status=error.status, error_type=error.code, error=str(error))
        case ForbiddenError():
            return Problem(status=403, error_type="forbidden", error=str(error))
        case InstanceNotFoundError():
            return unknown_instance(error.instance_id)
        case NotCancellableError():
            text = f"Workflow instance '{error.instance_id}' is {error.status}: it cannot be cancelled any more"
            return Problem(status=409, error_type="not_cancellable", error=text)
        case PayloadTooLargeError():
            return Problem(status=413, error_type="payload_too_large", error="The data of the event is too large")
        case DatabaseUnavailableError():
            return logged(later(503, "database_unavailable", "The database does not answer; try again"), error)
        case ShuttingDownError():
            return shutting_down()
        case _:
            return logged(
                Problem(status=500, error_type="internal_error", error="Something went wrong here", retryable=True),
                error,
            )


def shutting_down() -> Problem:
    return later(503, "shutting_down", "This worker is shutting down; try again, another one will answer")


def unknown_instance(instance_id: str) -> Problem:
    return Problem(status=404, error_type="instance_not_found", error=f"There is no workflow instance '{instance_id}'")


def logged(problem: Problem, error: BaseException) -> Problem:
    """The problem with an id under which the log has all of it."""
    error_id = secrets.token_hex(8)
    log.error("request answered with %d, error_id %s", problem.status, error_id, exc_info=error)
    return Problem(
        status=problem.status,
        error_type=problem.error_type,
        error=problem.error,
        retryable=problem.retryable,
        error_id=error_id,
        headers=problem.headers,
    )
