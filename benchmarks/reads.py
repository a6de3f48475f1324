"""How long people wait for a list, a count or a whole page among 100,000 instances; the bar is 200 ms each.

    python -m benchmarks.reads --databases sqlite,postgresql,mysql --instances 100000

Most instances have completed; some failed, wait or run; each has an input of about 300 bytes and some rows of history.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import httpx2

from benchmarks.figures import table
from edda.core.commit import OutboxMessage
from edda.core.event import CloudEvent
from edda.core.history import InstanceId
from edda.core.lifecycle import SET_ASIDE, Status
from edda.core.search import term_of
from edda.storage.reads import LEASED, EventFilter, InstanceFilter
from edda.storage.sql import open_store
from edda.storage.sql.database import Lane
from edda.storage.sql.rows import inbox_row, insert, outbox_row
from edda.storage.sql.schema import HISTORY, INBOX, INSTANCE, OUTBOX_COLUMNS, SEARCH_COLUMNS, WAIT_COLUMNS
from edda.storage.sql.store import SqlStore
from edda.storage.sql.verb import Statement, Verb
from edda.viewer import create_app
from tests.databases import available, fresh_database

WORKFLOWS = [f"workflow_{number:02}" for number in range(20)]
STATUSES = [Status.COMPLETED] * 960 + [Status.FAILED] * 10 + [Status.CANCELLED] * 10 + [Status.WAITING_FOR_EVENT] * 17
STATUSES += [Status.RUNNING] * 2 + [Status.NONDETERMINISTIC]
BLOCK = 500
BEGIN_US = 1_700_000_000_000_000


def instances(count: int, chance: random.Random) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        status = chance.choice(STATUSES)
        at_us = BEGIN_US + number * 1_000_000
        waiting = status is Status.WAITING_FOR_EVENT
        over = status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)
        due_us = BEGIN_US if status is Status.RUNNING else 10**17 if waiting else None
        text = json.dumps({"args": [], "kwargs": {"order_id": f"ORD-{number}", "n": number, "note": "x" * 250}})
        yield (
            f"i-{number:07}", WORKFLOWS[min(19, int(chance.expovariate(0.25)))], status.value,
            "event order.paid, by 2026-11-30" if waiting else "", None, 1, 0, due_us, None, "", 0, text, "hash",
            "1" if status is Status.COMPLETED else None, None,
            '{"type": "ValueError", "message": "declined"}' if status is Status.FAILED else None,
            None, 0, "", "3.11", at_us, at_us + 5, at_us + chance.randrange(10**7) if over else None, 0, 0, None,
        )  # fmt: skip


def terms(count: int) -> Iterator[tuple[Any, ...]]:
    """As if one workflow, the commonest, declared its orders' ids; found whatever the workflow is."""
    for number in range(count):
        yield f"i-{number:07}", term_of(WORKFLOWS[0], "order_id", f"ORD-{number}"), BEGIN_US + number * 1_000_000


