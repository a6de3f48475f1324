"""Laws over random events, random ways to write them, and bytes that are no event at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from edda.cloudevents import Batch, CloudEventError, check_own, parse, to_binary, to_structured
from edda.core.event import CloudEvent
from tests.cloudevents.oracle import check, check_event
from tests.cloudevents.rows import JSON_BATCH, JSON_EVENT, ROWS
from tests.cloudevents.strategies import TREES, Written, events, in_binary, in_json, written

CHANCES = st.randoms(use_true_random=False)


@given(events(), CHANCES)
def test_an_event_is_the_same_in_every_mode_however_it_is_written(one: Written, chance: Random) -> None:
    structured, batch = [(b"content-type", JSON_EVENT)], [(b"content-type", JSON_BATCH)]
    texts = [in_json(one, chance) for _ in range(2)]
    assert parse(*in_binary(one, chance)) == one.event
    assert parse(structured, texts[0].encode()) == one.event
    assert parse(batch, f"[{','.join(texts)}]".encode()) == Batch([one.event, one.event])


@given(events())
def test_what_is_sent_is_what_is_read(one: Written) -> None:
    check_event(one.event)


@given(events())
def test_what_is_ours_and_checked_can_be_sent_in_the_mode_that_its_data_needs(one: Written) -> None:
    send = to_structured if one.event.blob is None else to_binary
    assert _refusal(check_own, one.event) == _refusal(send, one.event)


def _refusal(function: Callable[[CloudEvent], object], event: CloudEvent) -> str | None:
    try:
        function(event)
    except CloudEventError as error:
        return error.code
    return None


@given(TREES, CHANCES)
def test_no_number_loses_a_digit(tree: object, chance: Random) -> None:
    noisy = written(tree, chance)
    event = parse([(b"content-type", JSON_EVENT)], in_json_with(noisy))
    assert not isinstance(event, Batch)
    assert event.json == written(tree)
    assert exact(event.json) == exact(noisy)


def in_json_with(data: str) -> bytes:
    return f'{{"specversion":"1.0","id":"1","data": {data} ,"source":"/s","type":"t"}}'.encode()


def exact(text: str) -> object:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


HEADER_NAMES = st.sampled_from([b"ce-id", b"ce-source", b"ce-type", b"ce-specversion", b"ce-time", b"content-type"])
HEADER_VALUES = st.sampled_from([b"1.0", b"/", JSON_EVENT, JSON_BATCH, b"application/json", b'"', b"%", b"%C0"])
ANY_HEADERS = st.lists(st.tuples(HEADER_NAMES | st.binary(), HEADER_VALUES | st.binary()), max_size=12)
ANY_JSON = TREES.map(lambda tree: written(tree).encode())


@given(ANY_HEADERS, st.binary() | ANY_JSON)
def test_whatever_comes_in_is_an_event_or_a_refusal(headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    check(headers, body)


@given(st.sampled_from(ROWS), st.integers(0), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_message_is_an_event_or_a_refusal(row: object, at: int, put: bytes, cut: int) -> None:
    _, _, headers, body, _ = row  # type: ignore[misc]
    at %= len(body) + 1
    check(headers, body[:at] + put + body[at + cut :])


@given(events(), CHANCES, st.integers(0), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_event_spoils_no_other_in_its_batch(
    one: Written, chance: Random, at: int, put: bytes, cut: int
) -> None:
    good = in_json(one, chance).encode()
    at %= len(good) + 1
    found = check([(b"content-type", JSON_BATCH)], b"[%b,%b]" % (good, good[:at] + put + good[at + cut :]))
    if isinstance(found, Batch):  # else it is no JSON any more
        assert found.events[0] == one.event
    else:
        assert isinstance(found, CloudEventError)
