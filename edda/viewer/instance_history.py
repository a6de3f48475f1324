"""The history of an instance as a table, a window of it at a time. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from edda.core.history import HistoryEvent
from edda.viewer import words
from edda.viewer.asked import Asked
from edda.viewer.failure import Failure, failure_of
from edda.viewer.instance_facts import WINDOW, Facts
from edda.why import tells_an_error

ROWS_SHOWN: Final = 200
"""Of the window, in the table; the rest of it is one link away."""


def entries(facts: Facts, asked: Asked, *, chosen: str, now_us: int) -> list[Mapping[str, Any]]:
    """The last rows of the window. A date is told where it is another than before; on the first, than the start."""
    began_us = facts.row.created_at_us
    found = [
        _entry(event, asked, chosen=chosen, began_us=began_us, now_us=now_us) for event in facts.history[-ROWS_SHOWN:]
    ]
    dates = [words.moment(began_us, now_us=now_us).date, *(entry["at"].date for entry in found)]
    return [{**entry, "date": entry["at"].date != before} for entry, before in zip(found, dates, strict=False)]


def _entry(event: HistoryEvent, asked: Asked, *, chosen: str, began_us: int, now_us: int) -> Mapping[str, Any]:
    return {
        "seq": event.seq,
        "at": words.moment(event.at_us, now_us=now_us),
        "after": words.span(event.at_us - began_us),
        "chosen": bool(chosen) and event.call_id == chosen,
        "kind": kind_words(event.kind),
        "tone": _tone(event.kind),
        "call_id": event.call_id,
        "href": asked.changed(call=event.call_id) if event.call_id and event.name != "timer" else None,
        "name": event.name,
        "claim": event.claim,
        "brief": _brief(event),
    }


def _tone(kind: str) -> str:
    if kind.startswith("Compensation") and not kind.endswith("Failed"):
        return "undoing"
    for ending, tone in (
        ("Failed", "failed"),
        ("TimedOut", "failed"),
        ("Completed", "completed"),
        ("Received", "waiting"),
    ):
        if kind.endswith(ending):
            return tone
    return "cancelled" if kind.endswith("Cancelled") else "plain"


def _brief(event: HistoryEvent) -> str:
    """The row in one line."""
    failure: Failure | None = failure_of(event.output) if tells_an_error(event.kind) else None
    if failure is not None:
        return words.end_cut(f"{failure.type}: {failure.message}" if failure.message else failure.type, 160)
    if event.blob is not None:
        return f"bytes, {words.size(len(event.blob))}"
    return words.end_cut(event.output or "", 160)


def kind_words(kind: str) -> str:
    """`ActivityAttemptFailed` as people read it: `Activity attempt failed`."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind)
    return parted[:1] + parted[1:].lower()


def window_links(facts: Facts, asked: Asked) -> Mapping[str, Any]:
    """Where the rows are that this page does not show."""
    first = facts.history[0].seq if facts.history else 1
    last = facts.history[-1].seq if facts.history else 0
    return {
        "first": first,
        "last": last,
        "all": facts.last_seq,
        "earlier": asked.changed(**{"from": max(1, first - WINDOW)}) if first > 1 else None,
        "later": asked.changed(**{"from": last + 1}) if last < facts.last_seq else None,
    }
