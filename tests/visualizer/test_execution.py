"""What an overlay says of one execution, case by case. `test_execution_truth.py` asks whether it is true in general."""

from __future__ import annotations

import json
from typing import Any

from edda.core.commit import EventWait
from edda.core.history import CallId, HistoryEvent, InstanceId, Kind
from edda.core.routing import Route
from edda.visualizer import Graph, State, diagram, overlay

HEAD = """
import asyncio
from edda import EventTimeoutError, activity, compensation, on_failure, wait_event, workflow
@compensation
async def undo(ctx, n): ...
@activity
@on_failure(undo)
async def a(ctx, n): ...
@activity
async def b(ctx, n): ...
@workflow
async def main(ctx, n):
"""


class Instance:
    """Writes a history."""

    def __init__(self) -> None:
        self.rows: list[HistoryEvent] = []
        self.counts: dict[str, int] = {}
        self.add(Kind.WORKFLOW_STARTED, "main", call_id="")

    def add(self, kind: Kind, name: str, *args: Any, call_id: str | None = None, **meta: Any) -> Instance:
        if call_id is None:
            self.counts[name] = self.counts.get(name, 0) + 1
            call_id = f"{name}:{self.counts[name]}"
        given = json.dumps({"args": args, "kwargs": {}})
        seq = len(self.rows) + 1
        details = json.dumps(meta) if meta else None
        self.rows.append(
            HistoryEvent(InstanceId("i"), seq, 1, seq, kind, CallId(call_id), name, given, "null", None, details)
        )
        return self

    def done(self, name: str, *args: Any) -> Instance:
        return self.add(Kind.ACTIVITY_COMPLETED, name, *args)

    def over(self, kind: Kind = Kind.WORKFLOW_COMPLETED) -> Instance:
        return self.add(kind, "main", call_id="")


def laid(body: str, instance: Instance, **known: Any) -> Graph:
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    return overlay(diagram(HEAD + lines), instance.rows, **known)


def states(graph: Graph, label: str) -> list[tuple[State, int]]:
    return [(node.state, node.count) for node in graph.nodes if node.label == label]


def test_W047_the_same_activity_in_two_branches_is_executed_in_one_only() -> None:
    body = """
if n:
    await a(ctx, "yes")
else:
    await a(ctx, "no")
"""
    graph = laid(body, Instance().done("a", "no").over())
    assert states(graph, "a") == [(State.SKIPPED, 0), (State.EXECUTED, 1)]
    (taken,) = (edge.label for edge in graph.edges if edge.travelled and edge.kind == "branch")
    assert taken == "no"


def test_W047_where_nothing_tells_the_branches_apart_no_guess_is_shown_as_a_fact() -> None:
    body = """
if n:
    await a(ctx, n)
else:
    await a(ctx, n + 1)
await b(ctx, n)
"""
    graph = laid(body, Instance().done("a", 7).done("b", 7).over())
    assert states(graph, "a") == [(State.PERHAPS, 0), (State.PERHAPS, 0)]
    assert states(graph, "b") == [(State.EXECUTED, 1)]
    assert any("several places" in note for note in graph.notes)


def test_what_comes_later_tells_which_branch_it_was() -> None:
    body = """
if n:
    await a(ctx, n)
else:
    await a(ctx, n)
    await b(ctx, n)
return n
"""
    assert states(laid(body, Instance().done("a", 1).done("b", 1).over()), "a")[1] == (State.EXECUTED, 1)
    assert states(laid(body, Instance().done("a", 1).over()), "a") == [(State.EXECUTED, 1), (State.SKIPPED, 0)]


def test_a_loop_counts() -> None:
    body = """
for i in range(n):
    await a(ctx, i)
await b(ctx, n)
"""
    graph = laid(body, Instance().done("a", 0).done("a", 1).done("a", 2))
    assert states(graph, "a") == [(State.EXECUTED, 3)]
    assert states(graph, "b") == [(State.NONE, 0)]
    assert next(node for node in graph.nodes if node.label == "a").call_ids == ("a:1", "a:2", "a:3")


def test_what_comes_next_runs_and_what_is_tried_again_says_so() -> None:
    body = "await a(ctx, 1)\nawait b(ctx, 2)"
    assert states(laid(body, Instance().done("a", 1)), "b") == [(State.RUNNING, 0)]
    again = Instance().done("a", 1).add(Kind.ACTIVITY_ATTEMPT_FAILED, "b", 2)
    assert states(laid(body, again), "b") == [(State.RETRYING, 0)]
    assert states(laid(body, again.add(Kind.ACTIVITY_FAILED, "b", 2, call_id="b:1")), "b") == [(State.FAILED, 1)]


