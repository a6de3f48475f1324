"""Times, spans and numbers in words, as short as they can be read. Pure: `now` is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final, NamedTuple

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

_UNITS: Final = ((DAY_US, "d"), (HOUR_US, "h"), (MINUTE_US, "min"), (SECOND_US, "s"))


class Moment(NamedTuple):
    """A point in time as a page shows it: `ago` in the text, the rest for whoever looks closer."""

    machine: str
    """RFC 3339, for `<time datetime>`."""
    exact: str
    ago: str

    @property
    def date(self) -> str:
        return self.exact[:10]

    @property
    def clock(self) -> str:
        """The time of day, to the millisecond, in UTC."""
        return self.exact[11:23]

    @property
    def second(self) -> str:
        """Date and time of day, to the second; the zone has to be said beside it."""
        return self.exact[:19]


def moment(at_us: int, *, now_us: int) -> Moment:
    """Of a clock that was wrong, too: beyond the calendar, its first or last moment stands for scripts."""
    at = _on_the_calendar(at_us)
    exact = f"{at:%Y-%m-%d %H:%M:%S}.{at_us % SECOND_US // 1000:03d} UTC" if at else f"{at_us} µs since 1970"
    machine = at or (_FIRST if at_us < 0 else _LAST)
    return Moment(
        machine=machine.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        exact=exact,
        ago=relative(at_us - now_us),
    )


_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


def _on_the_calendar(at_us: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(at_us / SECOND_US, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def relative(difference_us: int) -> str:
    """Positive: in the future. The script in the page says it in the same words when time goes on."""
    if abs(difference_us) < SECOND_US:
        return "now"
    words = rough_span(abs(difference_us))
    return f"in {words}" if difference_us > 0 else f"{words} ago"


def rough_span(span_us: int) -> str:
    """In the largest unit that fits once."""
    for unit_us, name in _UNITS:
        if span_us >= unit_us:
            return f"{span_us // unit_us} {name}"
    return "0 s"


def span(span_us: int) -> str:
    """Two units or three digits: `830 µs`, `12.4 ms`, `3.42 s`, `4 min 5 s`, `3 d 2 h`."""
    span_us = max(0, span_us)
    if span_us < 1_000:
        return f"{span_us} µs"
    if span_us < SECOND_US:
        return f"{_three_digits(span_us / 1_000)} ms"
    if span_us < MINUTE_US:
        return f"{_three_digits(span_us / SECOND_US)} s"
    for (unit_us, name), (below_us, below) in pairwise(_UNITS):
        if span_us >= unit_us:
            rest = span_us % unit_us // below_us
            return f"{span_us // unit_us} {name}" + (f" {rest} {below}" if rest else "")
    raise AssertionError(span_us)


def _three_digits(number: float) -> str:
    if number >= 100:
        return f"{number:.0f}"
    return f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def tick(span_us: int) -> str:
    """On an axis: `0`, `20 ms`, `1.5 s`, `3 h`."""
    if not span_us:
        return "0"
    text = span(span_us)
    number, _, unit = text.partition(" ")
    if " " in unit or "." not in number:
        return text
    return f"{number.rstrip('0').rstrip('.')} {unit}"


def count(number: int, *, capped: bool = False) -> str:
    """`12,045`; `100,000+` where counting ended."""
    return f"{number:,}" + ("+" if capped else "")


def size(bytes_: int) -> str:
    if bytes_ < 1024:
        return f"{bytes_} byte" + ("" if bytes_ == 1 else "s")
    return f"{bytes_ / 1024:.1f} KiB" if bytes_ < 1 << 20 else f"{bytes_ / (1 << 20):.1f} MiB"


def middle_cut(text: str, length: int) -> str:
    """Ids differ at both ends."""
    if len(text) <= length:
        return text
    head = (length - 1) * 3 // 5
    return f"{text[:head]}…{text[-(length - 1 - head) :]}"


def end_cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def listed(items: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
