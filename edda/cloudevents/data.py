"""What an event carries: JSON text or bytes, and the one form for it whatever the mode.

Binary mode cannot tell an absent body from an empty one, so neither can the normal form: no data of a type other than
JSON is the empty bytes; empty bytes without a type, or of a JSON type, are no data. Structured mode implies JSON where
no type is named, binary mode does not: JSON always has its type here.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from edda.cloudevents.attributes import SPECVERSION, Attributes, canonical
from edda.cloudevents.errors import CloudEventError
from edda.cloudevents.json_text import check_depth, read
from edda.cloudevents.limits import LIMITS, Limits
from edda.core.event import JSON_TYPE, CloudEvent

_WORD = r"[A-Za-z0-9!#$%&'*+\-.^_`|~]++"
# No space at the end: a header would lose it.
_MEDIA_TYPE = re.compile(rf"({_WORD}/{_WORD})( *+;(?:[\x20-\x7e]*[\x21-\x7e])?)?")
_CHARSET = re.compile(r'; *+charset *+= *+"?([^";]*+)', re.IGNORECASE)


class MediaType(NamedTuple):
    essence: str
    """Type and subtype, in lower case."""
    parameters: str

    @property
    def is_json(self) -> bool:
        return self.essence.endswith(("/json", "+json"))

    @property
    def charset(self) -> str | None:
        found = _CHARSET.search(self.parameters)
        return found[1].strip().lower() if found else None


class Data(NamedTuple):
    type: str | None
    json: str | None
    blob: bytes | None


NO_DATA: Final = Data(None, None, None)
FAMILY: Final = "application/cloudevents"
"""How the content types begin that name an event, or many."""


def media_type(text: str, limits: Limits) -> MediaType:
    match = _MEDIA_TYPE.fullmatch(text)
    if match is None:
        raise CloudEventError("invalid_attribute", "the content type of the data is no media type (RFC 2046)")
    if len(text) > limits.attribute_bytes:
        raise CloudEventError("attribute_too_large", f"datacontenttype has more than {limits.attribute_bytes} bytes")
    return MediaType(match[1].lower(), match[2] or "")


def is_json(type: str, limits: Limits) -> bool:
    """Whether that type declares JSON. Its charset says nothing: JSON is UTF-8 (RFC 8259, section 11)."""
    return type == JSON_TYPE or media_type(type, limits).is_json


def data_in_bytes(type: str | None, content: bytes, limits: Limits) -> Data:
    if type is None:
        return Data(None, None, content) if content else NO_DATA
    if not is_json(type, limits):
        return Data(type, None, content)
    return Data(type, _json(content, limits) if content else None, None)


def data_in_text(type: str, content: object) -> Data:
    """The JSON member `data` where its type is not JSON: a string that stands for itself."""
    if not isinstance(content, str):
        raise CloudEventError(
            "invalid_data", "data must be a string where datacontenttype is not JSON; other bytes go into data_base64"
        )
    return Data(type, None, content.encode())


def normal(event: CloudEvent, limits: Limits = LIMITS) -> CloudEvent:
    """The event as every receiver gets it, or CloudEventError if none would take it."""
    if event.json is not None and event.blob is not None:
        raise CloudEventError("invalid_data", "an event has JSON data or bytes, not both")
    data = _normal_data(event, limits)
    return Attributes(attributes_of(event), limits).event(*data)


def check_own(event: CloudEvent, limits: Limits = LIMITS) -> None:
    """CloudEventError if no receiver would take an event of ours. Of its JSON, written here, only the depth is open."""
    Attributes(attributes_of(event), limits).event(None, None, None)
    if event.json is None:
        data_in_bytes(event.datacontenttype, event.blob or b"", limits)
        check_binary(event.datacontenttype)
        return
    _check_says_json(event.datacontenttype or JSON_TYPE, limits)
    check_depth(event.json.encode(), "the data", limits.json_depth)


def check_binary(datacontenttype: str | None) -> None:
    """Bytes that say they are a CloudEvent would be taken for that one."""
    if datacontenttype is not None and datacontenttype[: len(FAMILY)].lower() == FAMILY:
        raise CloudEventError(
            "not_for_binary_mode",
            "an event whose data is itself a CloudEvent would be taken for that one: send it structured",
        )


def attributes_of(event: CloudEvent) -> dict[str, str]:
    """All but `datacontenttype`, in the order in which they are sent."""
    named = {
        "specversion": SPECVERSION,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time,
        "dataschema": event.dataschema,
    }
    attributes = {name: canonical(name, value) for name, value in named.items() if value is not None}
    for name, value in event.extensions.items():
        if name in named:
            raise CloudEventError("invalid_attribute", f"{name} is an attribute of its own, not an extension")
        attributes[name] = canonical(name, value)
    return attributes


def _normal_data(event: CloudEvent, limits: Limits) -> Data:
    if event.json is None:
        return data_in_bytes(event.datacontenttype, event.blob or b"", limits)
    type = event.datacontenttype or JSON_TYPE
    _check_says_json(type, limits)
    return Data(type, _json(_utf8(event.json), limits), None)


def _check_says_json(type: str, limits: Limits) -> None:
    if not is_json(type, limits):
        raise CloudEventError("invalid_data", "data that is JSON needs a datacontenttype that says so")


def _json(content: bytes, limits: Limits) -> str:
    return read(content, "the data", limits.json_depth).text.decode()


def _utf8(json: str) -> bytes:
    try:
        return json.encode()
    except UnicodeEncodeError:
        raise CloudEventError("invalid_json", "the data is not valid JSON: it holds a lone surrogate") from None
