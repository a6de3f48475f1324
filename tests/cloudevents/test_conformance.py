"""The scenarios of the official conformance suite (HTTP binding, JSON format, list of minimal events), restated."""

from __future__ import annotations

import json

import pytest

from edda.cloudevents import Batch, CloudEventError, parse, to_binary, to_structured
from edda.core.event import CloudEvent
from tests.cloudevents.rows import JSON_BATCH, JSON_EVENT

HELLO = b'{\n    "message": "Hello World!"\n}'
HELLO_EVENT = CloudEvent(
    "1234-1234-1234",
    "/mycontext/subcontext",
    "com.example.someevent",
    time="2018-04-05T03:56:24Z",
    datacontenttype="application/json",
    json='{"message":"Hello World!"}',
)


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_a_request_in_binary_mode(content_type: str) -> None:
    lines = [
        "Host: example.com",
        "ce-specversion: 1.0",
        "ce-type: com.example.someevent",
        "ce-time: 2018-04-05T03:56:24Z",
        "ce-id: 1234-1234-1234",
        "ce-source: /mycontext/subcontext",
        f"Content-Type: {content_type}",
        "Content-Length: 33",
    ]
    headers = [(name, value) for name, _, value in (line.encode().partition(b":") for line in lines)]
    assert parse(headers, HELLO) == HELLO_EVENT._replace(datacontenttype=content_type)


@pytest.mark.parametrize("content_type", [JSON_EVENT, JSON_EVENT + b"; charset=utf-8"])
def test_a_request_in_structured_mode(content_type: bytes) -> None:
    body = {
        "specversion": "1.0",
        "type": "com.example.someevent",
        "time": "2018-04-05T03:56:24Z",
        "id": "1234-1234-1234",
        "source": "/mycontext/subcontext",
        "datacontenttype": "application/json",
        "data": {"message": "Hello World!"},
    }
    assert parse([(b"Content-Type", content_type)], json.dumps(body, indent=4).encode()) == HELLO_EVENT


MINIMAL = {"specversion": "1.0", "id": "minimal", "type": "io.cloudevents.test", "source": "https://cloudevents.io"}
MINIMAL_EVENT = CloudEvent("minimal", "https://cloudevents.io", "io.cloudevents.test")
ALL_CORE = {
    "datacontenttype": "text/plain",
    "dataschema": "https://cloudevents.io/dataschema",
    "subject": "tests",
    "time": "2018-04-05T17:31:00Z",
}
# No data of a type that is not JSON is the empty bytes here: binary mode cannot tell them apart.
ALL_CORE_EVENT = MINIMAL_EVENT._replace(**ALL_CORE, blob=b"")
ALL_TYPES = {
    "extinteger": 10,
    "extboolean": True,
    "extstring": "text",
    "exturi": "https://cloudevents.io",
    "exturiref": "//authority/path",
    "exttimestamp": "2023-03-31T15:12:00Z",
    "extbinary": "TWE=",
}
ALL_TYPES_EVENT = MINIMAL_EVENT._replace(extensions=ALL_TYPES | {"extinteger": "10", "extboolean": "true"})

VALID = [
    ({}, MINIMAL_EVENT),
    (dict.fromkeys(ALL_CORE), MINIMAL_EVENT),
    (ALL_CORE, ALL_CORE_EVENT),
    *(
        ({"time": time}, MINIMAL_EVENT._replace(time=time))
        for time in (
            "2018-04-05T17:31:00Z",
            "2018-04-05T17:31:00.000000000Z",
            "2018-04-05T18:31:00+01:00",
            "2018-04-05T16:31:00-01:00",
        )
    ),
    ({"source": "#fragment"}, MINIMAL_EVENT._replace(source="#fragment")),
    (
        {"datacontenttype": "text/plain", "data": "Simple text"},
        MINIMAL_EVENT._replace(datacontenttype="text/plain", blob=b"Simple text"),
    ),
    (ALL_TYPES, ALL_TYPES_EVENT),
]

