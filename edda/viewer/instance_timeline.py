"""The lanes of an instance as its page draws them: bars on a scale, and words for each. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from edda.viewer import words
from edda.viewer.asked import Asked
from edda.viewer.timeline import Lane, Outcome, Scale, Sort, Stretch


def timeline(
    lanes: Sequence[Lane], scale: Scale, asked: Asked, *, chosen: str, running: Sequence[str], now_us: int
) -> Mapping[str, Any]:
    next_step = words.listed([words.end_cut(name, 40) for name in running][:3]) or "next step"
    return {
        "lanes": [_lane(lane, scale, asked, chosen=chosen, next_step=next_step, now_us=now_us) for lane in lanes],
        "ticks": [{"at": f"{tick.at:.2f}", "label": tick.label} for tick in scale.ticks()],
        "cuts": [
            {
                "left": f"{piece.left:.2f}",
                "width": f"{piece.right - piece.left:.2f}",
                "middle": f"{(piece.left + piece.right) / 2:.2f}",
                "last": piece.right >= 99.9,
                "label": words.span(piece.until_us - piece.from_us),
            }
            for piece in scale.cuts
        ],
        "span": words.span(scale.until_us - scale.from_us),
        "begins": words.moment(scale.from_us, now_us=scale.from_us),
        "legend": _legend(lanes),
    }


LEGEND: Final = (
    ("run", "ran"),
    ("open", "runs"),
    ("failed", "failed"),
    ("backoff", "back-off"),
    ("wait", "waited"),
    ("undo", "undone"),
    ("unknown", "outcome unknown"),
    ("child", "child"),
)
"""A class of the style sheet, and what it stands for."""


def _legend(lanes: Sequence[Lane]) -> list[tuple[str, str]]:
    """Of what is in the picture, and of nothing else."""
    seen = {_key_of(lane, stretch) for lane in lanes for stretch in lane.stretches}
    return [(key, label) for key, label in LEGEND if key in seen]


def _key_of(lane: Lane, stretch: Stretch) -> str:
    if stretch.kind != "run":
        return stretch.kind
    return "child" if lane.sort is Sort.CHILD else "open" if stretch.open else "run"


def _lane(lane: Lane, scale: Scale, asked: Asked, *, chosen: str, next_step: str, now_us: int) -> Mapping[str, Any]:
    is_step = bool(lane.call_id)
    return {
        "call_id": lane.call_id,
        "key": hashlib.sha256(lane.call_id.encode()).hexdigest()[:16],  # an id in a page holds no blanks
        "label": lane.undoes or lane.call_id or next_step,
        "detail": _lane_detail(lane),
        "sort": lane.sort.value,
        "outcome": lane.outcome.value,
        "spoken": f"{lane.call_id or next_step}: {outcome_words(lane)}, {words.span(busy_us(lane))}",
        "chosen": is_step and lane.call_id == chosen,
        "href": asked.changed(call=None if lane.call_id == chosen else lane.call_id) if is_step else None,
        "bars": [_bar(stretch, scale) for stretch in lane.stretches],
        "length": _length_words(lane, now_us),
        "failures": lane.failures,
    }


def _bar(stretch: Stretch, scale: Scale) -> Mapping[str, Any]:
    left = scale.place(stretch.from_us)
    about = "at the latest since then, " if stretch.about and stretch.kind != "wait" else ""
    return {
        "kind": stretch.kind,
        "open": stretch.open,
        "x": f"{left:.3f}",
        "width": f"{max(0.0, scale.place(stretch.until_us) - left):.3f}",
        "label": f"{BAR_WORDS[stretch.kind]}: {about}{words.span(stretch.length_us)}" + " so far" * stretch.open,
    }


BAR_WORDS: Final = {
    "run": "ran",
    "failed": "failed",
    "undo": "undone",
    "backoff": "waits to try again",
    "wait": "waited",
    "unknown": "outcome unknown",
}


def _lane_detail(lane: Lane) -> str:
    if lane.sort is Sort.OTHER:
        return "under way"
    if lane.sort is Sort.COMPENSATION:
        return lane.name
    if lane.call_id.rpartition(":")[0] == lane.name or lane.name in ("", "timer"):
        return ""
    return lane.name


def busy_us(lane: Lane) -> int:
    return lane.until_us - lane.from_us


def _length_words(lane: Lane, now_us: int) -> str:
    if lane.sort is Sort.SENT:
        return "sent"
    if lane.sort is Sort.CHILD and not busy_us(lane):
        return "started"
    if lane.outcome is Outcome.RETRYING:
        return "retrying"
    if not lane.stretches[-1].open:
        return words.span(busy_us(lane))
    if lane.until_us > now_us:
        return f"due {words.relative(lane.until_us - now_us)}"
    return f"{words.span(busy_us(lane))} so far"


def outcome_words(lane: Lane) -> str:
    word = {Outcome.UNDONE: "undone", Outcome.UNKNOWN: "outcome unknown"}.get(lane.outcome, lane.outcome.value)
    failed = lane.failures - (lane.outcome is Outcome.FAILED)
    return word + (f" after {failed} failed attempt{'s' if failed != 1 else ''}" if failed > 0 else "")
