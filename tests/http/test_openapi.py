"""`docs/openapi.json` says what is answered: schemathesis makes requests of it, right and wrong ones, and compares.

What a batch accepts is not compared: one wrong event in it does not make the request a wrong one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from edda.http import HttpApp
from tests.http.support import FakeDoor

DOCUMENT = (Path(__file__).parents[2] / "docs" / "openapi.json").read_bytes()

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]


def target() -> Any:
    door = FakeDoor()
    door.running, door.ended = {"order-1"}, {"order-0"}
    http = HttpApp(door)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/openapi.json":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": DOCUMENT})
        else:
            await http(scope, receive, send)

    return app


schema = schemathesis.openapi.from_asgi("/openapi.json", target())


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_answered_is_what_the_document_says(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_answered_is_what_the_document_says_many_times(case: schemathesis.Case) -> None:
    case.call_and_validate(checks=CHECKS)


def test_the_document_names_every_route() -> None:
    assert set(json.loads(DOCUMENT)["paths"]) == {"/events", "/cancel/{instance_id}", "/healthz", "/readyz"}
