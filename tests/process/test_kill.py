"""A short kill test of each database: some kills and pauses longer than the lease, and the verdict of the long one."""

import pytest

from tests.databases import available
from tests.process.kill_test import Plan, run
from tests.process.nemesis import Appetite


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "database",
    [
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.postgresql),
        pytest.param("mysql", marks=pytest.mark.mysql),
    ],
)
def test_what_is_killed_and_stopped_goes_on_elsewhere_and_no_law_is_broken(database: str) -> None:
    if available()[database] is None:
        pytest.skip(f"there is no {database} server")
    plan = Plan(
        database=database,
        workflows=200,
        seconds=25,
        lease=2.0,
        seed=7,
        appetite=Appetite(kill=3.0, stop=6.0, terminate=10.0),
        takeovers_min=1,
        refusals_min=0,
    )
    report = run(plan)
    print(report)
    assert report.good, f"\n{report}"
