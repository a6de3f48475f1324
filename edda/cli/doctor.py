"""`edda doctor`: what is wrong, and what to do about it. It only looks.

Each check is a question to the database with an answer in words. Findings: `bad` must be mended, `worth` is worth a
look; any `bad` one makes the exit code 1.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from edda.cli.opening import reader_of
from edda.cli.options import with_database, with_json
from edda.cli.terminal import clean, counted, say, say_json
from edda.core.lifecycle import SET_ASIDE, Status
from edda.storage.outbox import DEAD, PENDING
from edda.storage.reads import Backlog, EventFilter, InstanceFilter, WorkerView
from edda.storage.sql import health
from edda.why import duration, is_working

if TYPE_CHECKING:
    from edda.storage.sql.reads_store import SqlReader

SKEW_US_MAX: Final = 5_000_000
LAG_US_MAX: Final = 10_000_000
OVERDUE_US: Final = 60_000_000
UNROUTED_US: Final = 30_000_000
RELAY_LAG_US: Final = 300_000_000
STUCK_US: Final = 3600 * 10**6
SHOWN: Final = 5
EXAMPLES = """\
  edda doctor
  edda doctor --json | jq '.findings[].what'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    check: str
    how: Literal["bad", "worth"]
    what: str
    advice: str


Check = Callable[["SqlReader"], Awaitable[list[Finding]]]


def add(parser: ArgumentParser) -> None:
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    async with reader_of(options) as reader:
        about = await health.about(reader.database)
        findings = [finding for check in CHECKS for finding in await check(reader)]
    bad = [finding for finding in findings if finding.how == "bad"]
    if options.json:
        say_json({"database": about, "findings": findings})
        return 1 if bad else 0
    say(f"{about}; {len(CHECKS)} checks")
    for finding in sorted(findings, key=lambda one: one.how):
        say(f"{'BAD ' if finding.how == 'bad' else 'NOTE'}  {clean(finding.what, most=None)}")
        say(f"      {finding.advice}")
    if not findings:
        say("Nothing is wrong.")
    return 1 if bad else 0


def _bad(check: str, what: str, advice: str) -> Finding:
    return Finding(check=check, how="bad", what=what, advice=advice)


def _worth(check: str, what: str, advice: str) -> Finding:
    return Finding(check=check, how="worth", what=what, advice=advice)


# -- the database -----------------------------------------------------------------------------------------------------


async def settings(reader: SqlReader) -> list[Finding]:
    """What its version and settings put at risk."""
    return [
        Finding(check="settings", how="bad" if risk.serious else "worth", what=risk.what, advice=risk.advice)
        for risk in await health.risks(reader.database)
    ]


async def indexes(reader: SqlReader) -> list[Finding]:
    missing = await health.missing_indexes(reader.database)
    if not missing:
        return []
    advice = "Make them again: edda db sql prints how"
    return [_bad("indexes", f"indexes are missing: {', '.join(missing)}", advice)]


