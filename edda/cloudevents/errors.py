"""The one way in which an event is refused: a code for programs, a status for HTTP, a message for people."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from edda.exceptions import EddaError

Code = Literal[
    "invalid_json",
    "duplicate_member",
    "too_deep",
    "invalid_event",
    "missing_attribute",
    "invalid_attribute",
    "repeated_header",
    "invalid_data",
    "not_for_binary_mode",
    "body_too_large",
    "batch_too_large",
    "headers_too_large",
    "attribute_too_large",
    "unsupported_format",
    "unsupported_charset",
]
"""Words that stay as they are: programs compare them."""

STATUS: Final[Mapping[Code, int]] = MappingProxyType(
    {
        "invalid_json": 400,
        "duplicate_member": 400,
        "too_deep": 400,
        "invalid_event": 400,
        "missing_attribute": 400,
        "invalid_attribute": 400,
        "repeated_header": 400,
        "invalid_data": 400,
        "not_for_binary_mode": 400,
        "body_too_large": 413,
        "batch_too_large": 413,
        "headers_too_large": 413,
        "attribute_too_large": 413,
        "unsupported_format": 415,
        "unsupported_charset": 415,
    }
)


class CloudEventError(EddaError):
    """This is no CloudEvent that can be taken. Sent again unchanged it would be refused again.

    The message may go back to whoever sent it: it quotes no more than an attribute's name, and in ASCII.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code: Final = code

    @property
    def status(self) -> int:
        """The HTTP status that says so."""
        return STATUS[self.code]


def quoted(name: str) -> str:
    """A name that somebody sent, fit to be shown."""
    return ascii(name if len(name) <= QUOTED_CHARS else name[:QUOTED_CHARS] + "...")


QUOTED_CHARS: Final = 40
