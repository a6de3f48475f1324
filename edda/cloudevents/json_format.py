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
from edda.cloudevents.json_text import Document, JsonValue, elements, length, read
from edda.cloudevents.limits import Limits
from edda.core.event import JSON_TYPE, CloudEvent


def read_event(body: bytes, limits: Limits) -> CloudEvent:
    document = read(body, "the event", limits.json_depth + 1)
    members = document.value
    if not isinstance(members, dict):
        raise CloudEventError("invalid_event", "an event is a JSON object")
    data = _data(document, members, limits)
    return Attributes(_texts(members), limits).event(*data)


def read_batch(body: bytes, limits: Limits) -> list[CloudEvent | CloudEventError]:
    count = length(body, "the batch")
    if count is None:
        raise CloudEventError("invalid_event", "a batch is a JSON array")
    if count > limits.batch_events:
        raise CloudEventError("batch_too_large", f"the batch has {count} events; {limits.batch_events} are taken")
    return [_judged(element, limits) for element in elements(body, count)]


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


def _texts(members: dict[str, JsonValue]) -> dict[str, str]:
    """Attributes in their canonical text; without those that are null."""
    return {
        name: value if type(value) is str else canonical(name, value)
        for name, value in members.items()
        if value is not None
    }


def _data(document: Document, members: dict[str, JsonValue], limits: Limits) -> Data:
    """Takes what is about data out of the members."""
    names = list(members)
    value = members.pop("data", None)
    encoded = members.pop("data_base64", None)
    type = members.pop("datacontenttype", None)
    if type is not None:
        type = canonical("datacontenttype", type).strip(" ")
    if "data" not in names:
        return data_in_bytes(type, b"" if encoded is None else _decoded(encoded), limits)
    if encoded is not None:
        raise CloudEventError("invalid_data", "an event has data or data_base64, not both")
    if type is not None and not is_json(type, limits):
        return data_in_text(type, value)
    return Data(type or JSON_TYPE, _text_of_data(document.text, names), None)


def _text_of_data(text: bytes, names: list[str]) -> str:
    """The JSON text of the member `data`, whose digits the value has lost; `names` are those of all members.

    In normal form the text is cut at keys alone: `,"name":` is one wherever it stands, as a quote within a string has a
    backslash. Around `data` are only attributes, none of which holds a key: an array or an object there is refused, and
    so are names with other letters. So the first `"data":` begins it, and the last key of the next attribute ends it.
    """
    key = b'{"data":' if text.startswith(b'{"data":') else b',"data":'
    start = text.index(key) + len(key)
    position = names.index("data") + 1
    if position == len(names):
        return text[start:-1].decode()
    return text[start : text.rindex(b",%b:" % to_json(names[position]))].decode()


def _decoded(encoded: JsonValue) -> bytes:
    if isinstance(encoded, str):
        with suppress(ValueError):
            return binascii.a2b_base64(encoded, strict_mode=True)
    raise CloudEventError("invalid_data", "data_base64 must be a string in base64 (RFC 4648)")
