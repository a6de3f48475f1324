from __future__ import annotations

import pytest

from edda.viewer import words


@pytest.mark.parametrize(
    ("at_us", "machine"),
    [(-(1 << 63), "0001-01-01T00:00:00.000Z"), ((1 << 63) - 1, "9999-12-31T23:59:59.999Z")],
)
def test_a_clock_that_was_far_off_spoils_no_page(at_us: int, machine: str) -> None:
    told = words.moment(at_us, now_us=0)
    assert (told.machine, told.exact) == (machine, f"{at_us} µs since 1970")


@pytest.mark.parametrize(
    ("span_us", "text"),
    [
        (-5, "0 µs"),
        (0, "0 µs"),
        (999, "999 µs"),
        (1_000, "1.00 ms"),
        (12_345, "12.3 ms"),
        (475_000, "475 ms"),
        (3_420_000, "3.42 s"),
        (59_900_000, "59.9 s"),
        (61_000_000, "1 min 1 s"),
        (3_600_000_000, "1 h"),
        (5_400_000_000, "1 h 30 min"),
        (3 * words.DAY_US + 2 * words.HOUR_US, "3 d 2 h"),
        (4_000 * words.DAY_US, "4000 d"),
    ],
)
def test_a_span_has_two_units_or_three_digits(span_us: int, text: str) -> None:
    assert words.span(span_us) == text


@pytest.mark.parametrize(
    ("difference_us", "text"),
    [
        (0, "now"),
        (-999_999, "now"),
        (-2_000_000, "2 s ago"),
        (90_000_000, "in 1 min"),
        (-90 * words.HOUR_US, "3 d ago"),
    ],
)
def test_a_moment_is_told_from_now(difference_us: int, text: str) -> None:
    assert words.relative(difference_us) == text


def test_a_moment_has_its_exact_time_too() -> None:
    moment = words.moment(1_700_000_000_123_456, now_us=1_700_000_060_000_000)
    assert moment == ("2023-11-14T22:13:20.123Z", "2023-11-14 22:13:20.123 UTC", "59 s ago")


def test_a_moment_is_told_in_parts_too() -> None:
    moment = words.moment(1_700_000_000_123_456, now_us=1_700_000_060_000_000)
    assert (moment.date, moment.clock, moment.second) == ("2023-11-14", "22:13:20.123", "2023-11-14 22:13:20")


def test_a_cut_id_keeps_both_ends() -> None:
    assert words.middle_cut("order-0190a7c2-aaaa-bbbb-cccc-ddddeeeeffff", 20) == "order-0190a…eeeeffff"
    assert len(words.middle_cut("x" * 100, 20)) == 20
    assert words.middle_cut("short", 20) == "short"


def test_ticks_have_no_zeros_behind() -> None:
    assert [words.tick(us) for us in (0, 20_000, 1_500_000, 2_000_000, 200_000_000)] == [
        "0", "20 ms", "1.5 s", "2 s", "3 min 20 s",
    ]  # fmt: skip


def test_names_are_listed_as_one_says_them() -> None:
    assert [words.listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
