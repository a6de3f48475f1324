"""A trace context as text: where in a distributed trace something was caused. What is stored, and what events carry.

It is the value of the W3C header `traceparent` and, after a space where there is one, that of `tracestate`. CloudEvents
carry the two as extension attributes of these names. Pure text: nothing here knows OpenTelemetry, and what is not of
the form of a `traceparent` is passed over, because it came from outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

TRACESTATE_CHARACTERS_MAX: Final = 512
"""As much as W3C asks everybody to pass on; a longer one is dropped, the rest of the context is kept."""

_FORM: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]*)?")
_PRINTABLE: Final = re.compile(r"[ -~]*")


def trace_of(carrier: Mapping[str, str]) -> str | None:
    """The trace context among headers or extension attributes; None where there is none, or nonsense."""
    parent = carrier.get(TRACEPARENT, "").strip()
    if not 55 <= len(parent) <= 255 or parent.startswith("ff") or _FORM.fullmatch(parent) is None:
        return None
    state = carrier.get(TRACESTATE, "").strip()
    if not state or len(state) > TRACESTATE_CHARACTERS_MAX or _PRINTABLE.fullmatch(state) is None:
        return parent
    return f"{parent} {state}"


def carrier_of(trace: str | None) -> dict[str, str]:
    """As headers or extension attributes."""
    if trace is None:
        return {}
    parent, _, state = trace.partition(" ")
    return {TRACEPARENT: parent, TRACESTATE: state} if state else {TRACEPARENT: parent}
