"""What an instance did when: one lane for each of its calls, made of stretches of time. Pure: history in, lanes out.

It must not know pictures. What history does not hold is inferred, and said to be so (`about`): a row is written when a
call is over, so a call that brings no duration began, at the latest, when the row before was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from edda.core.history import HistoryEvent, Kind
from edda.core.lifecycle import ENDED, Status
from edda.viewer import words
from edda.viewer.loose import as_object, read


class Sort(StrEnum):
    """What a call is. The values are classes of the style sheet, too."""

    ACTIVITY = "activity"
    EVENT = "event"
    TIMER = "timer"
    CHILD = "child"
    SENT = "sent"
    COMPENSATION = "compensation"
    OTHER = "other"


class Outcome(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    RUNNING = "running"
    RETRYING = "retrying"
    WAITING = "waiting"
    UNKNOWN = "unknown"
    UNDONE = "undone"
    """A compensation that ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Of time. `kind`: `run`, `failed`, `undo`, `backoff`, `wait` or `unknown`, classes of the style sheet."""

    kind: str
    from_us: int
    until_us: int
    open: bool = False
    """It is not over."""
    about: bool = False
    """It began at this time at the latest."""

    @property
    def length_us(self) -> int:
        return self.until_us - self.from_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One call."""

    call_id: str
    name: str
    sort: Sort
    outcome: Outcome
    stretches: tuple[Stretch, ...]
    failures: int = 0
    """Attempts that failed."""
    undoes: str = ""
    """A compensation: the call that it undoes."""
    goes_to: str = ""
    """A child: its instance."""

    @property
    def from_us(self) -> int:
        return self.stretches[0].from_us

    @property
    def until_us(self) -> int:
        return max(stretch.until_us for stretch in self.stretches)

    @property
    def attempts(self) -> int:
        return self.failures + (0 if self.outcome in (Outcome.FAILED, Outcome.RETRYING) else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """How things stand where history ends."""

    now_us: int
    status: Status
    owned: bool
    since_us: int
    """When the instance's row was last changed."""
    due_us: int | None = None
    reason: str = ""
    waits: tuple[tuple[str, str], ...] = ()
    """Call and type of the events it waits for."""


UNDO_PREFIX: Final = "undo/"

_ENDS: Final = {
    Kind.ACTIVITY_COMPLETED: (Sort.ACTIVITY, Outcome.COMPLETED, "run"),
    Kind.ACTIVITY_FAILED: (Sort.ACTIVITY, Outcome.FAILED, "failed"),
    Kind.ACTIVITY_UNKNOWN: (Sort.ACTIVITY, Outcome.UNKNOWN, "unknown"),
    Kind.COMPENSATION_EXECUTED: (Sort.COMPENSATION, Outcome.UNDONE, "undo"),
    Kind.COMPENSATION_FAILED: (Sort.COMPENSATION, Outcome.FAILED, "failed"),
    Kind.TIMER_FIRED: (Sort.TIMER, Outcome.COMPLETED, "wait"),
    Kind.EVENT_RECEIVED: (Sort.EVENT, Outcome.COMPLETED, "wait"),
    Kind.EVENT_TIMED_OUT: (Sort.EVENT, Outcome.FAILED, "wait"),
    Kind.EVENT_SENT: (Sort.SENT, Outcome.COMPLETED, "run"),
    Kind.CHILD_COMPLETED: (Sort.CHILD, Outcome.COMPLETED, "run"),
    Kind.CHILD_FAILED: (Sort.CHILD, Outcome.FAILED, "failed"),
    Kind.CHILD_CANCELLED: (Sort.CHILD, Outcome.FAILED, "failed"),
}
_KINDS: Final = {kind.value: kind for kind in Kind}
_ATTEMPTS: Final = {
    Kind.ACTIVITY_ATTEMPT_FAILED: Sort.ACTIVITY,
    Kind.COMPENSATION_ATTEMPT_FAILED: Sort.COMPENSATION,
}


@dataclass(slots=True, kw_only=True)
class _Growing:
    """A lane while history is read."""

    call_id: str
    name: str
    sort: Sort
    outcome: Outcome = Outcome.RUNNING
    stretches: list[Stretch] = field(default_factory=list[Stretch])
    failures: int = 0
    due_us: int | None = None
    """When the next attempt may begin."""
    goes_to: str = ""

    def finished(self) -> Lane:
        return Lane(
            call_id=self.call_id,
            name=self.name,
            sort=self.sort,
            outcome=self.outcome,
            stretches=tuple(self.stretches),
            failures=self.failures,
            undoes=self.call_id.removeprefix(UNDO_PREFIX) if self.sort is Sort.COMPENSATION else "",
            goes_to=self.goes_to,
        )


def lanes_of(history: Sequence[HistoryEvent], now: Now) -> tuple[Lane, ...]:
    """By when they began."""
    growing: dict[str, _Growing] = {}
    children: dict[str, str] = {}
    before_us = history[0].at_us if history else now.since_us
    for event in history:
        _take(event, growing, children, before_us)
        before_us = max(before_us, event.at_us)
    _open_ends(growing, children, now, last_us=before_us)
    lanes = [lane.finished() for lane in growing.values() if lane.stretches]
    return tuple(sorted(lanes, key=lambda lane: (lane.from_us, lane.until_us)))


def _take(event: HistoryEvent, growing: dict[str, _Growing], children: dict[str, str], before_us: int) -> None:
    """One row."""
    kind = _KINDS.get(event.kind)
    if kind is None:
        return
    if kind is Kind.CHILD_STARTED:
        child = str(details_of(event).get("instance_id", ""))
        children[child] = event.call_id
        lane = _lane(growing, event, Sort.CHILD)
        lane.goes_to = child
        if details_of(event).get("detached"):
            lane.outcome = Outcome.COMPLETED
        lane.stretches.append(Stretch(kind="run", from_us=event.at_us, until_us=event.at_us))
        return
    if kind in _ATTEMPTS:
        _take_failed_attempt(event, _lane(growing, event, _ATTEMPTS[kind]))
        return
    if kind not in _ENDS:
        return
    sort, outcome, stretch = _ENDS[kind]
    if sort is Sort.CHILD:
        _take_child_end(event, growing, children, outcome, stretch)
        return
    lane = _lane(growing, event, sort)
    lane.outcome = outcome
    lane.failures += kind in (Kind.ACTIVITY_FAILED, Kind.COMPENSATION_FAILED)
    from_us, about = _beginning(event, lane, before_us)
    lane.due_us = None
    lane.stretches.append(Stretch(kind=stretch, from_us=from_us, until_us=event.at_us, about=about))


def _lane(growing: dict[str, _Growing], event: HistoryEvent, sort: Sort) -> _Growing:
    return growing.setdefault(event.call_id, _Growing(call_id=event.call_id, name=event.name, sort=sort))


def _take_failed_attempt(event: HistoryEvent, lane: _Growing) -> None:
    details = details_of(event)
    duration_us, delay_us = _whole(details.get("duration_us")), _whole(details.get("delay_us"))
    lane.outcome = Outcome.RETRYING
    lane.failures += 1
    lane.due_us = event.at_us + delay_us
    lane.stretches.append(Stretch(kind="failed", from_us=event.at_us - duration_us, until_us=event.at_us))
    lane.stretches.append(Stretch(kind="backoff", from_us=event.at_us, until_us=lane.due_us))


def _take_child_end(
    event: HistoryEvent, growing: dict[str, _Growing], children: dict[str, str], outcome: Outcome, kind: str
) -> None:
    """The call that awaited a child is drawn with the one that started it."""
    child = str(details_of(event).get("instance_id", ""))
    lane = growing.get(children.get(child, "")) or _lane(growing, event, Sort.CHILD)
    lane.outcome = outcome
    lane.goes_to = child
    if lane.stretches:
        lane.stretches[-1] = replace(lane.stretches[-1], kind=kind, until_us=event.at_us)
    else:
        lane.stretches.append(Stretch(kind=kind, from_us=event.at_us, until_us=event.at_us, about=True))


def _beginning(event: HistoryEvent, lane: _Growing, before_us: int) -> tuple[int, bool]:
    """When what this row ends began, and whether that is only the latest it can have been."""
    details = details_of(event)
    if event.kind == Kind.EVENT_SENT:
        return event.at_us, False
    if "duration_us" in details:
        return event.at_us - _whole(details["duration_us"]), False
    if event.kind == Kind.EVENT_TIMED_OUT and isinstance(details.get("timeout_seconds"), int | float):
        return event.at_us - round(details["timeout_seconds"] * 1_000_000), False
    if lane.due_us is not None:
        return min(lane.due_us, event.at_us), True
    return min(before_us, event.at_us), True


def _open_ends(growing: dict[str, _Growing], children: dict[str, str], now: Now, *, last_us: int) -> None:
    """What goes on: retries, children, waits, and the step that nothing is recorded of yet."""
    if now.status in ENDED:
        return
    for lane in growing.values():
        if lane.outcome is Outcome.RETRYING:
            _go_on_retrying(lane, now)
        elif lane.sort is Sort.CHILD and lane.outcome is Outcome.RUNNING:
            lane.stretches[-1] = replace(lane.stretches[-1], until_us=now.now_us, open=True)
    for lane in _waiting(now):
        growing.setdefault(lane.call_id, lane)
    if now.owned and now.status in (Status.RUNNING, Status.COMPENSATING):
        step = _Growing(call_id="", name="", sort=Sort.OTHER)
        step.stretches.append(Stretch(kind="run", from_us=last_us, until_us=max(last_us, now.now_us), open=True))
        growing[""] = step


def _go_on_retrying(lane: _Growing, now: Now) -> None:
    assert lane.due_us is not None
    if lane.due_us <= now.now_us and now.owned:
        lane.outcome = Outcome.RUNNING
        lane.stretches.append(Stretch(kind="run", from_us=lane.due_us, until_us=now.now_us, open=True, about=True))
    else:
        lane.stretches[-1] = replace(lane.stretches[-1], open=True)


def _waiting(now: Now) -> Iterable[_Growing]:
    until_us = max(now.now_us, now.since_us)
    stretch = Stretch(kind="wait", from_us=now.since_us, until_us=until_us, open=True, about=True)
    for call_id, event_type in now.waits:
        yield _Growing(call_id=call_id, name=event_type, sort=Sort.EVENT, outcome=Outcome.WAITING, stretches=[stretch])
    if now.status is Status.WAITING_FOR_TIMER:
        until_us = max(until_us, now.due_us or 0)
        for timer in now.reason.removeprefix("timer ").split(", "):
            yield _Growing(
                call_id=timer,
                name="timer",
                sort=Sort.TIMER,
                outcome=Outcome.WAITING,
                stretches=[replace(stretch, until_us=until_us)],
            )


def details_of(event: HistoryEvent) -> dict[str, Any]:
    """`meta`, whatever stands there: a forged row must not stop a page."""
    return as_object(read(event.meta)) or {}


def _whole(value: Any) -> int:
    return max(0, int(value)) if isinstance(value, int | float) and abs(value) < 1 << 62 else 0


# -- the scale --------------------------------------------------------------------------------------------------------

QUIET_SHARE_MAX: Final = 0.16
"""Of the width: a longer time in which nothing runs is cut to it."""
QUIET_LEAST_US: Final = 500_000
"""A quiet time that is cut is drawn at least as long as this, beside what ran."""
CUT_FACTOR: Final = 3.0
"""Quiet times are cut only where all is so many times longer than what ran."""
SLIVER_MAX: Final = 1.0
"""Per cent of the width: what is narrower, and between two cuts, belongs to them."""
LABEL_WIDTH: Final = 8.0
"""Per cent of the width: what the label of a tick takes, at most."""
CUT_FROM_US: Final = 2 * words.SECOND_US
"""Shorter quiet times are never cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Of the time axis: from here to there in time, and in per cent of the width."""

    from_us: int
    until_us: int
    left: float
    right: float
    cut: bool = False
    """It is much longer than it is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From time to place. Time in which nothing ran for long is cut short, so that seconds are seen beside days."""

    pieces: tuple[Piece, ...]

    def place(self, at_us: int) -> float:
        """In per cent of the width."""
        for piece in self.pieces:
            if at_us <= piece.until_us:
                length = piece.until_us - piece.from_us
                share = (at_us - piece.from_us) / length if length else 0.0
                return piece.left + max(0.0, share) * (piece.right - piece.left)
        return 100.0

    @property
    def from_us(self) -> int:
        return self.pieces[0].from_us

    @property
    def until_us(self) -> int:
        return self.pieces[-1].until_us

    @property
    def cuts(self) -> tuple[Piece, ...]:
        return tuple(piece for piece in self.pieces if piece.cut)

    def ticks(self) -> tuple[Tick, ...]:
        """Round times since the beginning, and behind a cut since the cut."""
        found: list[Tick] = []
        for piece in self.pieces:
            if piece.cut:
                continue
            most = min(94.0, piece.right - LABEL_WIDTH if piece is not self.pieces[-1] else 100.0)
            width = piece.right - piece.left
            step_us = _round_step((piece.until_us - piece.from_us) / max(1.0, width / 14))
            first = piece is self.pieces[0]
            for at_us in range(piece.from_us, piece.until_us + 1, step_us):
                at = self.place(at_us)
                fits = at <= most or at_us == piece.from_us
                if fits and (not found or at - found[-1].at >= LABEL_WIDTH):
                    since = words.tick(at_us - piece.from_us)
                    found.append(Tick(at=at, label=since if first else f"+{since}"))
        return tuple(found)


def scale_of(lanes: Sequence[Lane], *, from_us: int, until_us: int) -> Scale:
    """Of everything that the lanes hold."""
    from_us = min([from_us, *(lane.from_us for lane in lanes)])
    until_us = max([until_us, from_us + 1, *(lane.until_us for lane in lanes)])
    pieces = _pieces(_busy_times(lanes, from_us, until_us), from_us, until_us)
    weights = _weights(pieces)
    total = sum(weights)
    drawn: list[Piece] = []
    left = 0.0
    for (begin, end, busy), weight in zip(pieces, weights, strict=True):
        right = left + 100 * weight / total
        cut = not busy and weight < end - begin
        if drawn and not cut and not drawn[-1].cut:
            drawn[-1] = replace(drawn[-1], until_us=end, right=right)
        else:
            drawn.append(Piece(from_us=begin, until_us=end, left=left, right=right, cut=cut))
        left = right
    return Scale(pieces=_without_slivers(drawn))


def _without_slivers(pieces: Sequence[Piece]) -> tuple[Piece, ...]:
    """Two cuts with next to nothing between them are one."""
    kept: list[Piece] = []
    for piece in pieces:
        if len(kept) > 1 and piece.cut and kept[-2].cut and kept[-1].right - kept[-1].left < SLIVER_MAX:
            kept[-2:] = [replace(kept[-2], until_us=piece.until_us, right=piece.right)]
        elif kept and piece.cut and kept[-1].cut:
            kept[-1] = replace(kept[-1], until_us=piece.until_us, right=piece.right)
        else:
            kept.append(piece)
    if len(kept) > 1 and kept[-2].cut and kept[-1].right - kept[-1].left < SLIVER_MAX:
        kept[-2:] = [replace(kept[-2], until_us=kept[-1].until_us, right=kept[-1].right)]
    return tuple(kept)


def _busy_times(lanes: Sequence[Lane], from_us: int, until_us: int) -> list[tuple[int, int]]:
    """When something ran, merged; with what stands at both ends of the picture."""
    busy = sorted(
        (stretch.from_us, stretch.until_us)
        for lane in lanes
        for stretch in lane.stretches
        if stretch.kind not in ("wait", "backoff") and lane.sort is not Sort.CHILD
    )
    busy = [(from_us, from_us), *busy, (until_us, until_us)]
    margin = max(1, sum(end - begin for begin, end in busy) // 200)
    merged: list[tuple[int, int]] = []
    for begin, end in busy:
        begin, end = max(from_us, begin - margin), min(until_us, end + margin)
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def _pieces(busy: Sequence[tuple[int, int]], from_us: int, until_us: int) -> list[tuple[int, int, bool]]:
    pieces: list[tuple[int, int, bool]] = []
    at = from_us
    for begin, end in busy:
        if begin > at:
            pieces.append((at, begin, False))
        pieces.append((max(begin, at), end, True))
        at = end
    if at < until_us:
        pieces.append((at, until_us, False))
    return pieces


def _weights(pieces: Sequence[tuple[int, int, bool]]) -> list[float]:
    """How wide each is. Only what is quiet, and would take most of the picture, is cut."""
    whole = sum(end - begin for begin, end, _ in pieces)
    busy = sum(end - begin for begin, end, is_busy in pieces if is_busy)
    most = QUIET_SHARE_MAX * max(busy, 1) / (1 - QUIET_SHARE_MAX)
    if busy * CUT_FACTOR > whole:
        return [float(end - begin) for begin, end, _ in pieces]
    most = max(most, busy * 0.2, QUIET_LEAST_US)
    return [
        float(end - begin) if is_busy or end - begin < CUT_FROM_US else min(float(end - begin), most)
        for begin, end, is_busy in pieces
    ]


_STEPS_US: Final = tuple(
    step
    for unit in (1, 1_000, words.SECOND_US)
    for step in (unit, 2 * unit, 5 * unit, 10 * unit, 20 * unit, 50 * unit, 100 * unit, 200 * unit, 500 * unit)
    if unit < words.SECOND_US or step <= 30 * words.SECOND_US
) + tuple(
    many * unit
    for unit, all_ in (
        (words.MINUTE_US, (1, 2, 5, 10, 30)),
        (words.HOUR_US, (1, 2, 6, 12)),
        (words.DAY_US, (1, 2, 5, 10, 30, 100)),
    )
    for many in all_
)


def _round_step(at_least_us: float) -> int:
    return next((step for step in _STEPS_US if step >= at_least_us), _STEPS_US[-1])
