"""Every MUST of the HTTP binding and the JSON format, and what was decided where they are silent."""

from __future__ import annotations

import pytest

from edda.cloudevents import Batch, CloudEventError, parse, to_batch, to_binary, to_structured
from edda.core.event import CloudEvent
from tests.cloudevents.rows import JSON_BATCH, OBJECT, ROWS, Row, event, headers

EVENTS = [row.expected for row in ROWS if isinstance(row.expected, CloudEvent)]


def outcome(headers: object, body: bytes) -> CloudEvent | str:
    try:
        parsed = parse(headers, body)  # type: ignore[arg-type]
    except CloudEventError as error:
        return error.code
    assert isinstance(parsed, CloudEvent)
    return parsed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.where}: {row.what}")
def test_a_message_is_read_as_the_specification_says(row: Row) -> None:
    assert outcome(row.headers, row.body) == row.expected


@pytest.mark.parametrize("sent", EVENTS, ids=str)
def test_what_was_read_is_sent_in_every_mode_and_read_again_as_the_same(sent: CloudEvent) -> None:
    assert parse(*to_binary(sent)) == sent
    assert parse(*to_structured(sent)) == sent
    assert parse(*to_batch([sent, sent])) == Batch([sent, sent])


def test_an_empty_batch_is_a_batch() -> None:
    assert parse([(b"content-type", JSON_BATCH)], b" [ ] ") == Batch([])
    assert parse(*to_batch([])) == Batch([])


def test_each_event_of_a_batch_is_judged_alone() -> None:
    body = b'[%b, {"id": "1"}, 7, %b]' % (OBJECT, OBJECT)
    parsed = parse([(b"content-type", JSON_BATCH)], body)
    assert isinstance(parsed, Batch)
    good, bare, number, again = parsed.events
    assert good == again == event()
    assert isinstance(bare, CloudEventError)
    assert bare.code == "missing_attribute"
    assert isinstance(number, CloudEventError)
    assert number.code == "invalid_event"


def test_a_batch_that_is_no_json_is_refused_as_a_whole() -> None:
    with pytest.raises(CloudEventError) as refused:
        parse([(b"content-type", JSON_BATCH)], b"[%b, NaN]" % OBJECT)
    assert refused.value.code == "invalid_json"


def test_an_event_within_an_event_is_not_sent_in_binary_mode() -> None:
    inner = event(datacontenttype="Application/CloudEvents+json", json="{}")
    with pytest.raises(CloudEventError) as refused:
        to_binary(inner)
    assert refused.value.code == "not_for_binary_mode"
    assert parse(*to_structured(inner)) == inner


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("Euro € 😀", b"Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ('say "hi"', b"say%20%22hi%22"),
        ("100%", b"100%25"),
        ("!#$&'()*+,-./:;<=>?@[\\]^_`{|}~", b"!#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        ("a\u00a0b", b"a%C2%A0b"),
    ],
)
def test_header_values_are_sent_with_percent_signs(value: str, sent: bytes) -> None:
    assert (b"ce-subject", sent) in to_binary(event(subject=value)).headers


def test_the_content_type_has_no_ce_header() -> None:
    sent = to_binary(event(datacontenttype="text/plain", blob=b"x"))
    assert sent.headers == [*headers(b"text/plain")]
    assert sent.body == b"x"


def test_json_without_a_type_is_sent_with_one() -> None:
    sent = to_binary(event(json='{"a": 1.10}'))
    assert (b"content-type", b"application/json") in sent.headers
    assert sent.body == b'{"a":1.10}'


def test_bytes_are_sent_in_base64_and_json_as_it_is() -> None:
    bytes_sent = to_structured(event(datacontenttype="a/b", blob=b"\xff"))
    json_sent = to_structured(event(json='"é"'))
    assert bytes_sent.headers == json_sent.headers == [(b"content-type", b"application/cloudevents+json")]
    assert b'"data_base64":"/w=="' in bytes_sent.body
    assert b'"data"' not in bytes_sent.body
    assert json_sent.body.endswith(',"data":"é"}'.encode())


@pytest.mark.parametrize("send", [to_binary, to_structured, lambda event: to_batch([event])])
@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (event(json="NaN"), "invalid_json"),
        (event(json='"\ud800"'), "invalid_json"),
        (event(json='{"a":1,"a":2}'), "duplicate_member"),
        (event(json=""), "invalid_json"),
        (event(json="1", blob=b"1"), "invalid_data"),
        (event(json="1", datacontenttype="text/plain"), "invalid_data"),
        (event(blob=b"{", datacontenttype="application/json"), "invalid_json"),
        (event(id=""), "invalid_attribute"),
        (event(id=None), "missing_attribute"),
        (event(source="a b"), "invalid_attribute"),
        (event(type="a\r\nx: y"), "invalid_attribute"),
        (event(datacontenttype="a/b\r\nx: y", blob=b""), "invalid_attribute"),
        (event(datacontenttype="a/b; c ", blob=b""), "invalid_attribute"),
        (event(time="now"), "invalid_attribute"),
        (event(extensions={"A": "x"}), "invalid_attribute"),
        (event(extensions={"id": "x"}), "invalid_attribute"),
        (event(extensions={"datacontenttype": "x"}), "invalid_attribute"),
        (event(extensions={"a": "\ud800"}), "invalid_attribute"),
        (event(extensions={"a": 1.5}), "invalid_attribute"),
    ],
    ids=repr,
)
def test_an_event_that_nobody_would_take_is_not_sent(send: object, broken: CloudEvent, code: str) -> None:
    with pytest.raises(CloudEventError) as refused:
        send(broken)  # type: ignore[operator]
    assert refused.value.code == code
