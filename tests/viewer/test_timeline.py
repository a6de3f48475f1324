from __future__ import annotations

import json
from typing import Any

from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.lifecycle import Status
from edda.viewer.timeline import LABEL_WIDTH, Lane, Now, Outcome, Sort, Stretch, lanes_of, scale_of

S = 1_000_000
DAY = 86_400 * S


def row(seq: int, at_us: int, kind: Kind | str, call: str = "", **meta: Any) -> HistoryEvent:
    name = call.removeprefix("undo/").partition(":")[0]
    return HistoryEvent(InstanceId("i"), seq, 1, at_us, str(kind), call, name, meta=json.dumps(meta) if meta else None)


def ended(at_us: int = 0) -> Now:
    return Now(now_us=at_us, status=Status.COMPLETED, owned=False, since_us=at_us)


def spans(lane: Lane) -> list[tuple[str, int, int]]:
    return [(stretch.kind, stretch.from_us, stretch.until_us) for stretch in lane.stretches]


def test_an_activity_with_its_duration_has_a_bar_of_that_length() -> None:
    (lane,) = lanes_of(
        [row(1, 0, Kind.WORKFLOW_STARTED), row(2, 500, Kind.ACTIVITY_COMPLETED, "a:1", duration_us=400)], ended()
    )
    assert spans(lane) == [("run", 100, 500)]
    assert (lane.outcome, lane.failures, lane.stretches[0].about) == (Outcome.COMPLETED, 0, False)


def test_an_activity_without_duration_began_at_the_latest_with_the_row_before() -> None:
    (lane,) = lanes_of([row(1, 50, Kind.WORKFLOW_STARTED), row(2, 500, Kind.ACTIVITY_COMPLETED, "a:1")], ended())
    assert spans(lane) == [("run", 50, 500)]
    assert lane.stretches[0].about


def test_attempts_and_back_offs_follow_each_other() -> None:
    (lane,) = lanes_of(
        [
            row(1, 0, Kind.WORKFLOW_STARTED),
            row(2, 100, Kind.ACTIVITY_ATTEMPT_FAILED, "a:1", duration_us=90, delay_us=50),
            row(3, 200, Kind.ACTIVITY_ATTEMPT_FAILED, "a:1", duration_us=40, delay_us=80),
            row(4, 300, Kind.ACTIVITY_COMPLETED, "a:1", duration_us=15),
        ],
        ended(),
    )
    assert spans(lane) == [
        ("failed", 10, 100), ("backoff", 100, 150), ("failed", 160, 200), ("backoff", 200, 280), ("run", 285, 300),
    ]  # fmt: skip
    assert (lane.failures, lane.attempts) == (2, 3)


def test_a_child_is_one_lane_from_its_start_to_its_end() -> None:
    (lane,) = lanes_of(
        [
            row(1, 100, Kind.CHILD_STARTED, "child:1", instance_id="c-1"),
            row(2, 900, Kind.CHILD_COMPLETED, "await:1", instance_id="c-1"),
        ],
        ended(),
    )
    assert (lane.call_id, lane.sort, lane.goes_to, spans(lane)) == ("child:1", Sort.CHILD, "c-1", [("run", 100, 900)])


def test_a_compensation_knows_what_it_undoes() -> None:
    lanes = lanes_of(
        [
            row(1, 100, Kind.ACTIVITY_COMPLETED, "a:1", duration_us=10),
            row(2, 200, Kind.COMPENSATION_EXECUTED, "undo/a:1", duration_us=20),
        ],
        ended(),
    )
    assert [(lane.sort, lane.undoes, lane.outcome) for lane in lanes] == [
        (Sort.ACTIVITY, "", Outcome.COMPLETED),
        (Sort.COMPENSATION, "a:1", Outcome.UNDONE),
    ]


def test_an_event_that_timed_out_was_waited_for_since_its_timeout() -> None:
    (lane,) = lanes_of([row(1, 10 * S, Kind.EVENT_TIMED_OUT, "e:1", timeout_seconds=4.0)], ended())
    assert spans(lane) == [("wait", 6 * S, 10 * S)]
    assert lane.outcome is Outcome.FAILED


def test_what_is_waited_for_is_open() -> None:
    now = Now(
        now_us=900,
        status=Status.WAITING_FOR_EVENT,
        owned=False,
        since_us=300,
        waits=(("paid:1", "paid"),),
        reason="event paid",
    )
    (lane,) = lanes_of([row(1, 100, Kind.WORKFLOW_STARTED)], now)
    assert (lane.call_id, lane.outcome, lane.stretches[0].open) == ("paid:1", Outcome.WAITING, True)


def test_a_timer_is_waited_for_until_it_is_due() -> None:
    now = Now(
        now_us=900, status=Status.WAITING_FOR_TIMER, owned=False, since_us=300, due_us=5_000, reason="timer t:1, t:2"
    )
    lanes = lanes_of([row(1, 100, Kind.WORKFLOW_STARTED)], now)
    assert [(lane.call_id, lane.until_us) for lane in lanes] == [("t:1", 5_000), ("t:2", 5_000)]


