"""The JSON event format 1.0.2: one event as a JSON object, many as an array of them.

`null` is an attribute that is not set; `data` may be `null` and then is that. A body that is JSON but no event is
refused alone, its neighbours in a batch are not.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from contextlib import suppress

from pydantic_core import to_json

from edda.cloudevents.attributes import Attributes, canonical
from edda.cloudevents.data import Data, attributes_of, data_in_bytes, data_in_text, is_json
from edda.cloudevents.errors import CloudEventError
from edda.cloudevents.json_text import Document, JsonValue, check, end_of_value, read
from edda.cloudevents.limits import Limits
from edda.core.event import JSON_TYPE, CloudEvent


def read_event(body: bytes, limits: Limits) -> CloudEvent:
    document = read(body, "the event")
    members = document.value
    if not isinstance(members, dict):
        raise CloudEventError("invalid_event", "an event is a JSON object")
    check(document, "the event", limits.json_depth + 1)
    data = _data(document, members, limits)
    return Attributes(_texts(members), limits).event(*data)


def read_batch(body: bytes, limits: Limits) -> list[CloudEvent | CloudEventError]:
    document = read(body, "the batch")
    if not isinstance(document.value, list):
        raise CloudEventError("invalid_event", "a batch is a JSON array")
    count = len(document.value)
    if count > limits.batch_events:
        raise CloudEventError("batch_too_large", f"the batch has {count} events; {limits.batch_events} are taken")
    return [_judged(element, limits) for element in _elements(document.text.decode(), count)]


def write_event(event: CloudEvent) -> bytes:
    """Of an event in normal form."""
    members = attributes_of(event)
    if event.datacontenttype is not None:
        members["datacontenttype"] = event.datacontenttype
    if event.blob is not None:
        members["data_base64"] = b64encode(event.blob).decode()
    written = to_json(members)
    if event.json is None:
        return written
    return b'%b,"data":%b}' % (written[:-1], event.json.encode())


def write_batch(events: list[CloudEvent]) -> bytes:
    return b"[%b]" % b",".join(map(write_event, events))


def _judged(element: bytes, limits: Limits) -> CloudEvent | CloudEventError:
    try:
        return read_event(element, limits)
    except CloudEventError as error:
        return error


def _elements(text: str, count: int) -> list[bytes]:
    """The texts of an array's elements."""
    elements: list[bytes] = []
    start = 1
    for _ in range(count):
        end = end_of_value(text, start)
        elements.append(text[start:end].encode())
        start = end + 1
    return elements


def _texts(members: dict[str, JsonValue]) -> dict[str, str]:
    """Attributes in their canonical text; without those that are null."""
    return {
        name: value if type(value) is str else canonical(name, value)
        for name, value in members.items()
        if value is not None
    }


def _data(document: Document, members: dict[str, JsonValue], limits: Limits) -> Data:
    """Takes what is about data out of the members."""
    has_data, last = "data" in members, next(reversed(members), None)
    value = members.pop("data", None)
    encoded = members.pop("data_base64", None)
    type = members.pop("datacontenttype", None)
    if type is not None:
        type = canonical("datacontenttype", type)
    if not has_data:
        return data_in_bytes(type, b"" if encoded is None else _decoded(encoded), limits)
    if encoded is not None:
        raise CloudEventError("invalid_data", "an event has data or data_base64, not both")
    if type is not None and not is_json(type, limits):
        return data_in_text(type, value)
    return Data(type or JSON_TYPE, _text_of_data(document.text, is_last=last == "data"), None)


def _text_of_data(text: bytes, *, is_last: bool) -> str:
    """The JSON text of the member `data`, whose digits the value has lost.

    In normal form `{"data":` at the very beginning or the first `,"data":` is that member, at whatever place a comma
    stands in a string: within a string a quote would have a backslash. It is not a member of something deeper: before
    it are only attributes, and one that is an array or an object is refused.
    """
    key = b'{"data":' if text.startswith(b'{"data":') else b',"data":'
    start = text.index(key) + len(key)
    if is_last:
        return text[start:-1].decode()
    after = text[start:].decode()
    return after[: end_of_value(after, 0)]


def _decoded(encoded: JsonValue) -> bytes:
    if isinstance(encoded, str):
        with suppress(ValueError):
            return binascii.a2b_base64(encoded, strict_mode=True)
    raise CloudEventError("invalid_data", "data_base64 must be a string in base64 (RFC 4648)")
