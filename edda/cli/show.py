"""`edda show ID`: everything about one instance."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final

from edda.cli.opening import reader_of
from edda.cli.options import limit, with_database, with_json
from edda.cli.terminal import facts, note, say, say_json, table, time_of
from edda.core.history import HistoryEvent, InstanceId
from edda.exceptions import InstanceNotFoundError
from edda.storage.reads import PAGE_MAX, InstanceFilter
from edda.why import error_in_words, look, stack_of, tells_an_error, why

EXAMPLES = """\
  edda show order-42
  edda show order-42 --history 200        more of its history
  edda show order-42 --json | jq .history
"""
LINE_OF_CODE: Final = 'File "'
"""In a stack that says more than the error does."""


def add(parser: ArgumentParser) -> None:
    parser.add_argument("id", help="of the instance")
    parser.add_argument(
        "--history", type=limit(PAGE_MAX), default=50, metavar="N", help=f"latest rows, up to {PAGE_MAX}; default 50"
    )
    parser.add_argument("--stack", action="store_true", help="the stack of each error, too")
    with_database(parser)
    with_json(parser)


async def run(options: Namespace) -> int:
    instance_id = InstanceId(options.id)
    async with reader_of(options) as reader:
        situation = await look(reader, instance_id)
        if situation is None:
            raise InstanceNotFoundError(options.id)
        latest = await reader.history_page(instance_id, limit=options.history, latest=True)
        waits = await reader.waits_of(instance_id)
        children = await reader.instance_page(InstanceFilter(parent_id=instance_id))
        sent = await reader.outbox_page(status="", instance_id=instance_id)
    row, answer = situation.row, why(situation)
    if options.json:
        shown = row._asdict() | {"why": answer.sentence, "advice": answer.advice, "history": latest.rows}
        say_json(shown | {"waits": waits, "children": children.rows, "outbox": sent.rows})
        return 0
    facts(
        [
            ("id", row.id), ("workflow", row.workflow), ("status", row.status), ("why", answer.sentence),
            ("to do", answer.advice), ("started", time_of(row.created_at_us)), ("ended", time_of(row.ended_at_us)),
            ("parent", row.parent_id), ("input", row.input), ("output", row.output),
            ("error", error_in_words(row.error) if row.error else None),
            ("crashes", row.crashes or None),
            ("waits for", ", ".join(f"{wait.type} ({wait.call_id})" for wait in waits)),
        ]
    )  # fmt: skip
    _show_history(latest.rows)
    if options.stack:
        _show_stacks(latest.rows)
    if children.rows:
        say()
        table(("CHILD", "WORKFLOW", "STATUS"), [(child.id, child.workflow, child.status) for child in children.rows])
    if sent.rows:
        say()
        table(
            ("EVENT SENT", "TYPE", "STATUS", "ATTEMPTS", "REASON"),
            [(one.message.id, one.message.type, one.status, one.attempts, one.reason) for one in sent.rows],
        )
    return 0


def _show_history(rows: tuple[HistoryEvent, ...]) -> None:
    say()
    table(("SEQ", "TIME (UTC)", "EVENT", "CALL", "VALUE"), [history_line(event) for event in rows])
    if rows and rows[0].seq > 1:
        note(f"{rows[0].seq - 1} earlier rows are not shown; --history {PAGE_MAX} or edda tail --from-start")


def _show_stacks(rows: tuple[HistoryEvent, ...]) -> None:
    """Each once: an error that is retried, or that ends the workflow when it has been undone, is recorded again."""
    before = ""
    for event in rows:
        stack = stack_of(event.output) if tells_an_error(event.kind) else ""
        if LINE_OF_CODE in stack and stack != before:
            say(f"\n{event.seq}  {event.kind} {event.call_id or event.name}")
            for line in stack.splitlines():
                say(f"   {line}".rstrip())
            before = stack


def history_line(event: HistoryEvent) -> tuple[object, ...]:
    value = event.output if event.blob is None else f"{len(event.blob)} bytes"
    if event.output and tells_an_error(event.kind):
        value = error_in_words(event.output)
    return event.seq, time_of(event.at_us), event.kind, event.call_id or event.name, value