async def clock(reader: SqlReader) -> list[Finding]:
    """Leases and timers go by the database's clock alone; but events carry times, and logs are compared."""
    before_us = time.time_ns() // 1000
    there_us = await reader.clock()
    here_us = (before_us + time.time_ns() // 1000) // 2
    skew_us = there_us - here_us
    if abs(skew_us) <= SKEW_US_MAX:
        return []
    sign = "ahead of" if skew_us > 0 else "behind"
    return [
        _worth(
            "clock",
            f"the database's clock is {duration(abs(skew_us))} {sign} this machine's",
            "Let both be set by NTP; edda itself goes by the database's",
        )
    ]


# -- workers ----------------------------------------------------------------------------------------------------------


async def workers(reader: SqlReader) -> list[Finding]:
    """Those that hold instances and do not work."""
    known = await reader.worker_views()
    found: list[Finding] = []
    for one in known.rows:
        if one.alive and not is_working(one, known.now_us):
            left_us = one.lease_until_us - known.now_us
            how = f"its lease ended {duration(-left_us)} ago" if left_us <= 0 else "its process is gone"
            held = counted(one.held, "instance")
            what = f"worker {one.id} ({one.service}) counts as alive, but {how}; it holds {held}"
            found.append(_bad("workers", what, "Start a worker on this database: it takes over what others held"))
    return found


async def unrun(reader: SqlReader) -> list[Finding]:
    """Workflows with work, and nobody who does it; and work that waits too long."""
    known = await reader.worker_views()
    backlogs = await reader.backlogs()
    late = [backlog for backlog in backlogs.rows if backlogs.now_us - backlog.oldest_us >= LAG_US_MAX]
    working = [one for one in known.rows if is_working(one, known.now_us)]
    if late and not working:
        return [_without_any_worker(late, backlogs.now_us)]
    return [_late(backlog, working, backlogs.now_us) for backlog in late]


def _without_any_worker(late: Sequence[Backlog], now_us: int) -> Finding:
    """One finding, however many workflows there are: the cause is one."""
    since = duration(now_us - min(backlog.oldest_us for backlog in late))
    waiting = counted(sum(backlog.claimable for backlog in late), "instance")
    more = "more than " if any(backlog.capped for backlog in late) else ""
    of = repr(late[0].workflow) if len(late) == 1 else counted(len(late), "workflow")
    what = f"{more}{waiting} of {of} without a worker since {since}: no worker is alive"
    return _bad("unrun", what, "Start one: edda run MODULE:APP")


def _late(backlog: Backlog, working: Sequence[WorkerView], now_us: int) -> Finding:
    since = duration(now_us - backlog.oldest_us)
    more = "more than " if backlog.capped else ""
    count = f"{more}{counted(backlog.claimable, 'instance')} of {backlog.workflow!r}"
    if all(one.workflows is not None and backlog.workflow not in one.workflows for one in working):
        what = f"{count} without a worker since {since}: no alive worker knows that workflow"
        return _bad("unrun", what, "Was it renamed, or its module not imported? Start a worker that has it")
    what = f"{count} without a free worker, the first since {since}"
    return _worth("lag", what, "Start more workers, or raise max_running")


# -- instances --------------------------------------------------------------------------------------------------------


async def aside(reader: SqlReader) -> list[Finding]:
    page = await reader.instance_page(InstanceFilter(statuses=SET_ASIDE | {Status.COMPENSATION_FAILED}))
    if not page.rows:
        return []
    named = ", ".join(f"{row.id} ({row.status.value})" for row in page.rows[:SHOWN])
    more = (
        "" if len(page.rows) <= SHOWN else f" and {'more than ' if page.next_page else ''}{len(page.rows) - SHOWN} more"
    )
    advice = "Each says why: edda why ID; then edda retry ID or edda cancel ID"
    return [_bad("aside", f"these wait for a person: {named}{more}", advice)]


async def stuck(reader: SqlReader) -> list[Finding]:
    """Running for long without a word: held by a living worker, and nothing written."""
    now_us = await reader.clock()
    page = await reader.instance_page(
        InstanceFilter(statuses=frozenset({Status.RUNNING, Status.COMPENSATING}), created_before_us=now_us - STUCK_US)
    )
    held = [row for row in page.rows if row.owner is not None and row.updated_at_us < now_us - STUCK_US]
    silent: list[str] = []
    for row in held[:SHOWN]:
        latest = await reader.history_page(row.id, limit=1, latest=True)
        if not latest.rows or latest.rows[-1].at_us < now_us - STUCK_US:
            silent.append(row.id)
    if not silent:
        return []
    what = f"nothing was recorded for more than {duration(STUCK_US)} by: {', '.join(silent)}"
    return [_worth("stuck", what, "Does an activity hang? Give it a timeout=; edda why ID says which worker has it")]


# -- events -----------------------------------------------------------------------------------------------------------


async def dead_letters(reader: SqlReader) -> list[Finding]:
    counts = {one.status: one for one in await reader.outbox_counts()}
    if DEAD not in counts:
        return []
    (latest,) = (await reader.outbox_page(status=DEAD, limit=1)).rows
    dead = counted(counts[DEAD].count, "dead letter")
    what = f"{dead} in the outbox; the latest, {latest.message.type}: {latest.reason}"
    return [_bad("dead letters", what, "edda requeue lists them; when the receiver takes them: edda requeue ID")]


async def relay(reader: SqlReader) -> list[Finding]:
    """What is due in the outbox, and does not leave."""
    now_us = await reader.clock()
    page = await reader.outbox_page(status=PENDING, limit=1)
    if not page.rows or now_us - page.rows[0].due_at_us < RELAY_LAG_US:
        return []
    first = page.rows[0]
    what = f"an event ({first.message.type}) is due in the outbox since {duration(now_us - first.due_at_us)}"
    return [_bad("relay", what, "Does a worker run with outbox_enabled=True and a broker_url?")]


async def unrouted(reader: SqlReader) -> list[Finding]:
    now_us = await reader.clock()
    page = await reader.event_page(EventFilter(unrouted=True))
    late = [view for view in page.rows if now_us - view.accepted_at_us > UNROUTED_US]
    if not late:
        return []
    count = f"{'more than ' if page.next_page else ''}{counted(len(late), 'event')}"
    what = f"{count} came in, not yet led to those who wait"
    return [_bad("unrouted", what, "Any worker does that: is one alive?")]


CHECKS: Final[tuple[Check, ...]] = (
    settings, indexes, clock, workers, unrun, aside, stuck, dead_letters, relay, unrouted,
)  # fmt: skip
