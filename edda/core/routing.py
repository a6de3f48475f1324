"""Which events answer which waits: both are reduced to a *route*, and equal routes match.

A wait names an event type and, for some fields, the value each must have. A route is the hash of all that. An event
has one route for each set of fields that waits for its type are known to use; the empty set is always among them.
Pure: JSON text in, hashes out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, NewType

from edda.core.event import CloudEvent

Route = NewType("Route", str)
EventKey = NewType("EventKey", str)

Fields = tuple[str, ...]
"""Names of fields, sorted: `subject` is the attribute, `.order_id` a member of the data, which is a JSON object."""

FIELDS_CHARS_MAX: Final = 255
"""Of `fields_text`: what every database can hold in a unique key."""

NO_FIELDS: Final[Fields] = ()
SUBJECT: Final = "subject"


def event_key(event: CloudEvent) -> EventKey:
    """What an event is stored under: the same for every copy of it."""
    return EventKey(hashlib.sha256(f"{event.source}\0{event.id}".encode()).hexdigest())


class Criteria(NamedTuple):
    """What a wait wants: an event of this type in which these fields have these values."""

    type: str
    fields: Fields
    route: Route
    where: str = ""
    """The fields and their values, for people."""

    @classmethod
    def of(cls, event_type: str, *, subject: str | None = None, match: Mapping[str, Any] | None = None) -> Criteria:
        """Raises ValueError where a value to match is no scalar of JSON."""
        values = {f".{name}": _wanted(name, value) for name, value in (match or {}).items()}
        if subject is not None:
            values[SUBJECT] = json.dumps(subject)
        fields = tuple(sorted(values))
        if len(fields_text(fields)) > FIELDS_CHARS_MAX:
            raise ValueError(
                f"the names in match= are too long: with quotes, dots and commas they may have {FIELDS_CHARS_MAX} "
                f"characters together, and have {len(fields_text(fields))}"
            )
        where = ", ".join(f"{name.removeprefix('.')}={values[name]}" for name in fields)
        return cls(event_type, fields, _route(event_type, [(name, values[name]) for name in fields]), where)

    def fits(self, event: CloudEvent) -> bool:
        """Whether an event is what is waited for, as far as its route tells."""
        return event.type == self.type and route_of(event, self.fields) == self.route


def routes_of(event: CloudEvent, known: Iterable[Fields]) -> dict[Fields, Route]:
    """The routes of an event: for the empty set of fields, and for each of the known ones that it has values for."""
    members = members_of(event)
    found = {fields: _route_from(event, members, fields) for fields in {NO_FIELDS, *known}}
    return {fields: route for fields, route in found.items() if route is not None}


def route_of(event: CloudEvent, fields: Fields) -> Route | None:
    """The route of an event for these fields; None where it lacks one of them."""
    return _route_from(event, members_of(event) if fields else {}, fields)


def fields_text(fields: Fields) -> str:
    """How a set of fields is stored."""
    return json.dumps(fields, separators=(",", ":"))


def fields_from(text: str) -> Fields:
    return tuple(json.loads(text))


def _route_from(event: CloudEvent, members: Mapping[str, Any], fields: Fields) -> Route | None:
    pairs: list[tuple[str, str]] = []
    for name in fields:
        value = _value_of(event, members, name)
        if value is None:
            return None
        pairs.append((name, value))
    return _route(event.type, pairs)


def _value_of(event: CloudEvent, members: Mapping[str, Any], name: str) -> str | None:
    if name == SUBJECT:
        return None if event.subject is None else json.dumps(event.subject)
    return canonical(members[name[1:]]) if name[1:] in members else None


def members_of(event: CloudEvent) -> Mapping[str, Any]:
    """The top level of its data. What cannot be read (numbers of 5,000 digits, say) has none, and spoils nothing."""
    if event.json is None or not event.json.lstrip().startswith("{"):
        return {}
    try:
        data: dict[str, Any] = json.loads(event.json)
    except (ValueError, RecursionError):
        return {}
    return data


def _route(event_type: str, pairs: Iterable[tuple[str, str]]) -> Route:
    text = json.dumps([event_type, *pairs], separators=(",", ":"))
    return Route(hashlib.sha256(text.encode()).hexdigest())


def _wanted(name: str, value: Any) -> str:
    text = canonical(value)
    if text is None:
        raise ValueError(
            f"match={{{name!r}: ...}} compares with a string, a number, True, False or None, and was given a "
            f"{type(value).__name__}"
        )
    return text


def canonical(value: Any) -> str | None:
    """A scalar as JSON text, the same for equal numbers (`1` and `1.0`); None for anything else."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, bool | str) or value is None:
        return json.dumps(value)
    return str(int(value)) if isinstance(value, int) else None
