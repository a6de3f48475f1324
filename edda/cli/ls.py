"""`edda ls`: instances, newest first."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

from edda.cli.opening import reader_of
from edda.cli.options import json_or_text, limit, moment_us, pair, with_database, with_json
from edda.cli.terminal import age, note, say_json, table
from edda.core.history import InstanceId
from edda.core.lifecycle import SET_ASIDE, Status
from edda.storage.reads import PAGE, PAGE_MAX, InstanceCount, InstanceFilter, InstanceSummary, Reader
from edda.why import error_in_words

EXAMPLES = """\
  edda ls
  edda ls --status failed --status compensation_failed --since 24h
  edda ls --aside                         what waits for a person
  edda ls --workflow order --where customer.id=42
  edda ls --counts
"""


def add(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--status", action="append", choices=[status.value for status in Status], metavar="STATUS",
        help="only these; may be repeated: " + ", ".join(Status),
    )  # fmt: skip
    parser.add_argument("--workflow", action="append", metavar="NAME", help="only these; may be repeated")
    parser.add_argument("--id", default="", metavar="PREFIX", help="an id, or how it begins")
    parser.add_argument("--parent", default="", metavar="ID", help="children of this instance")
    parser.add_argument("--since", metavar="TIME", help="started since: how long ago (2h, 30d) or an ISO date")
    parser.add_argument("--before", metavar="TIME", help="started before")
    parser.add_argument("--text", default="", help="in the reason or the error")
    parser.add_argument(
        "--where", type=pair, metavar="ARG=VALUE", help="value of an argument: order_id=42, customer.name=Ann"
    )
    parser.add_argument("--aside", action="store_true", help="only what is set aside until a person acts")
    parser.add_argument("--limit", type=limit(PAGE_MAX), default=PAGE, help=f"rows, up to {PAGE_MAX}; default {PAGE}")
    parser.add_argument("--page", metavar="TOKEN", help="go on where the page before ended")
    parser.add_argument("--counts", action="store_true", help="how many of each workflow and status instead")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    async with reader_of(options) as reader:
        if options.counts:
            return _show_counts(options, await reader.instance_counts())
        now_us = await reader.clock()
        which = filter_of(options, now_us=now_us)
        page = await reader.instance_page(which, limit=options.limit, page=options.page)
        errors = {} if options.json else await _errors_of(reader, page.rows)
    if options.json:
        say_json({"instances": page.rows, "next_page": page.next_page, "scanned_all": page.scanned_all})
        return 0
    columns = ("ID", "WORKFLOW", "STATUS", "STARTED", "CHANGED", "REASON")
    table(columns, [_line(row, errors.get(row.id, ""), now_us) for row in page.rows])
    if not page.rows:
        note("No instance is like that." if page.scanned_all else "None among those that were looked at.")
    if page.next_page is not None:
        what = "There are more" if page.scanned_all else "Only the newest were looked at; older ones"
        note(f"{what}: --page {page.next_page}")
    return 0


def filter_of(options: Namespace, *, now_us: int) -> InstanceFilter:
    statuses = frozenset(Status(name) for name in options.status or ())
    if options.aside:
        statuses |= SET_ASIDE
    where = options.where
    return InstanceFilter(
        statuses=statuses,
        workflows=frozenset(options.workflow or ()),
        id_prefix=options.id,
        parent_id=options.parent,
        created_from_us=None if options.since is None else moment_us(options.since, now_us=now_us),
        created_before_us=None if options.before is None else moment_us(options.before, now_us=now_us),
        text=options.text,
        argument=None if where is None else (where[0], json_or_text(where[1])),
    )


async def _errors_of(reader: Reader, rows: Sequence[InstanceSummary]) -> dict[InstanceId, str]:
    """How the failed ones of a page failed, in words: a list has no errors."""
    failed = [row.id for row in rows if row.status in (Status.FAILED, Status.COMPENSATION_FAILED)]
    found: Mapping[InstanceId, str] = await reader.errors(failed) if failed else {}
    return {instance_id: error_in_words(error) for instance_id, error in found.items()}


def _line(row: InstanceSummary, error: str, now_us: int) -> tuple[str, ...]:
    started, changed = age(now_us - row.created_at_us), age(now_us - row.updated_at_us)
    cancelling = row.cancel_requested_at_us is not None and row.ended_at_us is None
    reason = row.reason or error or ("cancel asked for" if cancelling else "")
    return row.id, row.workflow, row.status.value, started, changed, reason


def _show_counts(options: Namespace, counts: tuple[InstanceCount, ...]) -> int:
    rows = list(counts)
    if options.json:
        say_json(rows)
    else:
        table(
            ("WORKFLOW", "STATUS", "COUNT"),
            [(one.workflow, one.status, f"{one.count:,}" + ("+" if one.capped else "")) for one in rows],
        )
    return 0
