"""A process that dies at a commit boundary, on the real databases; see `real.matrix`."""

from __future__ import annotations

import pytest

from tests.databases import available
from tests.simulation.canonical import CANONICAL
from tests.simulation.real.matrix import Report, run_real_matrix
from tests.simulation.real.mutants import REAL_MUTANTS

DATABASES = (
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.postgresql),
    pytest.param("mysql", marks=pytest.mark.mysql),
)
SHARE = 3
"""The ordinary suite tries every third crash."""


def matrix(kind: str, *, every: int) -> Report:
    if available()[kind] is None:
        pytest.skip(f"there is no {kind} server")
    return run_real_matrix(kind, every=every)


def check(report: Report, *, every: int) -> None:
    assert report.failures == []
    assert [str(cell) for cell in report.unreached if not cell.may_be_missed] == []
    assert {"claim", "write park"} <= {operation for operation, _ in report.crashes}
    # Below that it was not the matrix that ran. A crash takes some other instances with it, and others are tried again.
    assert len(report.boundaries) == len(CANONICAL)
    assert sum(report.crashes.values()) + len(report.unreached) >= 2 * sum(report.boundaries.values()) // every
    assert report.deaths >= 180 // every


@pytest.mark.parametrize("kind", DATABASES)
def test_a_process_dies_at_a_commit_boundary_and_no_outcome_changes(kind: str) -> None:
    check(matrix(kind, every=SHARE), every=SHARE)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", DATABASES)
def test_a_process_dies_at_every_commit_boundary_and_no_outcome_changes(kind: str) -> None:
    check(matrix(kind, every=1), every=1)


@pytest.mark.parametrize("title", REAL_MUTANTS)
def test_the_matrix_finds_a_planted_bug(title: str) -> None:
    plant, name = REAL_MUTANTS[title]
    with plant():
        report = run_real_matrix(
            "sqlite", [each for each in CANONICAL if each.workflow.name == name], quiet_seconds=3.0
        )
    assert report.failures != []


@pytest.mark.slow  # a planted bug shows only where the crash comes in time, which a busy machine may prevent
@pytest.mark.parametrize("kind", DATABASES[1:])
def test_the_matrix_finds_on_a_server_that_a_record_comes_apart_from_its_rows(kind: str) -> None:
    if available()[kind] is None:
        pytest.skip(f"there is no {kind} server")
    plant, name = REAL_MUTANTS["the record comes after the rows of ctx.session"]
    with plant():
        report = run_real_matrix(kind, [each for each in CANONICAL if each.workflow.name == name])
    assert any("I9" in failure for failure in report.failures)
