"""Random workflows are run, and what the overlay says is compared with where each call was truly made.

A statement is only good if it is true: every call id at a node, every count, every state but `PERHAPS`. That is asked
of the complete history and of beginnings of it, as a viewer sees them while the instance runs. More programs:
`EDDA_DRAWN_FROM=15 EDDA_DRAWN_TO=500`.
"""

from __future__ import annotations

import os

import pytest

from edda import EddaApp
from edda.core.history import COMPLETIONS, HistoryEvent
from edda.visualizer import Graph, State, diagram, overlay
from edda.visualizer.graph import NodeKind
from tests.visualizer.programs import Program, histories_of, noted_call_sites

SEEDS = range(int(os.environ.get("EDDA_DRAWN_FROM", "0")), int(os.environ.get("EDDA_DRAWN_TO", "15")))
INPUTS = (1, 2, 3, 5)


def _site(node_id: str) -> str:
    return node_id.rpartition("/")[2].partition("'")[0]


def check(graph: Graph, rows: list[HistoryEvent], sites: dict[str, str], ever: set[str]) -> tuple[int, int]:
    """Fails on a false statement; returns how many rows have a place, and how many there are."""
    answered = {row.call_id for row in rows if row.kind in COMPLETIONS and row.call_id in sites}
    made_at = [sites[call_id] for call_id in answered]
    copies = [_site(node.id) for node in graph.nodes if node.kind is NodeKind.ACTIVITY]
    placed = 0
    for node in graph.nodes:
        if node.kind is not NodeKind.ACTIVITY:
            continue
        site = _site(node.id)
        assert all(sites[call_id] == site for call_id in node.call_ids), f"{node.call_ids} were not made at {node.id}"
        placed += len(node.call_ids)
        if node.state in (State.EXECUTED, State.FAILED, State.COMPENSATED):
            assert site in made_at, f"{node.id} was not executed"
        if node.state is State.SKIPPED and copies.count(site) == 1:
            assert site not in ever, f"{node.id} was executed, or will be"
        if not node.reachable:
            assert site not in ever
        if node.state is not State.PERHAPS and node.call_ids and copies.count(site) == 1:
            assert node.count <= made_at.count(site)
    return placed, len(answered)


async def test_every_statement_about_an_execution_is_true() -> None:
    placed = answered = 0
    async with EddaApp(db_url="sqlite:///:memory:") as app:
        for seed in SEEDS:
            program = Program(seed)
            with noted_call_sites(program.name) as noted:
                workflow = program.load()
                for n in INPUTS:
                    noted.clear()
                    (history,) = await histories_of(app, workflow, [n])
                    graph = diagram(program.source)
                    answers = {row.call_id for row in history if row.kind in COMPLETIONS and row.call_id in noted}
                    ever = {noted[call_id] for call_id in answers}
                    for length in {*range(1, len(history) + 1, 1 + len(history) // 10), len(history)}:
                        laid = overlay(graph, history[:length])
                        try:
                            assert not any("does not fit" in note for note in laid.notes), "not explained"
                            one, all_of = check(laid, history[:length], noted, ever)
                        except AssertionError as error:
                            pytest.fail(
                                f"seed {seed}, n={n}, {length} of {len(history)} rows: {error}\n{program.source}"
                            )
                    placed, answered = placed + one, answered + all_of
    assert placed > 0.2 * answered, f"only {placed} of {answered} rows have a place for certain"
    print(f"{placed} of {answered} rows have a place for certain")
