"""Events to and from the official Python SDK 2.x: each side reads what the other wrote.

Where the SDK is known to break the specification, the row says so; when it no longer does, the test fails, and the row
can go.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cloudevents.core", reason="needs the SDK: pip install 'cloudevents>=2.2'")

from cloudevents.core.bindings.http import (
    HTTPMessage,
    from_http_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent as SdkEvent

from edda.cloudevents import Batch, CloudEventError, Message, parse, to_binary, to_structured
from edda.cloudevents.attributes import CORE
from edda.core.event import CloudEvent
from tests.cloudevents.oracle import check, outcome
from tests.cloudevents.rows import JSON_BATCH, JSON_EVENT, OBJECT, Row, binary, event, headers, members, whole, without
from tests.cloudevents.strategies import NAMES, SOURCES, TEXTS

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc\"\\:", max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OBJECTS = st.dictionaries(st.text("abc", max_size=5), JSON_VALUES, max_size=4)
MOMENTS = st.datetimes(timezones=st.just(UTC))


def attributes_of(event: CloudEvent) -> dict[str, Any]:
    named = ("id", "source", "type", "subject", "dataschema", "datacontenttype")
    attributes = {name: getattr(event, name) for name in named if getattr(event, name) is not None}
    return {"specversion": "1.0"} | attributes | dict(event.extensions)


def of_sdk(message: HTTPMessage) -> CloudEvent | Batch:
    return parse([(name.encode("latin-1"), value.encode()) for name, value in message.headers.items()], message.body)


def to_sdk(message: Message) -> SdkEvent:
    lines = {name.decode(): value.decode() for name, value in message.headers}
    found = from_http_event(HTTPMessage(lines, message.body))
    assert isinstance(found, SdkEvent)
    return found


@st.composite
def sdk_events(draw: st.DrawFn) -> SdkEvent:
    json_data = draw(st.booleans())
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": draw(TEXTS),
        "source": draw(SOURCES),
        "type": draw(TEXTS),
        "time": draw(MOMENTS),
        "datacontenttype": "application/json" if json_data else "application/octet-stream",
    }
    attributes |= draw(st.dictionaries(NAMES, TEXTS, max_size=2))
    return SdkEvent(attributes, draw(OBJECTS) if json_data else draw(st.binary(min_size=1, max_size=40)))


@given(sdk_events())
def test_what_the_sdk_sends_is_read_in_both_modes_as_the_same_event(sent: SdkEvent) -> None:
    in_headers, in_body = of_sdk(to_binary_event(sent)), of_sdk(to_structured_event(sent))
    assert in_headers == in_body
    assert isinstance(in_headers, CloudEvent)
    expected = {name: value for name, value in sent.get_attributes().items() if name != "time"}
    assert attributes_of(in_headers) == expected
    assert in_headers.time is not None
    assert datetime.fromisoformat(in_headers.time) == sent.get_time()
    data = sent.get_data()
    assert (in_headers.blob if isinstance(data, bytes) else json.loads(in_headers.json or "")) == data


@given(sdk_events())
def test_the_sdk_reads_what_is_sent_in_both_modes(sent: SdkEvent) -> None:
    event = of_sdk(to_structured_event(sent))
    assert isinstance(event, CloudEvent)
    for message in (to_binary(event), to_structured(event)):
        back = to_sdk(message)
        assert back.get_attributes() == sent.get_attributes()
        data = back.get_data()
        # the SDK makes a string of any bytes that are UTF-8
        assert (data.encode() if isinstance(data, str) else data) == sent.get_data()


# What the specification asks for, and what SDK 2.2 does instead.
SDK_BREAKS: list[tuple[Row, str]] = [
    (binary("CORE 3.1", "no id", "missing_attribute", id=None), "makes one up, so that no duplicate is ever seen"),
    (whole("CORE 3.1", "no version", without("specversion"), "missing_attribute"), "takes it for 1.0"),
    (members("CORE 3", "an object as an extension", '"a": {"b": 1}', "invalid_attribute"), "takes it"),
    (members("JSON 2.2", "a number with a fraction", '"a": 1.5', "invalid_attribute"), "takes it"),
    (members("JSON 3.1.1", "base64 with other letters", '"data_base64":"!!!!"', "invalid_data"), "reads no bytes"),
    (members("RFC 8259", "NaN", '"data": NaN', "invalid_json"), "takes it"),
    (binary("HTTP 3.1.3.2", "invalid UTF-8", "invalid_attribute", subject="%C0%A0"), "puts in U+FFFD"),
    (binary("HTTP 3.1.3.2", "a quoted string", event(subject="a b"), subject='"a b"'), "keeps the quotes"),
    (
        Row("HTTP 3", "copies of attributes in headers", headers(JSON_EVENT, id="other"), OBJECT, event()),
        "takes every message with a ce- header for binary",
    ),
]


def with_sdk(row: Row) -> CloudEvent | str:
    try:
        found = to_sdk(Message(list(row.headers), row.body))
    except Exception as error:
        return f"refused: {type(error).__name__}"
    attributes = found.get_attributes()
    extensions = {name: value for name, value in attributes.items() if name not in CORE}
    return event(id=attributes["id"], subject=attributes.get("subject"), extensions=extensions)


@pytest.mark.parametrize(("row", "instead"), SDK_BREAKS, ids=lambda value: value.what if isinstance(value, Row) else "")
def test_where_the_sdk_breaks_the_specification_it_is_kept_here(row: Row, instead: str) -> None:
    assert outcome_of(row) == row.expected
    theirs = with_sdk(row)
    assert isinstance(theirs, CloudEvent), f"no longer true that the SDK {instead}: {theirs}"
    assert theirs != row.expected, f"no longer true that the SDK {instead}"


def outcome_of(row: Row) -> object:
    found = outcome(row.headers, row.body)
    return found.code if isinstance(found, CloudEventError) else found


@pytest.mark.parametrize(
    ("content_type", "body"),
    [(JSON_BATCH, b"[%b]" % OBJECT), (JSON_EVENT, b"[" * 100_000)],
    ids=["a batch", "depth"],
)
def test_what_makes_the_sdk_fail_with_errors_that_are_no_refusal(content_type: bytes, body: bytes) -> None:
    with pytest.raises((AttributeError, RecursionError)):
        to_sdk(Message([(b"content-type", content_type)], body))
    check([(b"content-type", content_type)], body)
