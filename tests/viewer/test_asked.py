from __future__ import annotations

import pytest

from edda.core.lifecycle import Status
from edda.viewer.asked import Asked, Misread, argument_of, instance_path, moment_us
from edda.viewer.statuses import LOOKS, chosen, look_of


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("", None),
        ("order.id = ORD-1", ("order.id", "ORD-1")),
        ("n=7", ("n", 7)),
        ('n="7"', ("n", "7")),
        ("flag=true", ("flag", True)),
        ("a=b=c", ("a", "b=c")),
        ("a=", ("a", "")),
    ],
)
def test_an_input_field_is_asked_for_by_path_and_value(word: str, asked: object) -> None:
    assert argument_of(word) == asked


@pytest.mark.parametrize("word", ["order", "=1", " = x", "a=[1]", "a={}"])
def test_an_input_field_that_cannot_be_asked_for_is_said_so(word: str) -> None:
    with pytest.raises(Misread):
        argument_of(word)


def test_times_are_utc_unless_they_say_otherwise() -> None:
    assert moment_us("1970-01-01T00:01") == 60_000_000
    assert moment_us("1970-01-01T01:00+01:00") == 0
    assert moment_us("") is None
    with pytest.raises(Misread):
        moment_us("yesterday")


@pytest.mark.parametrize(
    ("instance_id", "path"),
    [
        ("order-1", "/instances/order-1"),
        ("a/b?c#d%e", "/instances/a%2Fb%3Fc%23d%25e"),
        ("..", "/instances/%2E%2E"),
        ('"><script>', "/instances/%22%3E%3Cscript%3E"),
    ],
)
def test_every_instance_has_a_path_of_its_own(instance_id: str, path: str) -> None:
    assert instance_path(instance_id) == path


def test_addresses_stay_below_the_place_where_the_viewer_is_mounted() -> None:
    asked = Asked(root="/ops", here="/outbox", words={"status": "dead", "page": "x"})
    assert asked.changed(page=None, type="a b&c") == "/ops/outbox?status=dead&type=a+b%26c"
    assert asked.to("/workers") == "/ops/workers"


def test_words_that_nothing_can_hold_are_refused() -> None:
    for word in ("x" * 501, "a\x00b", "\ud800"):
        with pytest.raises(Misread):
            Asked(words={"id": word}).word("id")
    for word in ("-1", "1.5", "٣", "9" * 30, "x"):
        with pytest.raises(Misread):
            Asked(words={"from": word}).whole("from", 1)


def test_every_status_has_a_look_and_a_group() -> None:
    assert set(LOOKS) == set(Status)
    assert chosen("running,waiting,undoing,completed,failed,cancelled,aside") == set(Status)
    assert chosen("compensation_failed") == {Status.COMPENSATION_FAILED}
    assert chosen("nonsense") == frozenset()
    assert look_of("invented").label == "invented"
