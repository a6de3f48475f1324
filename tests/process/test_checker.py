"""The checker itself: a good dump passes, and each planted fault is found by the law that is meant to find it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.process import checker
from tests.process.checker import Dump, Effect, Event, Instance

UNDO = '{"undo": "undo"}'


def _event(seq: int, kind: str, call_id: str = "", name: str = "", meta: str | None = None, claim: int = 1) -> Event:
    return Event(
        seq=seq, claim=claim, at_us=seq * 1_000_000, kind=kind, call_id=call_id, name=name, output=None, meta=meta
    )


def good() -> Dump:
    """A saga that failed and was undone, in two claims."""
    events = [
        _event(1, "WorkflowStarted"),
        _event(2, "ActivityCompleted", "hold:1", "hold", UNDO),
        _event(3, "ActivityCompleted", "hold:2", "hold", UNDO, claim=2),
        _event(4, "CompensationStarted", claim=2),
        _event(5, "CompensationExecuted", "undo/hold:2", "undo", claim=2),
        _event(6, "CompensationExecuted", "undo/hold:1", "undo", claim=2),
        _event(7, "WorkflowFailed", claim=2),
    ]
    instance = Instance(
        id="k-1", workflow="saga", status="failed", reason="", owner=None, claim=2, crashes=0,
        input='{"args": [1, 1], "kwargs": {}}', output=None, error=None, parent_id=None, cancelled=False,
    )  # fmt: skip
    kinds = [("hold:1", "do"), ("hold:2", "do"), ("undo/hold:2", "undo"), ("undo/hold:1", "undo")]
    effects = [Effect("k-1", call_id, kind, 1, "w") for call_id, kind in kinds]
    return Dump(instances={"k-1": instance}, histories={"k-1": events}, effects=effects)


def test_a_good_dump_passes() -> None:
    dump = good()
    assert checker.violations_of(dump) == []
    assert list(checker.everything_ended(dump)) == []
    growth = checker.Growth()
    assert growth.look(dump) == []
    assert growth.look(good()) == []


def _change_event(place: int, **changes: Any) -> Callable[[Dump], None]:
    def change(dump: Dump) -> None:
        dump.histories["k-1"][place] = dump.histories["k-1"][place]._replace(**changes)

    return change


def _change_instance(**changes: Any) -> Callable[[Dump], None]:
    def change(dump: Dump) -> None:
        dump.instances["k-1"] = dump.instances["k-1"]._replace(**changes)

    return change


def _swap_undos(dump: Dump) -> None:
    events = dump.histories["k-1"]
    events[4], events[5] = events[5]._replace(seq=5), events[4]._replace(seq=6)


@pytest.mark.parametrize(
    ("law", "fault"),
    [
        ("I1", _change_event(3, seq=5)),
        ("I1", lambda dump: dump.histories["k-1"].pop(1)),
        ("I2", _change_event(2, claim=3)),
        ("I2", _change_instance(claim=1)),
        ("I4", _change_event(2, call_id="hold:1")),
        ("I5", _change_instance(status="completed")),
        ("I5", _change_instance(status="running")),
        ("I5", lambda dump: dump.histories["k-1"].pop()),
        ("I6", lambda dump: dump.histories["k-1"].append(_event(8, "TimerFired", claim=2))),
        ("I9", lambda dump: dump.effects.pop()),
        ("I9", lambda dump: dump.effects.append(dump.effects[0])),
        ("I10", lambda dump: dump.effects.append(Effect("k-1", "hold:3", "do", 1, "w"))),
        ("I33", _swap_undos),
        ("I33", _change_event(4, call_id="undo/hold:1")),
        ("I34", _change_event(4, kind="ActivityCompleted", call_id="plain_step:1", name="plain_step")),
        ("I36", _change_event(5, kind="CompensationAttemptFailed")),
    ],
)
def test_a_planted_fault_is_found(law: str, fault: Callable[[Dump], object]) -> None:
    dump = good()
    fault(dump)
    assert law in {violation.law for violation in checker.violations_of(dump)}


def test_what_changes_after_the_end_is_found() -> None:
    growth = checker.Growth()
    growth.look(good())
    changed = good()
    _change_event(1, output="2")(changed)
    assert [violation.law for violation in growth.look(changed)] == ["I3"]
    later = good()
    _change_instance(claim=3)(later)
    assert "I6" in {violation.law for violation in growth.look(later)}


def test_what_is_left_behind_lost_or_wrong_is_found() -> None:
    dump = good()
    _change_instance(status="running", owner="w")(dump)
    assert [violation.law for violation in checker.everything_ended(dump)] == ["I52"]
    assert len(list(checker.everything_started_is_there(good(), ["k-1", "k-2"], workflows=2))) == 2
    assert [violation.law for violation in checker.cancels_hold(good(), ["k-1"])] == ["I37"]
    completed = good()
    _change_instance(status="completed", output="[0]")(completed)
    assert [violation.law for violation in checker.results_are_right(completed, seed=1)] == ["result"]


def test_a_late_entry_is_found_unless_the_claim_had_gone_elsewhere() -> None:
    begin = {"e": "begin", "t": 9.0, "at": 9.0, "i": "k-1", "c": "hold:2", "n": 2, "w": "old"}
    claim = {"e": "claim", "t": 1.5, "worker": "new", "ids": [["k-1", 2]]}
    assert list(checker.no_late_entry(good(), [claim, begin])) == []
    found = list(checker.no_late_entry(good(), [claim, begin | {"w": "new"}]))
    assert [violation.law for violation in found] == ["I12"]


def test_a_claim_given_twice_is_found() -> None:
    claims = [{"e": "claim", "worker": worker, "ids": [["k-1", 2]]} for worker in ("one", "two")]
    assert [violation.law for violation in checker.claims_are_unique(claims)] == ["I2"]
