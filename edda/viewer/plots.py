"""Small plots as numbers: bars and lines in a box of 100 × 100, for a template to draw as SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edda.storage.reads import Bucket, Pace

GAP: Final = 0.18
"""Between bars, as a share of a bar's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle; `tone` is a class of the style sheet."""

    x: float
    y: float
    width: float
    height: float
    tone: str
    label: str = ""


def throughput(buckets: Sequence[Bucket], labels: Sequence[str]) -> tuple[Box, ...]:
    """Stacked bars: how many instances ended in each bucket, and how."""
    most = max(1, highest(buckets))
    place = 100 / max(1, len(buckets))
    boxes: list[Box] = []
    for number, (bucket, label) in enumerate(zip(buckets, labels, strict=True)):
        bottom = 100.0
        for many, tone in ((bucket.completed, "completed"), (bucket.cancelled, "cancelled"), (bucket.failed, "failed")):
            if not many:
                continue
            height = max(2.0, 100 * many / most)
            bottom -= height
            boxes.append(
                Box(
                    x=round((number + GAP / 2) * place, 3),
                    y=round(max(0.0, bottom), 3),
                    width=round(place * (1 - GAP), 3),
                    height=round(height, 3),
                    tone=tone,
                    label=f"{label}: {many} {tone}",
                )
            )
    return tuple(boxes)


def highest(buckets: Sequence[Bucket]) -> int:
    """What the tallest bar stands for."""
    return max([0, *(bucket.completed + bucket.failed + bucket.cancelled for bucket in buckets)])


def shares(parts: Sequence[tuple[str, int]]) -> tuple[Box, ...]:
    """One bar, divided; what is there at all is seen."""
    total = sum(many for _, many in parts)
    if not total:
        return ()
    widths = [max(1.0, 100 * many / total) if many else 0.0 for _, many in parts]
    factor = 100 / sum(widths)
    boxes: list[Box] = []
    x = 0.0
    for (tone, many), width in zip(parts, widths, strict=True):
        if many:
            boxes.append(
                Box(x=round(x, 3), y=0, width=round(width * factor, 3), height=100, tone=tone, label=f"{many:,} {tone}")
            )
        x += width * factor
    return tuple(boxes)


def failure_rate(pace: Pace) -> float | None:
    """Of what ended in the time of the buckets; None where nothing did."""
    failed = sum(bucket.failed for bucket in pace.buckets)
    ended = failed + sum(bucket.completed + bucket.cancelled for bucket in pace.buckets)
    return failed / ended if ended else None
