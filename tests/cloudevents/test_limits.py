"""Up to each limit an event is taken, one beyond it is refused; a refusal tells nothing of what was sent."""

from __future__ import annotations

import pytest

from edda.cloudevents import LIMITS, Batch, CloudEventError, Headers, Limits, parse
from edda.exceptions import EddaError
from tests.cloudevents.rows import JSON_BATCH, JSON_EVENT, OBJECT, headers


def refusal(lines: Headers, body: bytes = b"", limits: Limits = LIMITS) -> tuple[str, int]:
    with pytest.raises(CloudEventError) as refused:
        parse(lines, body, limits)
    return refused.value.code, refused.value.status


def test_the_defaults_are_those_that_are_promised() -> None:
    assert Limits() == Limits(
        body_bytes=1_048_576,
        batch_events=100,
        headers=100,
        headers_bytes=16_384,
        attribute_bytes=1_024,
        id_chars=255,
        type_chars=255,
        extension_name_chars=20,
        json_depth=64,
    )


def test_a_body_of_a_mebibyte_is_taken_and_one_byte_more_is_not() -> None:
    assert parse(headers(b"a/b"), bytes(1_048_576)).blob == bytes(1_048_576)  # type: ignore[union-attr]
    assert refusal(headers(b"a/b"), bytes(1_048_577)) == ("body_too_large", 413)


def test_a_batch_of_a_hundred_is_taken_and_one_more_is_not() -> None:
    batch = [(b"content-type", JSON_BATCH)]
    parsed = parse(batch, b"[%b]" % b",".join([OBJECT] * 100))
    assert isinstance(parsed, Batch)
    assert len(parsed.events) == 100
    assert refusal(batch, b"[%b]" % b",".join([OBJECT] * 101)) == ("batch_too_large", 413)


def test_a_hundred_headers_are_taken_and_one_more_is_not() -> None:
    lines = headers()
    others = [(b"x-%d" % number, b"") for number in range(101 - len(lines))]
    parse(lines + others[1:], b"")
    assert refusal(lines + others) == ("headers_too_large", 413)


def test_headers_of_16_kib_are_taken_and_one_byte_more_is_not() -> None:
    lines = headers()
    left = 16_384 - sum(len(name) + len(value) for name, value in lines)
    parse([*lines, (b"x", b"v" * (left - 1))], b"")
    assert refusal([*lines, (b"x", b"v" * left)]) == ("headers_too_large", 413)


@pytest.mark.parametrize("name", ["source", "subject", "myextension"])
@pytest.mark.parametrize(("fits", "too_long"), [("a" * 1024, "a" * 1025), ("ä" * 512, "ä" * 513)])
def test_an_attribute_of_1024_bytes_is_taken_and_one_more_is_not(name: str, fits: str, too_long: str) -> None:
    if name == "source":
        fits, too_long = "a" * 1024, "a" * 1025
    parse(headers(**{name: fits}), b"")
    assert refusal(headers(**{name: too_long})) == ("attribute_too_large", 413)


def test_a_content_type_counts_as_an_attribute() -> None:
    parse(headers(b"a/b;" + b" " * 1020), b"")
    assert refusal(headers(b"a/b;" + b"x" * 1021)) == ("attribute_too_large", 413)


@pytest.mark.parametrize("name", ["id", "type"])
def test_an_id_and_a_type_of_255_characters_are_taken_and_one_more_is_not(name: str) -> None:
    parse(headers(**{name: "ä" * 255}), b"")
    assert refusal(headers(**{name: "ä" * 256})) == ("attribute_too_large", 413)


@pytest.mark.parametrize(
    ("limits", "lines", "body", "code"),
    [
        (Limits(body_bytes=2), headers(b"a/b"), b"123", "body_too_large"),
        (Limits(batch_events=1), [(b"content-type", JSON_BATCH)], b"[1,2]", "batch_too_large"),
        (Limits(headers=5), headers(a="1", b="2"), b"", "headers_too_large"),
        (Limits(headers_bytes=90), headers(a="1" * 60), b"", "headers_too_large"),
        (Limits(attribute_bytes=10), headers(type="1" * 11), b"", "attribute_too_large"),
        (Limits(id_chars=2), headers(id="123"), b"", "attribute_too_large"),
        (Limits(type_chars=2), headers(type="123"), b"", "attribute_too_large"),
        (Limits(extension_name_chars=3), headers(abcd="1"), b"", "invalid_attribute"),
        (Limits(json_depth=1), [(b"content-type", JSON_EVENT)], OBJECT[:-1] + b',"data":[[]]}', "too_deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_limit_can_be_set(limits: Limits, lines: Headers, body: bytes, code: str) -> None:
    assert refusal(lines, body, limits)[0] == code


@pytest.mark.parametrize("options", [{"body_bytes": 0}, {"headers": -1}, {"json_depth": 191}])
def test_limits_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="of Limits must be"):
        Limits(**options)


def test_a_refusal_quotes_nothing_but_a_name_cut_short_and_in_ascii() -> None:
    with pytest.raises(CloudEventError) as refused:
        parse([*headers(), (b"ce-<\n\xfc" + b"x" * 500, b"secret")], b"")
    assert str(refused.value).startswith(r"'<\n\xfcxxxxx")
    assert len(str(refused.value)) < 200


def test_a_refusal_is_an_error_of_edda_that_no_retry_heals() -> None:
    error = CloudEventError("invalid_json", "…")
    assert isinstance(error, EddaError)
    assert not error.retryable
