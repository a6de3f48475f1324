"""Which instances have which value in a field of their arguments: both are reduced to a *term*, and equal terms match.

A workflow declares its search fields; each of its instances is stored with one term per field. Pure: JSON text in,
hashes out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NewType

from edda.core.routing import canonical
from edda.core.tree import MISSING, member_of

Term = NewType("Term", str)

FIELDS_MAX: Final = 16
"""Search fields of one workflow: each costs a row per instance."""
PATH_CHARS_MAX: Final = 255
"""What every database can hold in a key."""


class SearchField(NamedTuple):
    """A declared field: `path` are the name of a parameter and those of members in it, joined by dots."""

    path: str
    position: int | None
    """Where the parameter stands when it is passed by position; None: it is passed by name only."""


def term_of(workflow: str, path: str, value: object) -> Term | None:
    """What stands for this value of this field. None for what is no scalar: it cannot be searched for."""
    text = canonical(value)
    if text is None:
        return None
    return Term(hashlib.sha256(json.dumps([workflow, path, text], separators=(",", ":")).encode()).hexdigest())


def terms_of(workflow: str, recorded: str, fields: Sequence[SearchField]) -> tuple[Term, ...]:
    """The terms of an instance that was started with these recorded arguments."""
    if not fields:
        return ()
    try:
        tree: Any = json.loads(recorded)
    except (ValueError, RecursionError):  # an integer of 5,000 digits: it can be run, and not be searched for
        return ()
    found = {term_of(workflow, field.path, _value_of(tree, field)) for field in fields}
    return tuple(sorted(term for term in found if term is not None))


def _value_of(recorded: Any, field: SearchField) -> Any:
    first, *others = field.path.split(".")
    value = member_of(recorded["kwargs"], first)
    if value is MISSING and field.position is not None and field.position < len(recorded["args"]):
        value = recorded["args"][field.position]
    for name in others:
        value = member_of(value, name)
    return value
