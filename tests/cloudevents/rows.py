"""What the specifications ask for, as rows: where it is written, what comes in, what has to come out.

HTTP = HTTP protocol binding 1.0.2, JSON = JSON event format 1.0.2, CORE = CloudEvents 1.0.2, all by section;
EDDA = decided here, where they leave it open.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import NamedTuple

from edda.cloudevents import Headers
from edda.core.event import CloudEvent

JSON_EVENT = b"application/cloudevents+json"
JSON_BATCH = b"application/cloudevents-batch+json"
REQUIRED = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
BARE = CloudEvent("1", "/s", "t")


class Row(NamedTuple):
    where: str
    what: str
    headers: Headers
    body: bytes
    expected: CloudEvent | str
    """The event, or the code with which it is refused."""


def event(**fields: object) -> CloudEvent:
    extensions = fields.pop("extensions", {})
    assert isinstance(extensions, dict)
    return BARE._replace(**fields, extensions=MappingProxyType(extensions))  # type: ignore[arg-type]


def headers(content_type: bytes | None = None, /, **attributes: str | bytes | None) -> list[tuple[bytes, bytes]]:
    """Of a message in binary mode; None leaves an attribute out."""
    lines: list[tuple[bytes, bytes]] = []
    for name, value in (REQUIRED | attributes).items():
        if value is not None:
            lines.append((b"ce-" + name.encode(), value if isinstance(value, bytes) else value.encode()))
    return lines + ([(b"content-type", content_type)] if content_type is not None else [])


def binary(where: str, what: str, expected: CloudEvent | str, **attributes: str | bytes | None) -> Row:
    return Row(where, what, headers(**attributes), b"", expected)


def carries(where: str, what: str, content_type: bytes | None, body: bytes, expected: CloudEvent | str) -> Row:
    """Binary mode, with data."""
    return Row(where, what, headers(content_type), body, expected)


def members(where: str, what: str, text: str, expected: CloudEvent | str) -> Row:
    """Structured mode: `text` follows the required attributes in the object."""
    body = json.dumps(REQUIRED)[:-1] + (", " + text if text else "") + "}"
    return Row(where, what, [(b"content-type", JSON_EVENT)], body.encode("utf-8", "surrogatepass"), expected)


def whole(where: str, what: str, body: bytes, expected: CloudEvent | str, content_type: bytes = JSON_EVENT) -> Row:
    return Row(where, what, [(b"content-type", content_type)], body, expected)


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in REQUIRED.items() if key != name}).encode()


OBJECT = json.dumps(REQUIRED).encode()
AS_JSON = "application/json"

MODES = [
    whole("HTTP 3", "the media type is matched without case", OBJECT, BARE, b"Application/CloudEvents+JSON"),
    whole("HTTP 3.2.1", "parameters do not count", OBJECT, BARE, b"application/cloudevents+json; charset=UTF-8"),
    whole("HTTP 3.2.1", "a quoted charset", OBJECT, BARE, b'application/cloudevents+json;charset="utf-8"'),
    whole("EDDA", "JSON in another charset", OBJECT, "unsupported_charset", JSON_EVENT + b"; charset=utf-16"),
    whole(
        "HTTP 3", "an event format that is not known", b"<event/>", "unsupported_format", b"application/cloudevents+xml"
    ),
    whole("HTTP 3", "another one", b"\x00", "unsupported_format", b"application/cloudevents+avro"),
    whole("HTTP 3", "a batch of them", b"\x00", "unsupported_format", b"application/cloudevents-batch+xml"),
    whole("HTTP 3", "the family alone names no format", OBJECT, "unsupported_format", b"application/cloudevents"),
    Row("HTTP 3", "header names count without case", [(b"CONTENT-TYPE", JSON_EVENT)], OBJECT, BARE),
    Row(
        "HTTP 3.1.3.1",
        "names of attributes count without case",
        [(b"CE-SpecVersion", b"1.0"), (b"Ce-Id", b"1"), (b"cE-source", b"/s"), (b"ce-TYPE", b"t")],
        b"",
        BARE,
    ),
    Row(
        "HTTP 3.2.3",
        "in structured mode ce- headers are copies that do not count",
        [*headers(JSON_EVENT, id="other", bad_name="x")],
        OBJECT,
        BARE,
    ),
    Row("HTTP 3", "no attributes at all", [(b"content-type", b"text/html")], b"<html>", "missing_attribute"),
    Row("HTTP 3", "nothing at all", [], b"", "missing_attribute"),
    Row("EDDA", "two content types", [*headers(b"a/b"), (b"Content-Type", b"a/b")], b"", "repeated_header"),
    Row("EDDA", "one attribute twice", [*headers(), (b"CE-ID", b"1")], b"", "repeated_header"),
]

HEADER_VALUES = [
    binary("HTTP 3.1.3.2", "percent signs are decoded", event(subject="a b"), subject="a%20b"),
    binary("HTTP 3.1.3.2", "the example: UTF-8", event(subject="Euro € 😀"), subject="Euro%20%E2%82%AC%20%F0%9F%98%80"),
    binary("HTTP 3.1.3.2", "lower-case digits", event(subject="€"), subject="%e2%82%ac"),
    binary("HTTP 3.1.3.2", "encoded without need", event(subject="abc"), subject="%61bc"),
    binary("HTTP 3.1.3.2", "decoded once only", event(subject="%41"), subject="%2541"),
    binary("HTTP 3.1.3.2", "UTF-8 longer than needed", "invalid_attribute", subject="%C0%A0"),
    binary("HTTP 3.1.3.2", "UTF-8 that stops", "invalid_attribute", subject="%E2%82"),
    binary("HTTP 3.1.3.2", "UTF-8 of a surrogate", "invalid_attribute", subject="%ED%A0%80"),
    binary("HTTP 3.1.3.2", "a quoted string", event(subject="a b"), subject='"a b"'),
    binary("HTTP 3.1.3.2", "escapes within it", event(subject='a "b" \\'), subject=r'"a \"b\" \\"'),
    binary("HTTP 3.1.3.2", "percent signs within it", event(subject="a €"), subject='"a %E2%82%AC"'),
    binary("HTTP 3.1.3.2", "quotes, then percent signs", event(subject='"'), subject="%22"),
    binary("HTTP 3.1.3.2", "a quoted part", event(subject="x a b y"), subject='x "a b" y'),
    binary("EDDA", "a lone quote stands for itself", event(subject='5" disk'), subject='5" disk'),
    binary("EDDA", "a lone quote after a string", event(subject='a b "c'), subject='"a b" "c'),
    binary("EDDA", "a lone quote and a backslash", event(subject='a "\\'), subject='a "\\'),
    binary("EDDA", "a lone percent sign stands for itself", event(subject="100%"), subject="100%"),
    binary("EDDA", "a percent sign without digits", event(subject="%zz %1"), subject="%zz %1"),
    binary("EDDA", "UTF-8 that nobody encoded", event(subject="Köln"), subject="Köln".encode()),
    binary("EDDA", "Latin-1 that nobody encoded", "invalid_attribute", subject=b"K\xf6ln"),
    binary("HTTP 3.1.3", "white space around a value", event(subject="a"), subject=" \ta \t"),
    binary("CORE 3", "a control character", "invalid_attribute", subject="a%0Ab"),
    binary("CORE 3", "NUL", "invalid_attribute", subject="%00"),
    binary("CORE 3", "a C1 control character", "invalid_attribute", subject="%C2%85"),
    binary("CORE 3", "a noncharacter", "invalid_attribute", subject="%EF%BF%BE"),
    binary("CORE 3", "a noncharacter of another plane", "invalid_attribute", subject="%F0%9F%BF%BF"),
]

ATTRIBUTES = [
    *(
        row
        for name in REQUIRED
        for row in (
            binary("CORE 3.1", f"{name} is missing", "missing_attribute", **{name: None}),
            whole("CORE 3.1", f"{name} is missing, structured", without(name), "missing_attribute"),
            binary("CORE 3.1", f"{name} is empty", "invalid_attribute", **{name: ""}),
        )
    ),
    binary("CORE 3.1", "version 0.3", "invalid_attribute", specversion="0.3"),
    binary("CORE 3.1", "version 1.1", "invalid_attribute", specversion="1.1"),
    whole(
        "CORE 3.1",
        "a version that is a number",
        b'{"specversion":1.0,"id":"1","source":"/","type":"t"}',
        "invalid_attribute",
    ),
    whole(
        "JSON 2.2",
        "an id that is a number",
        b'{"specversion":"1.0","id":1,"source":"/","type":"t"}',
        "invalid_attribute",
    ),
    whole(
        "JSON 2.1", "null is missing", b'{"specversion":"1.0","id":null,"source":"/","type":"t"}', "missing_attribute"
    ),
    binary("CORE 3.1", "source is any URI reference", event(source="urn:uuid:6e8b"), source="urn:uuid:6e8b"),
    binary("CORE 3.1", "an absolute URI", event(source="https://a.b:80/c?d#e"), source="https://a.b:80/c?d#e"),
    binary("CORE 3.1", "an IPv6 host", event(source="http://[::1]:8/"), source="http://[::1]:8/"),
    binary("CORE 3.1", "a mail address", event(source="mailto:a@b.c"), source="mailto:a@b.c"),
    binary("CORE 3.1", "a name", event(source="payment-service"), source="payment-service"),
    binary("CORE 3.1", "percent signs of a URI", event(source="/a%20b"), source="/a%2520b"),
    binary("CORE 3.1", "a space is in no URI", "invalid_attribute", source="my%20service"),
    binary("CORE 3.1", "a percent sign alone is in no URI", "invalid_attribute", source="/100%25"),
    binary("CORE 3.1", "letters beyond ASCII are in no URI", "invalid_attribute", source="/Köln".encode()),
    binary("CORE 3.1", "a scheme begins with a letter", "invalid_attribute", source="1a:b"),
    binary("CORE 3.1", "two fragments", "invalid_attribute", source="/a#b#c"),
    binary("CORE 3.1", "a port that is no number", "invalid_attribute", source="http://a:b:c/"),
    binary("CORE 3.1", "an empty subject", "invalid_attribute", subject=""),
    binary("CORE 3.1", "dataschema is a URI", event(dataschema="urn:x:y"), dataschema="urn:x:y"),
    binary("CORE 3.1", "dataschema without a scheme", "invalid_attribute", dataschema="/schema"),
    *(
        binary("CORE 3.1", f"the time {time} stays as sent", event(time=time), time=time)
        for time in (
            "2026-11-22T21:09:00Z",
            "2026-11-22t21:09:00.123456789z",
            "1985-04-12T23:20:50.52+01:30",
            "2024-02-29T00:00:00-00:00",
            "1990-12-31T23:59:60Z",
            "0000-02-29T00:00:00Z",
        )
    ),
    *(
        binary("CORE 3.1", f"the time {time} is none", "invalid_attribute", time=time)
        for time in (
            "yesterday",
            "2026-11-22",
            "2026-11-22 21:09:00Z",
            "2026-11-22T21:09:00",
            "2026-11-22T21:09Z",
            "2026-13-01T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T21:09:00.Z",
            "2026-11-22T21:09:00+0100",
            "٢٠٢٦-11-22T21:09:00Z",
            "2026-11-22T21:09:00Z ; x",
        )
    ),
]

EXTENSIONS = [
    binary("CORE 3.2", "what is not known is an extension", event(extensions={"foo1": "bar"}), foo1="bar"),
    binary("EDDA", "an empty one", event(extensions={"foo": ""}), foo=""),
    members("JSON 2.2", "true", '"a": true, "b": false', event(extensions={"a": "true", "b": "false"})),
    members("JSON 2.2", "integers", '"a": 42, "b": -2147483648', event(extensions={"a": "42", "b": "-2147483648"})),
    members("JSON 2.2", "zero has one form", '"a": -0', event(extensions={"a": "0"})),
    members("CORE 3", "an integer of more than 32 bits", '"a": 2147483648', "invalid_attribute"),
    members("JSON 2.2", "a number that is no integer", '"a": 1.5', "invalid_attribute"),
    members("JSON 2.2", "a number with an exponent", '"a": 1e2', "invalid_attribute"),
    members("JSON 2.1", "null is not set", '"a": null, "subject": null, "time": null', BARE),
    members("JSON 2.4", "an object", '"a": {"b": 1}', "invalid_attribute"),
    members("JSON 2.4", "an array", '"a": [1]', "invalid_attribute"),
    members("CORE 3", "a surrogate", r'"a": "\ud800"', "invalid_json"),
    members("CORE 3", "a control character", r'"a": "\u0007"', "invalid_attribute"),
    members("CORE 3", "letters beyond ASCII", r'"a": "K\u00f6ln"', event(extensions={"a": "Köln"})),
    members("CORE 3.1", "a capital letter", '"myName": "x"', "invalid_attribute"),
    members("CORE 3.1", "no name", '"": "x"', "invalid_attribute"),
    members("CORE 3.1", "a digit of another script", '"a٣": "x"', "invalid_attribute"),
    binary("CORE 3.1", "an underscore", "invalid_attribute", bad_name="x"),
    binary("CORE 3.1", "no name, in a header", "invalid_attribute", **{"": "x"}),
    binary("CORE 3.1", "the name 'data'", "invalid_attribute", data="x"),
    binary("EDDA", "20 characters", event(extensions={"a" * 20: "x"}), **{"a" * 20: "x"}),
    binary("EDDA", "21 characters", "invalid_attribute", **{"a" * 21: "x"}),
    binary("HTTP 3.1.1", "the content type is no ce- header", "invalid_attribute", datacontenttype="a/b"),
]

DATA = [
    carries(
        "HTTP 3.1.1",
        "bytes",
        b"image/png",
        bytes(range(256)),
        event(datacontenttype="image/png", blob=bytes(range(256))),
    ),
    carries("HTTP 3.1.1", "JSON", b"application/json", b'{"a": 1}', event(datacontenttype=AS_JSON, json='{"a":1}')),
    carries("JSON 3.1", "*/json", b"Text/JSON", b"1", event(datacontenttype="Text/JSON", json="1")),
    carries(
        "JSON 3.1", "*+json, with parameters", b"a/b+json; v=1", b"1", event(datacontenttype="a/b+json; v=1", json="1")
    ),
    carries("EDDA", "a tab in it", b"a/b;\tv=1 ", b"1", event(datacontenttype="a/b; v=1", blob=b"1")),
    carries("JSON 3.1", "not quite JSON", b"a/json+b", b"1", event(datacontenttype="a/json+b", blob=b"1")),
    carries("JSON 3.1", "nor this", b"a/xjson", b"1", event(datacontenttype="a/xjson", blob=b"1")),
    carries("HTTP 3.1.1", "without a type nothing is assumed", None, b'{"a": 1}', event(blob=b'{"a": 1}')),
    carries("EDDA", "an empty type is none", b"", b"1", event(blob=b"1")),
    carries("CORE 3.1", "no media type", b"json", b"1", "invalid_attribute"),
    carries("HTTP 3.1.2", "no body and no type", None, b"", BARE),
    carries("EDDA", "no body, of type JSON", b"application/json", b"", event(datacontenttype=AS_JSON)),
    carries("EDDA", "no body, of another type, is no bytes", b"a/b", b"", event(datacontenttype="a/b", blob=b"")),
    carries("EDDA", "a byte order mark", b"a/json", b"\xef\xbb\xbf1", event(datacontenttype="a/json", json="1")),
    carries(
        "HTTP 3.1.1",
        "bytes with one stay",
        b"a/b",
        b"\xef\xbb\xbf1",
        event(datacontenttype="a/b", blob=b"\xef\xbb\xbf1"),
    ),
    carries("EDDA", "what says JSON but is none", b"application/json", b"{", "invalid_json"),
    carries("EDDA", "JSON in Latin-1", b"application/json; charset=latin-1", b'"\xf6"', "invalid_json"),
    members("JSON 3.1.1", "no type: JSON", '"data": {"a": 1}', event(datacontenttype=AS_JSON, json='{"a":1}')),
    members(
        "JSON 3.1",
        "a string is JSON, too, and not read again",
        r'"data": "{\"a\":1}"',
        event(datacontenttype=AS_JSON, json=r'"{\"a\":1}"'),
    ),
    members("JSON 3.1.2", "null is data", '"data": null', event(datacontenttype=AS_JSON, json="null")),
    members("JSON 3.1", "false", '"data": false', event(datacontenttype=AS_JSON, json="false")),
    members("JSON 3.1", "a number", '"data": 1.50', event(datacontenttype=AS_JSON, json="1.50")),
    members("JSON 3.1", "no data", "", BARE),
    members("EDDA", "a type and no data", '"datacontenttype": "text/json"', event(datacontenttype="text/json")),
    members("EDDA", "another type and no data", '"datacontenttype": "a/b"', event(datacontenttype="a/b", blob=b"")),
    members(
        "JSON 3.1.2",
        "a string of another type",
        '"datacontenttype":"text/xml","data":"<é/>"',
        event(datacontenttype="text/xml", blob="<é/>".encode()),
    ),
    members(
        "JSON 3.1.2",
        "a string of another type is no JSON",
        '"datacontenttype":"a/b","data":"{}"',
        event(datacontenttype="a/b", blob=b"{}"),
    ),
    members("JSON 3.1.2", "an object of another type", '"datacontenttype":"text/xml","data":{}', "invalid_data"),
    members("EDDA", "null of another type", '"datacontenttype":"text/xml","data":null', "invalid_data"),
    members("CORE 3.1", "no media type, structured", '"datacontenttype":"json","data":{}', "invalid_attribute"),
    members(
        "EDDA",
        "spaces around a media type",
        '"datacontenttype":" a/b ; c ","data":""',
        event(datacontenttype="a/b ; c", blob=b""),
    ),
    members("EDDA", "a media type of spaces", '"datacontenttype":" ","data":""', "invalid_attribute"),
    members("CORE 3.1", "an empty media type", '"datacontenttype":"","data":{}', "invalid_attribute"),
    members("JSON 2.2", "a media type that is a number", '"datacontenttype":1,"data":{}', "invalid_attribute"),
    members(
        "JSON 3.1.1",
        "base64",
        '"datacontenttype":"a/b","data_base64":"AP8="',
        event(datacontenttype="a/b", blob=b"\x00\xff"),
    ),
    members("JSON 3.1.1", "base64 without a type", '"data_base64":"e30="', event(blob=b"{}")),
    members("EDDA", "empty base64 without a type", '"data_base64":""', BARE),
    members(
        "EDDA",
        "base64 of JSON",
        '"datacontenttype":"a/json","data_base64":"e30="',
        event(datacontenttype="a/json", json="{}"),
    ),
    members("EDDA", "base64 of what only says so", '"datacontenttype":"a/json","data_base64":"ew=="', "invalid_json"),
    members("JSON 3.1.1", "both", '"data":1,"data_base64":"AA=="', "invalid_data"),
    members("JSON 3.1.1", "both, one null", '"data":null,"data_base64":"AA=="', "invalid_data"),
    members("JSON 2.1", "base64 that is null", '"data":1,"data_base64":null', event(datacontenttype=AS_JSON, json="1")),
    members("JSON 3.1.1", "base64 without padding", '"data_base64":"AP8"', "invalid_data"),
    members("JSON 3.1.1", "base64 with more", '"data_base64":"AP8=AP8="', "invalid_data"),
    members("JSON 3.1.1", "base64 for URLs", '"data_base64":"_-8="', "invalid_data"),
    members("JSON 3.1.1", "base64 with white space", r'"data_base64":"AP\n8="', "invalid_data"),
    members("JSON 3.1.1", "base64 beyond ASCII", '"data_base64":"é"', "invalid_data"),
    members("JSON 3.1.1", "base64 that is an object", '"data_base64":{}', "invalid_data"),
]

BODIES = [
    whole("JSON 2.3", "no JSON", b"{", "invalid_json"),
    whole("JSON 2.3", "an empty body", b"", "invalid_json"),
    whole("JSON 3", "an array is no event", b"[]", "invalid_event"),
    whole("JSON 3", "a string is no event", b'"x"', "invalid_event"),
    whole("JSON 4", "an object is no batch", OBJECT, "invalid_event", JSON_BATCH),
    whole("JSON 3", "not UTF-8", b'{"a":"\xff"}', "invalid_json"),
    whole("EDDA", "a byte order mark", b"\xef\xbb\xbf" + OBJECT, BARE),
    members("JSON 3", "more than one value", '"a":"b"} {"c":1', "invalid_json"),
    members("EDDA", "an attribute twice", '"id":"2"', "duplicate_member"),
    members("EDDA", "an attribute twice, once with escapes", r'"\u0069d":"2"', "duplicate_member"),
    members("EDDA", "a name twice in the data", '"data":{"a":[{"b":1,"b":1}]}', "duplicate_member"),
    members("EDDA", "NaN", '"data":NaN', "invalid_json"),
    members("EDDA", "infinity", '"data":[-Infinity]', "invalid_json"),
    members("EDDA", "infinity in digits", '"data":[1E400]', "invalid_json"),
    members("EDDA", "infinity in many digits", f'"data":[true,{"9" * 400}.0]', "invalid_json"),
    members(
        "EDDA", "64 deep", f'"data":{"[" * 64}{"]" * 64}', event(datacontenttype=AS_JSON, json="[" * 64 + "]" * 64)
    ),
    members("EDDA", "65 deep", f'"data":{"[" * 65}{"]" * 65}', "too_deep"),
    members("EDDA", "200 deep", f'"data":{"[" * 200}{"]" * 200}', "too_deep"),
    members("EDDA", "100,000 deep", f'"data":{"[" * 100_000}', "too_deep"),
    members(
        "EDDA",
        "wide is not deep",
        f'"data":[{"[],{}," * 100}1]',
        event(datacontenttype=AS_JSON, json=f"[{'[],{},' * 100}1]"),
    ),
    carries(
        "EDDA",
        "64 deep, in binary mode",
        b"a/json",
        b"[" * 64 + b"]" * 64,
        event(datacontenttype="a/json", json="[" * 64 + "]" * 64),
    ),
    carries("EDDA", "65 deep, in binary mode", b"a/json", b"[" * 65 + b"]" * 65, "too_deep"),
]

TEXT_OF_DATA = [
    whole(
        "JSON 3.1",
        "data that comes first",
        b'{"data":{"a":",\\"id\\":","id":1.10},"id":"1","specversion":"1.0","source":"/s","type":"t"}',
        event(datacontenttype=AS_JSON, json='{"a":",\\"id\\":","id":1.10}'),
    ),
    whole("JSON 3.1", "data in an attribute that is refused", b'{"a":{"data":1},"data":2}', "invalid_attribute"),
    whole("JSON 3.1", "and after it", b'{"data":2,"a":{"data":1}}', "invalid_attribute"),
    members(
        "EDDA",
        "escaped backslashes and quotes end no string",
        r'"data": [ "\u005c" , "a  b\u0022 ", "\\" , "\\\"  c" ]',
        event(datacontenttype=AS_JSON, json=r'["\\","a  b\" ","\\","\\\"  c"]'),
    ),
]

ROWS = [*TEXT_OF_DATA, *MODES, *HEADER_VALUES, *ATTRIBUTES, *EXTENSIONS, *DATA, *BODIES]
