"""The engine keeps its promises in simulated worlds full of faults; `python -m tests.simulation` plays many more.

`EDDA_SCHEDULES=20000 pytest tests/simulation` plays that many, and then also asks that every fault was tried.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.canonical import CANONICAL, HEARING, Canonical
from tests.simulation.crash_matrix import Matrix, run_hearing, run_workflow
from tests.simulation.mutants import MUTANTS, TARGETED, hunt
from tests.simulation.run import run_many
from tests.simulation.world import play, scenario_of

SCHEDULES = int(os.environ.get("EDDA_SCHEDULES", "200"))
FULL = 10_000
"""From so many schedules on every combination of operation and fault must have been tried."""

REGRESSIONS = (
    0,
    17,
    42,
    159,
    180,
    202,
    253,
    259,
    517,
    960,
    1003,
    1172,
    1408,
    1682,
    1903,
    2298,
    2693,
    2836,
    2889,
    4182,
    5562,
    100028,
    1001799,
    2041122,
    2003092,
    2028545,
    1064028,
    3058155,
    3084218,
    5027806,
    5093178,
    5089970,
    7049596,
    8077970,
    8089539,
    73,
    792,
    1038,
    303209,
    317619,
    12023262,
    13063933,
    13070475,
)
"""Seeds that once showed a bug, of the engine or of the simulation."""

RELAYED_REGRESSIONS = (286, 382)
"""Of those, where there are relayers."""


def test_no_schedule_breaks_a_promise() -> None:
    report = run_many(range(200_000, 200_000 + SCHEDULES), failures_max=5)
    assert [(failure.seed, failure.violations[0]) for failure in report.failures] == []
    assert report.schedules == SCHEDULES
    if FULL <= SCHEDULES:
        assert report.thin_cells == []


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_once_failed_does_not_fail_again(seed: int) -> None:
    assert play(scenario_of(seed, relayed=False, ordered=False)).violations == []


@pytest.mark.parametrize("seed", RELAYED_REGRESSIONS)
def test_a_seed_that_once_failed_with_relayers_does_not_fail_again(seed: int) -> None:
    assert play(scenario_of(seed, relayed=True, ordered=False)).violations == []


@pytest.mark.parametrize("relayed", [False, True])
def test_the_same_seed_is_the_same_run(*, relayed: bool) -> None:
    for seed in (3, 4, 5):
        first, second = (play(scenario_of(seed, relayed=relayed, ordered=relayed), trace=True).trace for _ in range(2))
        assert first == second
        assert first


@pytest.mark.parametrize("canonical", CANONICAL, ids=lambda each: each.workflow.name)
def test_a_crash_at_any_commit_changes_no_outcome(canonical: Canonical) -> None:
    """All single crashes and some pairs; `python -m tests.simulation.crash_matrix` tries all pairs."""
    matrix = Matrix()
    run_workflow(canonical, matrix, 12, 0)
    assert matrix.failures == []
    assert matrix.singles >= 8


@pytest.mark.parametrize("canonical", HEARING, ids=lambda each: each.workflow.name)
def test_an_event_sent_at_any_moment_is_received_once(canonical: Canonical) -> None:
    """At each boundary, with a crash at some of the others; `python -m tests.simulation.crash_matrix` tries all."""
    matrix = Matrix()
    run_hearing(canonical, matrix, 0, every=11)
    assert matrix.failures == []
    assert matrix.singles >= 40


@pytest.mark.parametrize("title", TARGETED)
def test_a_targeted_scenario_is_harmless_without_its_mutant(title: str) -> None:
    for seed in range(30):
        assert TARGETED[title](seed) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("title", MUTANTS)
def test_a_planted_bug_is_caught(title: str) -> None:
    assert hunt(title).seed is not None
