"""Random instances and random questions, asked of a store and of the model: they find the same, in the same order.

How far a page may look is made small, so that most questions run into it.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edda.core.commit import NewInstance
from edda.core.history import InstanceId
from edda.core.lifecycle import Status
from edda.core.search import SearchField, terms_of
from edda.storage.memory import MemoryStore
from edda.storage.reads import InstanceFilter
from edda.storage.sql.store import SqlStore
from tests.storage.conftest import KINDS, opened, url_of
from tests.storage.support import do, select, wipe

EXAMPLES = {"sqlite": 20, "sqlite_memory": 150, "postgresql": 30, "mysql": 15}
"""How many questions; `EDDA_EXAMPLES=50` makes them fifty times as many."""

WORKFLOWS = ("Order", "order", "refund")
FIELDS = ("code", "buyer.city", "lines.0")
IDS = [InstanceId(name) for name in ("a", "aa", "ab", "a-1", "A", "b", "ba", "ä", "𐍈", "z%", "z_", "z")]
TEXTS = ("x", "X", "x ", "", "é", "e\u0301", "1", "𐍈", '"', "\\", "\u0001")
NUMBERS = (0, 1, 1.5, -1, 10**16, 1e16, 2**53, 2**53 + 1, 1e-7, 10**30, 1e30)

values = st.sampled_from([None, True, False, *TEXTS, *NUMBERS])
times = st.integers(0, 8)
some_time = st.none() | times


@dataclass(frozen=True)
class Begun:
    """An instance as it is to be."""

    id: InstanceId
    workflow: str
    status: Status
    parent: InstanceId | None
    by_position: bool
    arguments: dict[str, Any]
    has_terms: bool
    created: int
    updated: int

    def new(self) -> NewInstance:
        recorded: dict[str, Any] = (
            {"args": list(self.arguments.values()), "kwargs": {}}
            if self.by_position
            else {"args": [], "kwargs": self.arguments}
        )
        text = json.dumps(recorded, ensure_ascii=False, separators=(",", ":"))
        fields = [SearchField(path, place) for place, path in enumerate(FIELDS)] if self.has_terms else []
        return NewInstance(
            id=self.id,
            workflow=self.workflow,
            input=text,
            args_hash="hash",
            parent_id=self.parent,
            terms=terms_of(self.workflow, text, fields),
        )


arguments = st.builds(
    lambda code, city, line: {"code": code, "buyer": {"city": city}, "lines": [line]}, values, values, values
)
begun = st.lists(
    st.builds(
        Begun,
        id=st.sampled_from(IDS),
        workflow=st.sampled_from(WORKFLOWS),
        status=st.sampled_from(list(Status)[:4]),
        parent=st.none() | st.sampled_from(IDS[:2]),
        by_position=st.booleans(),
        arguments=arguments,
        has_terms=st.booleans(),
        created=times,
        updated=times,
    ),
    unique_by=lambda one: one.id,
    max_size=len(IDS),
)
declared = st.dictionaries(st.tuples(st.sampled_from(WORKFLOWS), st.sampled_from(FIELDS)), times)
questions = st.builds(
    InstanceFilter,
    statuses=st.frozensets(st.sampled_from(list(Status)[:4]), max_size=2),
    workflows=st.frozensets(st.sampled_from([*WORKFLOWS, "unknown"]), max_size=2),
    id_prefix=st.sampled_from(["", "", "", "a", "A", "z", "ä", "𐍈", "\U0010ffff"]),
    parent_id=st.sampled_from(["", "", "", "a"]),
    created_from_us=some_time,
    created_before_us=some_time,
    updated_from_us=some_time,
    updated_before_us=some_time,
    argument=st.none()
    | st.tuples(st.sampled_from([*FIELDS, "lines", "lines.1", "lines.²", "buyer", "0", "²"]), values | st.just([1])),
)


async def fill(store: SqlStore, model: MemoryStore, rows: list[Begun], since: dict[tuple[str, str], int]) -> None:
    """The same in both, with the same times."""
    await wipe(store)
    fields: dict[str, list[str]] = {workflow: [] for workflow in WORKFLOWS}
    for workflow, path in since:
        fields[workflow].append(path)
    for both in (store, model):
        await both.declare_search_fields(fields)
        for one in rows:
            await both.create(one.new())
    differing = "select count(*) from edda_search s join edda_instance i on i.id = s.instance_id"
    assert await select(store, f"{differing} where s.created_at_us <> i.created_at_us") == [(0,)]
    for (workflow, path), at in since.items():
        await do(store, "update edda_search_field set since_us = ? where workflow = ? and path = ?", at, workflow, path)
        model.search_fields[workflow, path] = at
    for one in rows:
        changed = (one.status.value, one.created, one.updated, one.id)
        await do(
            store, "update edda_instance set status = ?, created_at_us = ?, updated_at_us = ? where id = ?", *changed
        )
        await do(store, "update edda_search set created_at_us = ? where instance_id = ?", one.created, one.id)
        model.rows[one.id] = model.rows[one.id]._replace(
            status=one.status, created_at_us=one.created, updated_at_us=one.updated
        )


async def all_pages(store: Any, which: InstanceFilter, *, limit: int) -> list[str]:
    """The ids of all pages: where looking ends, a page may be empty and not be the last."""
    found: list[str] = []
    page: str | None = None
    for _ in range(2 * len(IDS)):
        answer = await store.instance_page(which, limit=limit, page=page)
        assert len(answer.rows) <= limit
        found += [row.id for row in answer.rows]
        page = answer.next_page
        if page is None:
            return found
    raise AssertionError(f"pages without an end: {found}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_store_finds_what_the_model_finds(kind: str, urls: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, bound in (("SCANNED_MAX", 4), ("PREFIX_MAX", 2)):
        monkeypatch.setattr(f"edda.storage.reads.{name}", bound)
    monkeypatch.setattr("edda.storage.sql.reads.SCANNED_MAX", 4)
    url = url_of(urls, kind)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        store = runner.run(stack.enter_async_context(opened(url)))

        @settings(
            max_examples=EXAMPLES[kind] * int(os.environ.get("EDDA_EXAMPLES", "1")),
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )
        @given(rows=begun, since=declared, asked=st.lists(questions, min_size=1, max_size=6), limit=st.integers(1, 5))
        def answers_are_equal(
            rows: list[Begun], since: dict[tuple[str, str], int], asked: list[InstanceFilter], limit: int
        ) -> None:
            model = MemoryStore(now_us=lambda: 0)
            runner.run(fill(store, model, rows, since))
            for which in asked:
                expected = runner.run(all_pages(model, which, limit=limit))
                assert runner.run(all_pages(store, which, limit=limit)) == expected, which

        try:
            answers_are_equal()
        finally:
            runner.run(stack.aclose())
