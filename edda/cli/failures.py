"""Exit codes, and what is said when a command fails: one line that names what to do."""

from __future__ import annotations

from argparse import Namespace
from typing import Final

from edda.exceptions import (
    ConflictError,
    DeadLetterNotFoundError,
    InstanceNotFoundError,
    MissingExtraError,
    StorageError,
)

DONE: Final = 0
NOT_WELL: Final = 1
"""It was refused, or what was looked for is not well: a failed instance, a finding of the doctor."""
USAGE: Final = 2
NOT_FOUND: Final = 3
DATABASE: Final = 4
INTERRUPTED: Final = 130


class Usage(Exception):
    """The command was given something that cannot be meant."""


class NotWell(Exception):
    """It was understood, and did not go well."""


def told(error: Exception, options: Namespace) -> tuple[int, str]:
    """The exit code of a failure, and its one line; where the database failed, that names it."""
    from edda.cli.options import url_of
    from edda.storage.sql.url import without_secrets

    code = code_of(error)
    text = " ".join(text_of(error).split())
    return code, f"{text} [database: {without_secrets(url_of(options))}]" if code == DATABASE else text


def code_of(error: Exception) -> int:
    # Imported only now that something failed: these make every command slower.
    from pydantic import ValidationError

    from edda.storage.port import UnknownOutcome
    from edda.storage.reads import PageTokenError

    match error:
        case InstanceNotFoundError() | DeadLetterNotFoundError():
            return NOT_FOUND
        case StorageError() | UnknownOutcome():
            return DATABASE
        case Usage() | MissingExtraError() | ValidationError() | PageTokenError():
            return USAGE
        case _:
            return NOT_WELL


def text_of(error: Exception) -> str:
    from pydantic import ValidationError

    from edda.storage.port import UnknownOutcome

    match error:
        case UnknownOutcome():
            return f"The database broke off before it answered; it may have happened, so look, then try again: {error}"
        case ValidationError():
            return "; ".join(f"{_place(one['loc'])}: {one['msg']}" for one in error.errors())
        case ConflictError():
            return (
                f"{error.instance_id} was started before, with other arguments or another workflow; choose another --id"
            )
        case DeadLetterNotFoundError():
            return f"There is no dead letter {error.event_id!r}; edda requeue lists those there are"
        case OSError() if error.strerror:
            return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        case _:
            return str(error) or type(error).__name__


def _place(place: tuple[int | str, ...]) -> str:
    return ".".join(map(str, place)) or "arguments"