def test_a_wait_waits_by_its_row_or_by_the_status() -> None:
    body = """
if n:
    await wait_event(ctx, f"paid.{n}")
else:
    await wait_event(ctx, "sent")
"""
    waits = [EventWait("paid.7:1", "paid.7", Route("r"))]
    assert states(laid(body, Instance(), waits=waits), "paid.{n}") == [(State.WAITING, 0)]
    assert states(laid(body, Instance(), status="waiting_for_event"), "sent") == [(State.NONE, 0)]
    only = "await a(ctx, 1)\nawait wait_event(ctx, 'sent')"
    assert states(laid(only, Instance().done("a", 1), status="waiting_for_event"), "sent") == [(State.WAITING, 0)]


def test_a_timeout_leads_to_its_handler() -> None:
    body = """
try:
    await wait_event(ctx, "paid")
except EventTimeoutError:
    return await a(ctx, 1)
return await a(ctx, 1)
"""
    late = Instance().add(Kind.EVENT_TIMED_OUT, "paid").done("a", 1).over()
    assert states(laid(body, late), "a") == [(State.EXECUTED, 1), (State.SKIPPED, 0)]
    in_time = Instance().add(Kind.EVENT_RECEIVED, "paid").done("a", 1).over()
    assert states(laid(body, in_time), "a") == [(State.SKIPPED, 0), (State.EXECUTED, 1)]


def test_an_error_before_the_first_step_of_a_try_is_caught_too() -> None:
    body = "try:\n    await a(ctx, n.m)\nfinally:\n    await b(ctx, n)"
    graph = laid(body, Instance().add(Kind.ACTIVITY_FAILED, "b", 6))
    assert states(graph, "b") == [(State.FAILED, 1)]
    assert not graph.notes


def test_what_was_undone_is_marked_and_so_is_what_undid_it() -> None:
    body = "await a(ctx, 1)\nawait a(ctx, 2)\nawait b(ctx, 3)"
    failed = Instance().done("a", 1).done("a", 2).add(Kind.ACTIVITY_FAILED, "b", 3)
    failed.add(Kind.COMPENSATION_STARTED, "main", call_id="", cause="failed")
    failed.add(Kind.COMPENSATION_EXECUTED, "undo", call_id="undo/a:2")
    graph = laid(body, failed, status="compensating")
    assert states(graph, "a") == [(State.EXECUTED, 1), (State.COMPENSATED, 1)]
    assert states(graph, "undo") == [(State.NONE, 0), (State.EXECUTED, 1)]
    failed.add(Kind.COMPENSATION_FAILED, "undo", call_id="undo/a:1").over(Kind.WORKFLOW_COMPENSATION_FAILED)
    assert states(laid(body, failed), "undo")[0] == (State.FAILED, 0)


def test_branches_that_run_at_once_are_told_apart_in_whatever_order_they_end() -> None:
    body = "await asyncio.gather(a(ctx, 1), b(ctx, 2), a(ctx, 3))\nawait a(ctx, 4)"
    mixed = Instance()
    mixed.add(Kind.ACTIVITY_COMPLETED, "a", 3, call_id="a:2").add(Kind.ACTIVITY_COMPLETED, "b", 2, call_id="b:1")
    assert states(laid(body, mixed), "a") == [(State.RUNNING, 0), (State.EXECUTED, 1), (State.NONE, 0)]
    mixed.add(Kind.ACTIVITY_COMPLETED, "a", 1, call_id="a:1")
    assert states(laid(body, mixed), "a") == [(State.EXECUTED, 1), (State.EXECUTED, 1), (State.RUNNING, 0)]


def test_a_child_that_is_waited_for_waits() -> None:
    body = "await other.run(n)\nawait a(ctx, 1)"
    started = Instance().add(Kind.CHILD_STARTED, "other")
    assert states(laid(body, started), "other") == [(State.WAITING, 0)]
    ended = started.add(Kind.CHILD_COMPLETED, "other:1.result")
    assert states(laid(body, ended), "other") == [(State.EXECUTED, 1)]


def test_a_history_of_other_code_is_no_fact_anywhere() -> None:
    graph = laid("await a(ctx, 1)", Instance().done("b", 1).done("a", 1).over())
    assert all(node.state in (State.NONE, State.PERHAPS) for node in graph.nodes)
    assert any("does not fit" in note for note in graph.notes)


def test_an_instance_that_has_not_begun_is_the_bare_diagram() -> None:
    graph = diagram(HEAD + "    await a(ctx, 1)")
    assert overlay(graph, []) is graph
