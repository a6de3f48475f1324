"""A stored error for people: type, message, stack trace, causes. Nothing is made of it but text. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from edda.viewer import words
from edda.viewer.loose import as_object, read, text_of

CAUSES_MAX: Final = 8
MESSAGE_MAX: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    type: str
    message: str
    stack_trace: str = ""
    causes: tuple[str, ...] = ()
    """`Type: message` of what it was raised from, and so on."""

    @property
    def line(self) -> str:
        """In one line."""
        message = " ".join(self.message.split())
        return f"{self.type}: {message}" if message else self.type

    @property
    def origin(self) -> str:
        """Where it was raised, out of the stack trace: `shop.py:71, in pay`."""
        frames = re.findall(r'^ *File "([^"\n]+)", line (\d+), in (.+)$', self.stack_trace, re.MULTILINE)
        if not frames:
            return ""
        path, line, function = frames[-1]
        name = path.replace("\\", "/").rpartition("/")[2]
        return f"{name}:{line}, in {function}"


def failure_of(text: str | None) -> Failure | None:
    """Of an error as it is stored; text that is none is shown as it is."""
    if not text:
        return None
    record = as_object(read(text)) or {}
    if not text_of(record, "error_type"):
        return Failure(type="Error", message=words.end_cut(text, MESSAGE_MAX))
    return Failure(
        type=text_of(record, "error_type"),
        message=words.end_cut(text_of(record, "error_message"), MESSAGE_MAX),
        stack_trace=text_of(record, "stack_trace"),
        causes=tuple(_causes(record)),
    )


def _causes(record: dict[str, Any]) -> list[str]:
    found: list[str] = []
    cause = as_object(record.get("cause"))
    while cause is not None and len(found) < CAUSES_MAX:
        found.append(f"{text_of(cause, 'error_type')}: {text_of(cause, 'error_message')}")
        cause = as_object(cause.get("cause"))
    return found