INVALID = [
    *({name: None} for name in MINIMAL),
    *({name: ""} for name in MINIMAL),
    *(
        {"time": time}
        for time in (
            "lunchtime",
            "2018-04-05T18:31Z",
            "2018-04-05T18:31:00X",
            "2018-04-05T18:31:00+25:00",
            "2018-04-05T18:31:00+xx:00",
            "2018-04-05T18:31:00+05",
        )
    ),
    {"specversion": "0.9"},
    {"datacontenttype": "xyz"},
    {"datacontenttype": ""},
    {"dataschema": ""},
    {"subject": ""},
    {"id": 25},
    {"id": {"xyz": "abc"}},
    {"MyExtension": "bad"},
    {"my.extension": "bad"},
    {"myextension": 1.5},
    {"data": "text", "data_base64": "eyAieHl6IjogMTIzIH0="},
]


def structured(members: object) -> CloudEvent | Batch:
    return parse([(b"content-type", JSON_EVENT)], json.dumps(members).encode())


@pytest.mark.parametrize(("members", "expected"), VALID, ids=str)
def test_a_valid_event_in_json(members: dict[str, object], expected: CloudEvent) -> None:
    assert structured(MINIMAL | members) == expected


@pytest.mark.parametrize("members", INVALID, ids=str)
def test_an_invalid_event_in_json(members: dict[str, object]) -> None:
    with pytest.raises(CloudEventError):
        structured({name: value for name, value in (MINIMAL | members).items() if value is not None})


def in_batch(*elements: object) -> list[CloudEvent | str]:
    parsed = parse([(b"content-type", JSON_BATCH)], json.dumps(elements).encode())
    assert isinstance(parsed, Batch)
    return [event.code if isinstance(event, CloudEventError) else event for event in parsed.events]


def test_valid_batches() -> None:
    assert in_batch() == []
    assert in_batch(MINIMAL) == [MINIMAL_EVENT]
    assert in_batch(MINIMAL, MINIMAL) == [MINIMAL_EVENT, MINIMAL_EVENT]
    assert in_batch(MINIMAL, MINIMAL | ALL_CORE) == [MINIMAL_EVENT, ALL_CORE_EVENT]
    assert in_batch(MINIMAL, MINIMAL | ALL_TYPES) == [MINIMAL_EVENT, ALL_TYPES_EVENT]


def test_invalid_events_in_a_batch_are_refused_alone() -> None:
    """The suite calls the whole batch invalid; the protocol leaves it open, and here each event is judged alone."""
    nameless = {name: value for name, value in MINIMAL.items() if name != "id"}
    assert in_batch(MINIMAL, MINIMAL | {"specversion": "0.9"}) == [MINIMAL_EVENT, "invalid_attribute"]
    assert in_batch(nameless) == ["missing_attribute"]
    assert in_batch("not an object", MINIMAL) == ["invalid_event", MINIMAL_EVENT]


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        ("text/plain; charset=us-ascii", "Hello, World!\n"),
        ("text/plain; charset=utf-8", "Hello, 🌎!\n"),
        ("application/json; charset=utf-8", '"Hello, 🌎!"\n'),
        ("application/json; charset=utf-8", '{"msg":"Hello, 🌎!"}\n'),
        ("application/json; charset=utf-8", '["Hello","🌎!"]\n'),
        ("application/xml; charset=utf-8", "<msg>Hello, 🌎!</msg>\n"),
    ],
)
def test_the_minimal_events_arrive_in_both_modes(content_type: str, data: str) -> None:
    source = "//github.com/cloudevents/cloudeventsconformance/yaml/v1.yaml"
    event = CloudEvent("conformance-0001", source, "io.cloudevents.minimum", datacontenttype=content_type)
    if "json" in content_type:
        event, expected = event._replace(json=data), event._replace(json=data.strip())
    else:
        event = expected = event._replace(blob=data.encode())
    assert parse(*to_binary(event)) == expected
    assert parse(*to_structured(event)) == expected