def history(count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(0, count, 10):
        for seq in range(1, 6):
            yield (f"i-{number:07}", seq, 1, BEGIN_US, "ActivityCompleted", f"pay:{seq}", "pay", "{}", "1", None, None)


def messages(count: int, chance: random.Random) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        at_us = BEGIN_US + number
        one = OutboxMessage(f"m{number}", InstanceId(f"i-{number:07}"), 1, 0, "t", "s", "{}", None, "json", at_us)
        status = chance.choice(["delivered"] * 95 + ["pending"] * 4 + ["dead"])
        yield (*outbox_row(one)[:-3], status, 1, at_us)


def events(count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        event = CloudEvent(id=f"e{number}", source=f"/s/{number % 50}", type=f"t{number % 10}", json='{"n": 1}')
        yield inbox_row(event, BEGIN_US + number)


def waits(count: int) -> Iterator[tuple[Any, ...]]:
    return ((f"i-{number:07}", "paid:1", f"t{number % 10}", f"route-{number}") for number in range(count))


async def fill(store: SqlStore, count: int) -> None:
    chance = random.Random(1)
    await store.declare_search_fields({WORKFLOWS[0]: ["order_id"]})
    await store.database.run(
        "fill", lambda: _insert("update edda_search_field set since_us = ?", [(0,)]), lane=Lane.DESK
    )
    for name, columns, rows in (
        ("edda_instance", tuple(column.name for column in INSTANCE.columns), instances(count, chance)),
        ("edda_search", SEARCH_COLUMNS, terms(count)),
        ("edda_history", tuple(column.name for column in HISTORY.columns), history(count)),
        ("edda_outbox", OUTBOX_COLUMNS, messages(count, chance)),
        ("edda_inbox", tuple(column.name for column in INBOX.columns), events(count)),
        ("edda_wait", WAIT_COLUMNS, waits(count // 2)),
    ):
        text = insert(name, columns)
        while block := list(islice(rows, BLOCK)):
            await store.database.run("fill", lambda text=text, block=block: _insert(text, block), lane=Lane.DESK)  # type: ignore[misc]


def _insert(text: str, rows: Sequence[tuple[Any, ...]]) -> Verb[None]:
    yield Statement(text, rows, many=True)


Question = Callable[[SqlStore], Awaitable[Any]]


def listed(**which: Any) -> Question:
    return lambda store: store.instance_page(InstanceFilter(**which), limit=50)


async def deep(store: SqlStore) -> Any:
    """A page in the middle of the list, by the token of the one before."""
    middle = await store.instance_page(InstanceFilter(created_before_us=BEGIN_US + 50_000_000_000), limit=50)
    return await store.instance_page(limit=50, page=middle.next_page)


QUESTIONS: dict[str, Question] = {
    "newest 50": listed(),
    "page in the middle": deep,
    "failed": listed(statuses=frozenset({Status.FAILED})),
    "set aside": listed(statuses=SET_ASIDE),
    "rare workflow": listed(workflows=frozenset({WORKFLOWS[19]})),
    "workflow and status": listed(workflows=frozenset({WORKFLOWS[3]}), statuses=frozenset({Status.FAILED})),
    "completed since": listed(statuses=frozenset({Status.COMPLETED}), created_from_us=BEGIN_US + 10**10),
    "id": listed(id_prefix="i-0005000"),
    "prefix of all": listed(id_prefix="i-"),
    "text": listed(text="declined"),
    "text that nobody has": listed(text="nobody has this"),
    "argument": listed(argument=("order_id", "ORD-95000")),
    "search field": listed(argument=("order_id", "ORD-42"), workflows=frozenset({WORKFLOWS[0]})),
    "search field of nobody": listed(argument=("order_id", "nobody"), workflows=frozenset({WORKFLOWS[0]})),
    "argument of nobody": listed(argument=("order_id", "nobody")),
    "argument of all": listed(argument=("note", "x" * 250)),
    "updated since": listed(updated_from_us=BEGIN_US + 10**10),
    "counts": lambda store: store.instance_counts(),
    "history page": lambda store: store.history_page(InstanceId("i-0000010")),
    "endings": lambda store: store.endings(WORKFLOWS[0]),
    "workers": lambda store: store.worker_views(),
    "backlogs": lambda store: store.backlogs(),
    "events": lambda store: store.event_page(limit=50),
    "events of a type": lambda store: store.event_page(EventFilter(type="t3"), limit=50),
    "events of a source": lambda store: store.event_page(EventFilter(source="nobody"), limit=50),
    "waits": lambda store: store.wait_page(limit=50),
    "waits of a type": lambda store: store.wait_page(type="nobody", limit=50),
    "outbox delivered": lambda store: store.outbox_page(status="delivered", limit=50),
    "outbox pending": lambda store: store.outbox_page(status="pending", limit=50),
    "outbox leased": lambda store: store.outbox_page(status=LEASED, limit=50),
    "outbox counts": lambda store: store.outbox_counts(),
}


TOKEN = "nobody-else-can-ask"
PAGES: dict[str, str] = {
    "/instances": "/instances",
    "/instances, failed": "/instances?status=failed",
    "/instances, a workflow": f"/instances?workflow={WORKFLOWS[3]}",
    "/instances, an id": "/instances?id=i-0005000",
    "/instances, a search field": f"/instances?workflow={WORKFLOWS[0]}&input=order_id+%3D+ORD-42",
    "/instances, an input": "/instances?input=order_id+%3D+ORD-95000",
    "/instances, a text": "/instances?text=declined",
    "/instances/one": "/instances/i-0000010",
    "/workflows": "/workflows",
    "/workflows/one": f"/workflows/one?name={WORKFLOWS[0]}",
    "/events": "/events",
    "/events, waits": "/events?tab=waits",
    "/outbox": "/outbox",
    "/outbox, delivered": "/outbox?status=delivered",
    "/workers": "/workers",
}
"""Whole pages of the viewer: from the request to the last byte of HTML, within the server."""


async def measure(url: str, count: int) -> dict[str, list[float]]:
    """Milliseconds of the first question or page of its kind, and of four more."""
    store = open_store(url)
    await store.open()
    try:
        await fill(store, count)
        await store.database.run("analyze", lambda: _once(ANALYZE[store.database.dialect.name]), lane=Lane.DESK)
        taken: dict[str, list[float]] = {}
        for name, question in QUESTIONS.items():
            for _ in range(5):
                begin = time.perf_counter()
                await question(store)
                taken.setdefault(name, []).append((time.perf_counter() - begin) * 1000)
    finally:
        await store.close()
    app = create_app(url, token=TOKEN, allowed_hosts=["viewer"])
    transport = httpx2.ASGITransport(app=app)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://viewer", headers=headers) as client:
        for name, path in PAGES.items():
            for _ in range(5):
                begin = time.perf_counter()
                (await client.get(path)).raise_for_status()
                taken.setdefault(name, []).append((time.perf_counter() - begin) * 1000)
    await app.state.close()
    return taken


ANALYZE = {
    "sqlite": "analyze",
    "postgresql": "analyze",
    "mysql": "analyze table edda_instance, edda_history, edda_outbox, edda_inbox, edda_wait, edda_search",
}
"""A database with so many rows has seen this long ago."""


def _once(text: str) -> Verb[None]:
    yield Statement(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", default="sqlite,postgresql,mysql")
    parser.add_argument("--instances", type=int, default=100_000)
    options = parser.parse_args(arguments)
    kinds = [kind for kind in options.databases.split(",") if available().get(kind)]
    found: dict[str, dict[str, list[float]]] = {}
    for kind in kinds:
        with fresh_database(kind) as url:
            found[kind] = asyncio.run(measure(url, options.instances))
    columns = ["question", *(f"{kind}, {what}" for kind in kinds for what in ("first", "then"))]
    rows = [
        [name, *(value for kind in kinds for value in (found[kind][name][0], sorted(found[kind][name][1:])[1]))]
        for name in (*QUESTIONS, *PAGES)
    ]
    print(table(f"milliseconds among {options.instances:,} instances", columns, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
