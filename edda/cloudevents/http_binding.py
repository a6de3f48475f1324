"""The HTTP protocol binding 1.0.2: which mode a message is in, and how attributes become headers.

`Content-Type` decides: `application/cloudevents+json` is one event in its body (structured), `…-batch+json` are many,
`application/cloudevents` in any other format is refused, and everything else is binary mode: attributes in `ce-…`
headers, data in the body. Header names count without case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from edda.cloudevents.attributes import Attributes
from edda.cloudevents.data import FAMILY, MediaType, attributes_of, check_binary, data_in_bytes, media_type, normal
from edda.cloudevents.errors import CloudEventError, quoted
from edda.cloudevents.json_format import read_batch, read_event, write_batch, write_event
from edda.cloudevents.limits import LIMITS, Limits
from edda.core.event import CloudEvent

Headers = Iterable[tuple[bytes, bytes]]
"""As ASGI gives them: names and values as they came, one pair for each line."""

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"

_PREFIX: Final = b"ce-"
_CHARSETS: Final = frozenset({None, "utf-8", "utf8", "us-ascii"})
_AS_IT_IS: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_QUOTED_STRING = re.compile(rb'"((?:[^"\\]|\\.)*+)("|\Z|\\\Z)', re.DOTALL)
"""To its quote or, without one, to the end: so no value is searched from each of its quotes again."""
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)


class Message(NamedTuple):
    """An HTTP message that carries an event, or several."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


class Batch(NamedTuple):
    """What came in one batch, in its order; each event was judged alone."""

    events: list[CloudEvent | CloudEventError]


class _Head(NamedTuple):
    """What the headers say that counts."""

    content_type: str | None
    attributes: dict[bytes, bytes]


def parse(headers: Headers, body: bytes, limits: Limits = LIMITS) -> CloudEvent | Batch:
    """The event, or the batch, in a request. CloudEventError if it is none, or a batch as a whole cannot be read."""
    if len(body) > limits.body_bytes:
        raise CloudEventError("body_too_large", f"the body has more than {limits.body_bytes} bytes")
    head = _head(headers, limits)
    if head.content_type is None or head.content_type[: len(FAMILY)].lower() != FAMILY:
        data = data_in_bytes(head.content_type, body, limits)
        return Attributes(_attributes(head.attributes), limits).event(*data)
    if _format(head.content_type, limits) == BATCH:
        return Batch(read_batch(body, limits))
    return read_event(body, limits)


def to_binary(event: CloudEvent, limits: Limits = LIMITS) -> Message:
    """Attributes in headers, data as it is. CloudEventError if the event breaks a rule of CloudEvents."""
    event = normal(event, limits)
    headers = [(_PREFIX + name.encode(), _encoded(value)) for name, value in attributes_of(event).items()]
    if event.datacontenttype is not None:
        check_binary(event.datacontenttype)
        headers.append((b"content-type", event.datacontenttype.encode()))
    return Message(headers, event.blob or (event.json or "").encode())


def to_structured(event: CloudEvent, limits: Limits = LIMITS) -> Message:
    """One JSON object. CloudEventError if the event breaks a rule of CloudEvents."""
    return Message([(b"content-type", STRUCTURED.encode())], write_event(normal(event, limits)))


def to_batch(events: Iterable[CloudEvent], limits: Limits = LIMITS) -> Message:
    """One JSON array. CloudEventError if one of the events breaks a rule of CloudEvents."""
    body = write_batch([normal(event, limits) for event in events])
    return Message([(b"content-type", BATCH.encode())], body)


def _head(headers: Headers, limits: Limits) -> _Head:
    content_type: bytes | None = None
    attributes: dict[bytes, bytes] = {}
    count = size = 0
    for name, value in headers:
        count += 1
        size += len(name) + len(value)
        lowered = name.lower()
        if lowered.startswith(_PREFIX):
            attribute = lowered[len(_PREFIX) :]
            if attribute in attributes:
                raise _repeated(lowered)
            attributes[attribute] = value
        elif lowered == b"content-type":
            if content_type is not None:
                raise _repeated(lowered)
            content_type = value
    if count > limits.headers or size > limits.headers_bytes:
        raise CloudEventError(
            "headers_too_large", f"no more than {limits.headers} headers of {limits.headers_bytes} bytes are taken"
        )
    return _Head(_content_type(content_type), attributes)


def _content_type(value: bytes | None) -> str | None:
    """Of the white space that HTTP allows in it, none but the space is left."""
    return value.decode("latin-1").replace("\t", " ").strip(" ") or None if value is not None else None


def _repeated(name: bytes) -> CloudEventError:
    return CloudEventError("repeated_header", f"the header {quoted(name.decode('latin-1'))} is there twice")


def _format(content_type: str, limits: Limits) -> str:
    """STRUCTURED or BATCH, or CloudEventError: of the event formats only JSON is known."""
    if content_type in (STRUCTURED, BATCH):
        return content_type
    kind: MediaType = media_type(content_type, limits)
    if kind.essence not in (STRUCTURED, BATCH):
        raise CloudEventError(
            "unsupported_format", f"of the event formats only JSON is taken: {STRUCTURED} or {BATCH}, or binary mode"
        )
    if kind.charset not in _CHARSETS:
        raise CloudEventError("unsupported_charset", "an event in JSON must be in UTF-8")
    return kind.essence


def _attributes(headers: dict[bytes, bytes]) -> dict[str, str]:
    if b"datacontenttype" in headers:
        raise CloudEventError("invalid_attribute", "datacontenttype is sent as Content-Type, not as ce-datacontenttype")
    return {name.decode("latin-1"): _decoded(name, value) for name, value in headers.items()}


def _decoded(name: bytes, value: bytes) -> str:
    """Section 3.1.3.2: first quotes, then percent signs, then UTF-8. A `%` without digits stands for itself."""
    value = value.strip(b" \t")
    if b'"' in value:
        value = _QUOTED_STRING.sub(_unquoted, value)
    if b"%" in value:
        value = unquote_to_bytes(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise CloudEventError(
            "invalid_attribute", f"{quoted(name.decode('latin-1'))} is not UTF-8 after its percent signs are decoded"
        ) from None


def _unquoted(string: re.Match[bytes]) -> bytes:
    """A quote that nothing closes stands for itself."""
    return _QUOTED_PAIR.sub(rb"\1", string[1]) if string[2] == b'"' else string[0]


def _encoded(value: str) -> bytes:
    return quote(value, safe=_AS_IT_IS).encode()
