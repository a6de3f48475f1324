"""What a page is asked for: the words of its address, read with patience. Pure.

Whatever somebody types is an answerable question or a `Misread`, never a stack trace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

WORDS_MAX: Final = 500
"""Characters of one parameter."""


class Misread(ValueError):
    """The address asks for something that does not exist; the text is for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`path`: the variable parts of the page's path; `words`: the parameters behind the question mark."""

    root: str = ""
    """Where the viewer is mounted, as it is written in an address."""
    here: str = ""
    """The path of the page, below the root, as it is written in an address."""
    path: Mapping[str, str] = field(default_factory=dict[str, str])
    words: Mapping[str, str] = field(default_factory=dict[str, str])
    only_mark: bool = False
    """Nobody sees the answer: it is asked only whether it is another than before."""

    def word(self, name: str) -> str:
        """As somebody typed it, without blanks around it."""
        return self.exact(name).strip()

    def exact(self, name: str) -> str:
        """As a link of ours has it."""
        word = self.words.get(name, "")
        if len(word) > WORDS_MAX:
            raise Misread(f"{name} is longer than {WORDS_MAX} characters")
        if "\x00" in word:
            raise Misread(f"{name} holds a character that nothing stored can hold")
        try:
            word.encode()
        except UnicodeEncodeError:
            raise Misread(f"{name} is no text") from None
        return word

    def whole(self, name: str, default: int, *, most: int = 1 << 53) -> int:
        word = self.word(name)
        if not word:
            return default
        if not word.isdecimal() or not word.isascii() or len(word) > 16 or int(word) > most:
            raise Misread(f"{name} is no whole number up to {most}")
        return int(word)

    def to(self, path: str, **words: str | int | None) -> str:
        """The address of another page."""
        kept = {name: value for name, value in words.items() if value not in (None, "")}
        return self.root + path + (f"?{urlencode(kept)}" if kept else "")

    def changed(self, **words: str | int | None) -> str:
        """The address of this page with other parameters; None takes one away."""
        return self.to(self.here, **{**self.words, **words})


def instance_path(instance_id: str) -> str:
    """Below the root. Dots alone would be taken for a way up."""
    return (
        f"/instances/{quote(instance_id, safe='')}"
        if instance_id.strip(".")
        else "/instances/" + "%2E" * len(instance_id)
    )


def moment_us(word: str) -> int | None:
    """Of a date and time as forms send it, in UTC; or a date alone."""
    if not word:
        return None
    try:
        at = datetime.fromisoformat(word)
    except ValueError:
        raise Misread(f"{word!r} is no date and time, as 2026-01-31T12:00 is") from None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return int(at.timestamp() * 1_000_000)


def argument_of(word: str) -> tuple[str, Any] | None:
    """`order.id = ORD-1`: the path of an input field, and a value. Quotation marks make a number a text."""
    if not word:
        return None
    path, equals, value = word.partition("=")
    if not equals or not path.strip():
        raise Misread("An input field is asked for like this: order.id = ORD-1")
    try:
        wanted = json.loads(value)
    except (ValueError, RecursionError):
        wanted = value.strip()
    if isinstance(wanted, dict | list):
        raise Misread("Only text, numbers, true, false and null can be asked for in input fields")
    return path.strip(), wanted