def test_a_back_off_goes_on_until_the_next_attempt_and_that_until_now() -> None:
    failed = row(1, 100, Kind.ACTIVITY_ATTEMPT_FAILED, "a:1", duration_us=50, delay_us=500)
    waiting = Now(now_us=200, status=Status.RUNNING, owned=False, since_us=150, reason="retry of a:1")
    (lane,) = lanes_of([failed], waiting)
    assert lane.outcome is Outcome.RETRYING
    running = Now(now_us=800, status=Status.RUNNING, owned=True, since_us=150)
    (lane, step) = lanes_of([failed], running)
    assert (lane.outcome, spans(lane)[-1]) == (Outcome.RUNNING, ("run", 600, 800))
    assert step.sort is Sort.OTHER


def test_rows_that_nobody_would_write_stop_nothing() -> None:
    odd = [
        row(1, 0, "Unheard"),
        row(2, 5, Kind.ACTIVITY_COMPLETED, "a:1")._replace(meta="{"),
        row(3, 6, Kind.ACTIVITY_ATTEMPT_FAILED, "b:1", duration_us="x", delay_us=-1),
        row(4, 7, Kind.CHILD_COMPLETED, "c:1", instance_id=["odd"]),
        row(5, 8, Kind.EVENT_TIMED_OUT, "d:1", timeout_seconds="soon"),
        row(6, 9, Kind.ACTIVITY_COMPLETED, "e:1")._replace(meta="[1]"),
    ]
    assert {lane.call_id for lane in lanes_of(odd, ended(10))} == {"a:1", "b:1", "c:1", "d:1", "e:1"}


# -- the scale ---------------------------------------------------------------------------------------------------------


def lane(*stretches: tuple[str, int, int]) -> Lane:
    return Lane(
        call_id="a:1",
        name="a",
        sort=Sort.ACTIVITY,
        outcome=Outcome.COMPLETED,
        stretches=tuple(Stretch(kind=kind, from_us=begin, until_us=end) for kind, begin, end in stretches),
    )


def test_time_runs_evenly_where_nothing_is_long_and_quiet() -> None:
    scale = scale_of([lane(("run", 0, 5 * S)), lane(("run", 6 * S, 10 * S))], from_us=0, until_us=10 * S)
    assert [scale.place(at * S) for at in (0, 5, 10)] == [0, 50, 100]
    assert scale.cuts == ()


def test_days_of_waiting_are_cut_so_that_seconds_are_seen() -> None:
    busy = lane(("run", 0, 2 * S))
    late = lane(("run", 3 * DAY, 3 * DAY + 2 * S))
    scale = scale_of([busy, lane(("wait", 2 * S, 3 * DAY)), late], from_us=0, until_us=3 * DAY + 2 * S)
    (cut,) = scale.cuts
    assert cut.right - cut.left < 25
    assert scale.place(2 * S) > 30
    assert 100 - scale.place(3 * DAY) > 30


def test_places_never_go_back_and_stay_in_the_picture() -> None:
    scale = scale_of(
        [lane(("run", 0, S)), lane(("wait", S, DAY)), lane(("run", DAY, DAY + S)), lane(("wait", DAY, 9 * DAY))],
        from_us=0,
        until_us=9 * DAY,
    )
    places = [scale.place(at) for at in range(-DAY, 10 * DAY, DAY // 7)]
    assert places == sorted(places)
    assert 0 <= min(places) <= max(places) <= 100


def test_short_quiet_times_are_not_cut() -> None:
    scale = scale_of([lane(("run", 0, 10)), lane(("run", 900_000, 900_010))], from_us=0, until_us=900_010)
    assert scale.cuts == ()


def test_ticks_are_round_apart_and_few() -> None:
    scale = scale_of([lane(("run", 0, 475_000))], from_us=0, until_us=475_000)
    assert [tick.label for tick in scale.ticks()] == ["0", "100 ms", "200 ms", "300 ms", "400 ms"]
    long = scale_of([lane(("run", 0, 400 * DAY))], from_us=0, until_us=400 * DAY)
    assert 2 <= len(long.ticks()) <= 12
    empty = scale_of([], from_us=5, until_us=5)
    assert empty.place(5) == 0


def test_no_label_of_a_tick_runs_into_a_cut() -> None:
    """A tick at the very end of what is drawn before a cut would be half hidden by it."""
    begin, work = lane(("run", 0, 210_000)), lane(("run", DAY, DAY + 300_000))
    scale = scale_of([begin, lane(("wait", 210_000, DAY)), work], from_us=0, until_us=DAY + 300_000)
    (cut,) = scale.cuts
    before = [tick.at for tick in scale.ticks() if tick.at < cut.left]
    assert before[0] == 0
    assert all(at + LABEL_WIDTH <= cut.left for at in before[1:])
    assert any(tick.at >= cut.right and tick.label == "+0" for tick in scale.ticks())
