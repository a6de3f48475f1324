"""Events that came in, who waits for events, and which workflows are started by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from edda.core.lifecycle import Status
from edda.storage.port import InstanceRow
from edda.storage.reads import EventFilter, EventView, Handler, Page, Reader, Wait
from edda.viewer import words
from edda.viewer.asked import Asked, instance_path
from edda.viewer.knowledge import Knowledge
from edda.viewer.values import one_line, shown

WAITS_SHOWN: Final = 50
HANDLERS_SHOWN: Final = 200
BRIEF_MAX: Final = 120
"""Characters of an event's data that a list shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    found: Page[EventView] | None
    waits: Page[Wait] | None
    handlers: tuple[Handler, ...]
    waiting: Mapping[str, InstanceRow] = field(repr=False)
    """The instances of the waits."""


async def load(reads: Reader, asked: Asked) -> Facts:
    tab = asked.word("tab")
    page = asked.word("page") or None
    which = EventFilter(
        type=asked.word("type"), source=asked.word("source"), id=asked.word("id"), target=asked.word("target")
    )
    waits = await reads.wait_page(type=asked.word("type"), limit=WAITS_SHOWN, page=page) if tab == "waits" else None
    return Facts(
        found=await reads.event_page(which, page=page) if tab not in ("waits", "handlers") else None,
        waits=waits,
        handlers=await reads.handlers() if tab == "handlers" else (),
        waiting=await _waiting(reads, waits, asked),
    )


async def _waiting(reads: Reader, waits: Page[Wait] | None, asked: Asked) -> Mapping[str, InstanceRow]:
    if waits is None or asked.only_mark:
        return {}
    found: Mapping[str, InstanceRow] = await reads.instances([row.instance_id for row in waits.rows])
    return found


def view(facts: Facts, asked: Asked, _: Knowledge, *, now_us: int) -> Mapping[str, Any]:
    tab = asked.word("tab")
    tab = tab if tab in ("waits", "handlers") else "inbox"
    page: Page[Any] | None = facts.found or facts.waits
    older = page.next_page if page is not None else None
    return {
        "tab": tab,
        "tabs": [
            {"label": label, "href": asked.to("/events", tab=key), "chosen": key == tab}
            for key, label in (("inbox", "Received"), ("waits", "Waiting instances"), ("handlers", "Handlers"))
        ],
        "used": {name: asked.word(name) for name in ("type", "source", "id", "target")},
        "rows": [_row(row, asked, now_us=now_us) for row in facts.found.rows] if facts.found else [],
        "waits": [_wait(row, facts.waiting.get(row.instance_id), asked, now_us=now_us) for row in facts.waits.rows]
        if facts.waits
        else [],
        "handlers": [_handler(row, asked, now_us=now_us) for row in facts.handlers[:HANDLERS_SHOWN]],
        "older": asked.changed(page=older) if older else None,
        "newest": asked.changed(page=None) if asked.word("page") else None,
        "scanned_all": page is None or page.scanned_all,
    }


def _row(row: EventView, asked: Asked, *, now_us: int) -> Mapping[str, Any]:
    event = row.event
    data = shown(event.json, event.blob)
    attributes = [
        ("source", event.source),
        ("subject", event.subject),
        ("time", event.time),
        ("datacontenttype", event.datacontenttype),
        ("dataschema", event.dataschema),
        *event.extensions.items(),
    ]
    return {
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "at": words.moment(row.accepted_at_us, now_us=now_us),
        "routed": row.routed,
        "target": event.target,
        "target_href": asked.to(instance_path(event.target)) if event.target else None,
        "attributes": [(name, value) for name, value in attributes if value],
        "data": data,
        "brief": one_line(data, BRIEF_MAX),
    }


def _wait(row: Wait, instance: InstanceRow | None, asked: Asked, *, now_us: int) -> Mapping[str, Any]:
    """Since when and until when is known of an instance that waits for nothing else; None where it runs meanwhile."""
    parked = instance if instance is not None and instance.status is Status.WAITING_FOR_EVENT else None
    until_us = parked.claimable_at_us if parked else None
    return {
        "workflow": instance.workflow if instance else "",
        "criteria": criteria_of(parked.reason, row.wait.type) if parked else "",
        "since": words.moment(parked.updated_at_us, now_us=now_us) if parked else None,
        "until": words.moment(until_us, now_us=now_us) if until_us is not None else None,
        "instance_id": row.instance_id,
        "href": asked.to(instance_path(row.instance_id), call=row.wait.call_id),
        "call_id": row.wait.call_id,
        "type": row.wait.type,
    }


def criteria_of(reason: str, event_type: str) -> str:
    """Which events of its type are waited for, out of the reason of an instance: `expense_id="EXP-1"`."""
    told = reason.removeprefix("event ")
    rest = told.removeprefix(event_type).strip()
    alone = told.startswith(event_type) and rest.startswith("(") and rest.endswith(")")
    return rest[1:-1] if alone else "" if told == event_type else told


def _handler(row: Handler, asked: Asked, *, now_us: int) -> Mapping[str, Any]:
    return {
        "type": row.type,
        "workflow": row.workflow,
        "href": asked.to("/workflows/one", name=row.workflow),
        "valid": row.until_us > now_us,
        "until": words.moment(row.until_us, now_us=now_us),
    }
