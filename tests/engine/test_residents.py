"""Residents: a bounded cache of parked bodies, of which only the next claim gets one."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edda.core.history import InstanceId
from edda.engine.residents import Residents


class Parked:
    """As much of a driver as the cache looks at."""

    def __init__(self, name: str, *, claim: int = 1, resident: bool = True) -> None:
        self.instance_id = InstanceId(name)
        self.claim = claim
        self.resident = resident
        self.drops = 0

    def drop(self) -> None:
        self.drops += 1


def keep(residents: Residents, *drivers: Any) -> None:
    for driver in drivers:
        residents.keep(driver)


def test_the_claim_that_follows_goes_on_with_the_body() -> None:
    residents, driver = Residents(residents_max=10), Parked("a", claim=3)
    keep(residents, driver)
    assert residents.take(driver.instance_id, claim=4) is driver
    assert driver.drops == 0
    assert residents.take(driver.instance_id, claim=5) is None
    assert len(residents) == 0


@pytest.mark.parametrize("claim", [2, 3, 5, 6])
def test_a_claim_that_does_not_follow_drops_the_body_for_somebody_had_the_instance(claim: int) -> None:
    residents, driver = Residents(residents_max=10), Parked("a", claim=3)
    keep(residents, driver)
    assert residents.take(driver.instance_id, claim=claim) is None
    assert (driver.drops, len(residents)) == (1, 0)


def test_what_is_not_there_is_not_given() -> None:
    assert Residents(residents_max=10).take(InstanceId("a"), claim=2) is None


def test_the_least_recently_parked_is_evicted() -> None:
    residents = Residents(residents_max=2)
    first, second, third = Parked("first"), Parked("second"), Parked("third")
    keep(residents, first, second)
    assert residents.take(first.instance_id, claim=2) is not None
    keep(residents, first, third)
    assert [driver.drops for driver in (first, second, third)] == [0, 1, 0]


@pytest.mark.parametrize(("residents_max", "resident"), [(0, True), (0, False), (10, False)])
def test_what_cannot_be_kept_is_dropped_at_once(residents_max: int, resident: bool) -> None:
    residents, driver = Residents(residents_max=residents_max), Parked("a", resident=resident)
    keep(residents, driver)
    assert (driver.drops, len(residents)) == (1, 0)


def test_clearing_drops_them_all() -> None:
    residents, drivers = Residents(residents_max=10), [Parked(name) for name in "abc"]
    keep(residents, *drivers)
    residents.clear()
    assert [driver.drops for driver in drivers] == [1, 1, 1]
    assert len(residents) == 0


ACTS = st.lists(st.tuples(st.sampled_from(["keep", "take", "stale"]), st.integers(0, 5)), max_size=50)


@given(ACTS, st.integers(0, 4))
def test_it_behaves_like_a_list_of_the_latest_and_each_body_is_dropped_once_or_given_back(
    acts: list[tuple[str, int]], residents_max: int
) -> None:
    residents, model = Residents(residents_max=residents_max), OrderedDict[str, Parked]()
    made: list[Parked] = []
    given_back: list[Parked] = []
    for act, number in acts:
        name = InstanceId(str(number))
        if act == "keep" and name not in model:
            driver: Any = Parked(name)
            made.append(driver)
            model[name] = driver
            residents.keep(driver)
            while len(model) > residents_max:
                model.popitem(last=False)
        elif act != "keep":
            expected = model.pop(name, None)
            taken: Any = residents.take(name, claim=2 if act == "take" else 3)
            assert taken is (expected if act == "take" else None)
            given_back += [taken] if taken is not None else []
        assert len(residents) == len(model) <= residents_max
    for driver in made:
        alive = driver in model.values() or driver in given_back
        assert driver.drops == (0 if alive else 1)
