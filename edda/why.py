"""Why an instance is where it is, in words: one pure function from what is stored to a sentence and an advice.

It must not know how anything is read, shown or run. Laws: it says only what the rows say; where something is unknown it
says nothing about it rather than guessing; times are told relative to the database's clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.lifecycle import ENDED, SET_ASIDE, Status
from edda.core.saga import failed_for_good, owed
from edda.storage.port import InstanceRow
from edda.storage.reads import PAGE_MAX, Reader, WorkerView

MESSAGE_MAX: Final = 300
"""Characters of an error that are shown in a sentence."""
HISTORY_MAX: Final = 10_000
"""Rows of history that are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known about one instance at one moment."""

    now_us: int
    row: InstanceRow
    history: Sequence[HistoryEvent] = ()
    """All of it, or its end."""
    workers: Sequence[WorkerView] = ()
    """Those that are alive, at least."""
    children: Sequence[InstanceRow] = ()
    """Those that it waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`sentence`: why; `advice`: what a person can do about it, empty where nothing has to be done."""

    sentence: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.sentence}. {self.advice}".rstrip(". ") + "."


async def look(reader: Reader, instance_id: InstanceId) -> Situation | None:
    """Read what `why` needs; None where there is no such instance. Each of it is a bounded question."""
    row = await reader.instance(instance_id)
    if row is None:
        return None
    history: list[HistoryEvent] = []
    seq: int | None = 1
    while seq is not None and len(history) < HISTORY_MAX:
        page = await reader.history_page(instance_id, from_seq=seq, limit=PAGE_MAX)
        history += page.rows
        seq = page.next_seq
    workers = await reader.worker_views()
    children = await reader.instances(children_waited_for(row))
    return Situation(
        now_us=workers.now_us, row=row, history=history, workers=workers.rows, children=tuple(children.values())
    )


def children_waited_for(row: InstanceRow) -> list[InstanceId]:
    """Ids in the reason of a parked parent."""
    if row.owner is not None or not row.reason.startswith("child "):
        return []
    return [InstanceId(name) for name in row.reason.removeprefix("child ").split(", ")]


def why(situation: Situation) -> Answer:
    """Why it is where it is, and what can be done."""
    row = situation.row
    if row.status in ENDED:
        return _ended(situation)
    if row.status in SET_ASIDE:
        return _set_aside(situation)
    answer = _held(situation) if row.owner is not None else _unowned(situation)
    prefix = _cancel_in_words(situation) + _undoing_in_words(situation)
    return Answer(sentence=prefix + answer.sentence, advice=answer.advice)


# -- it is over -------------------------------------------------------------------------------------------------------


def _ended(situation: Situation) -> Answer:
    row = situation.row
    assert row.ended_at_us is not None
    took = duration(row.ended_at_us - row.created_at_us)
    ago = duration(situation.now_us - row.ended_at_us)
    match row.status:
        case Status.COMPLETED:
            return Answer(sentence=f"completed {ago} ago, after {took}")
        case Status.CANCELLED:
            by = f" by {row.cancelled_by}" if row.cancelled_by else ""
            return Answer(sentence=f"cancelled{by}, {ago} ago, after {took}")
        case Status.FAILED:
            return Answer(sentence=f"failed {ago} ago, after {took}: {error_in_words(row.error)}")
        case _:
            failed = ", ".join(failed_for_good(situation.history)) or "a compensation"
            return Answer(
                sentence=f"ended {ago} ago, and {failed} could not be undone: {error_in_words(row.error)}",
                advice=f"When the cause is gone, undo again what is owed: edda retry {row.id}",
            )


def _set_aside(situation: Situation) -> Answer:
    row = situation.row
    what = row.reason or error_in_words(row.error)
    ago = duration(situation.now_us - row.updated_at_us)
    advice = (
        f"Make the code fit the history again (ctx.patched can branch), then: edda retry {row.id}"
        if row.status is Status.NONDETERMINISTIC
        else f"Correct what it does, then: edda retry {row.id}"
    )
    return Answer(sentence=f"set aside as {row.status.value} {ago} ago: {what}", advice=advice)


# -- somebody has it --------------------------------------------------------------------------------------------------


def _held(situation: Situation) -> Answer:
    row = situation.row
    worker = next((one for one in situation.workers if one.id == row.owner), None)
    doing = _doing_in_words(situation)
    if worker is None:
        return Answer(sentence=f"runs on worker {row.owner}{doing}")
    left_us = worker.lease_until_us - situation.now_us
    if not worker.alive or worker.present is False or left_us <= 0:
        over = f"whose lease ended {duration(-left_us)} ago" if left_us <= 0 else "which is gone"
        others = [one for one in situation.workers if is_working(one, situation.now_us) and one.id != worker.id]
        return Answer(
            sentence=f"belongs to worker {worker.id}, {over}",
            advice="Another worker will take it over within seconds" if others else "No worker is alive: start one",
        )
    return Answer(sentence=f"runs on worker {worker.id}, lease {duration(left_us)} left{doing}")


def _doing_in_words(situation: Situation) -> str:
    """What its history says last: the attempts under way are not stored."""
    retrying = _retry_in_words(situation)
    if retrying:
        return f"; {retrying}"
    last = situation.history[-1] if situation.history else None
    if last is None or last.kind == Kind.WORKFLOW_STARTED:
        return "; nothing is recorded yet"
    ago = duration(situation.now_us - last.at_us)
    return f"; last recorded {ago} ago: {last.kind} {last.call_id or last.name}".rstrip()


# -- nobody has it ----------------------------------------------------------------------------------------------------


def _unowned(situation: Situation) -> Answer:
    row, now_us = situation.row, situation.now_us
    if row.claimable_at_us is not None and row.claimable_at_us <= now_us:
        return _runnable(situation)
    if row.reason.startswith("retry of "):
        sentence = _retry_in_words(situation) or row.reason
        return Answer(sentence=sentence, advice=_advice_of(_nobody_runs(situation)))
    if row.reason.startswith("child "):
        return Answer(sentence=_child_in_words(situation), advice="")
    waited = f"has waited {duration(now_us - row.updated_at_us)} for"
    due = row.claimable_at_us
    if row.status is Status.WAITING_FOR_EVENT:
        ends = f", times out in {duration(due - now_us)}" if due is not None else ", without a time limit"
        return Answer(sentence=f"{waited} event {row.reason.removeprefix('event ')}{ends}")
    when = f", due in {duration(due - now_us)}" if due is not None else ""
    what = row.reason.removeprefix("timer ")
    return Answer(sentence=f"{waited} timer {what}{when}", advice=_advice_of(_nobody_runs(situation)))


def _runnable(situation: Situation) -> Answer:
    row = situation.row
    assert row.claimable_at_us is not None
    runnable = f"has been runnable for {duration(situation.now_us - row.claimable_at_us)}"
    nobody = _nobody_runs(situation)
    if nobody is not None:
        return Answer(sentence=f"{runnable}, but {nobody.sentence}", advice=nobody.advice)
    suspect = " (it is a suspect: workers died with it, so it runs alone)" if row.crashes >= 2 else ""
    return Answer(sentence=f"{runnable}, and waits for a worker that has room{suspect}")


def _nobody_runs(situation: Situation) -> Answer | None:
    """None where somebody does, or where that is unknown."""
    row = situation.row
    working = [one for one in situation.workers if is_working(one, situation.now_us)]
    if not working:
        return Answer(sentence="no worker is alive", advice=f"Start one that knows workflow {row.workflow!r}")
    if all(one.workflows is not None and row.workflow not in one.workflows for one in working):
        return Answer(
            sentence=f"no alive worker knows workflow {row.workflow!r}",
            advice="Start one that does, or bring the code back",
        )
    return None


def _advice_of(nobody: Answer | None) -> str:
    """Where the sentence has another cause: `No worker is alive: start one ...`."""
    if nobody is None:
        return ""
    told = f"{nobody.sentence}: {nobody.advice[0].lower()}{nobody.advice[1:]}"
    return f"{told[0].upper()}{told[1:]}"


def is_working(worker: WorkerView, now_us: int) -> bool:
    """It can take up work now, as far as the rows say."""
    return worker.alive and worker.present is not False and worker.lease_until_us > now_us


def _child_in_words(situation: Situation) -> str:
    row = situation.row
    known = {child.id: child for child in situation.children}
    told = [f"{name} ({known[name].status.value})" if name in known else name for name in children_waited_for(row)]
    return f"has waited {duration(situation.now_us - row.updated_at_us)} for child {', '.join(told)}"


# -- attempts, cancels and undoing ------------------------------------------------------------------------------------

_FAILED_ATTEMPTS: Final = frozenset({Kind.ACTIVITY_ATTEMPT_FAILED, Kind.COMPENSATION_ATTEMPT_FAILED})


def _retry_in_words(situation: Situation) -> str:
    """The calls whose last attempt failed, and when the next ones come."""
    failures: dict[str, list[HistoryEvent]] = {}
    for event in situation.history:
        if event.kind in _FAILED_ATTEMPTS:
            failures.setdefault(event.call_id, []).append(event)
        elif event.kind == Kind.RETRY_REQUESTED:
            failures.clear()
        elif event.call_id:
            failures.pop(event.call_id, None)
    return "; ".join(_attempts_in_words(events, situation.now_us) for events in failures.values())


def _attempts_in_words(events: Sequence[HistoryEvent], now_us: int) -> str:
    last = events[-1]
    details = last.details()
    due_us = last.at_us + int(details.get("delay_us", 0))
    when = f"in {duration(due_us - now_us)}" if due_us > now_us else "now"
    what = "compensation" if last.kind == Kind.COMPENSATION_ATTEMPT_FAILED else "activity"
    error: dict[str, Any] = details.get("error") or {}
    told = f"{error.get('error_type', 'an error')}: {error.get('message', '')}".rstrip(": ")
    return f"attempt {len(events) + 1} of {what} {last.name} ({last.call_id}) {when}, after {_cut(told)}"


def _cancel_in_words(situation: Situation) -> str:
    row = situation.row
    if row.cancel_requested_at_us is None or row.status is Status.COMPENSATING:
        return ""
    by = f" by {row.cancelled_by}" if row.cancelled_by else ""
    return f"to be cancelled, asked for{by} {duration(situation.now_us - row.cancel_requested_at_us)} ago; "


def _undoing_in_words(situation: Situation) -> str:
    if situation.row.status is not Status.COMPENSATING:
        return ""
    done = sum(event.kind == Kind.COMPENSATION_EXECUTED for event in situation.history)
    left = len(owed(situation.history))
    failed = len(failed_for_good(situation.history))
    told = f"compensating: {done} of {done + left + failed} undone"
    return told + (f", {failed} failed; " if failed else "; ")


# -- words ------------------------------------------------------------------------------------------------------------


def error_in_words(error: str | None) -> str:
    """`ValueError: no money` from a recorded error, whatever it is."""
    record = _record_of(error)
    kind, message = str(record.get("error_type", "")), str(record.get("error_message", ""))
    return _cut(f"{kind}: {message}".strip(": ")) or "no error is recorded"


def tells_an_error(kind: str) -> bool:
    """Whether the output of such a row of history is an error."""
    return "Failed" in kind or "Cancelled" in kind or kind == Kind.COMPENSATION_STARTED


def stack_of(error: str | None) -> str:
    """Where a recorded error was raised; empty where that is not recorded."""
    return str(_record_of(error).get("stack_trace", ""))


def _record_of(error: str | None) -> dict[str, Any]:
    try:
        found: Any = json.loads(error or "{}")
    except (ValueError, RecursionError):
        found = None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1] + "…"


def duration(us: int) -> str:
    """In the largest unit that fits, and one more: `3 min 20 s`."""
    seconds = max(us, 0) / 1_000_000
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"
