"""`docs/reference/openapi.json` says what is answered: schemathesis makes requests, right and wrong ones, and compares.

The first test asks a door that only remembers; the others a real app (see `fuzz_openapi`).
"""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from edda.http import HttpApp
from tests.http.fuzz_checks import CHECKS, CONTENT, DOCUMENT
from tests.http.fuzz_openapi import fuzz
from tests.http.support import FakeDoor


def target() -> Any:
    door = FakeDoor()
    door.running, door.ended = {"order-1"}, {"order-0"}
    http = HttpApp(door)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/openapi.json":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": CONTENT})
        else:
            await http(scope, receive, send)

    return app


OPERATIONS = [
    operation.ok() for operation in schemathesis.openapi.from_asgi("/openapi.json", target()).get_all_operations()
]


@pytest.mark.parametrize("operation", OPERATIONS, ids=[operation.label for operation in OPERATIONS])
def test_what_is_answered_is_what_the_document_says(operation: Any) -> None:
    modes = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(modes))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()


@pytest.mark.process
@pytest.mark.timeout(180)
def test_a_real_app_answers_what_the_document_says_and_stays_well() -> None:
    report = fuzz(cases=200, seed=1)
    assert not report.violations, report
    assert report.cases >= 200
    assert {each for each in report.statuses if each.endswith("202")} == {
        f"POST {path} 202" for path in ("/events", "/cancel/{instance_id}", "/callback/{token}")
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_real_app_answers_what_the_document_says_twenty_thousand_times() -> None:
    report = fuzz(cases=20_000, seed=2)
    assert not report.violations, report


def test_the_document_names_every_route() -> None:
    assert set(DOCUMENT["paths"]) == {"/events", "/cancel/{instance_id}", "/callback/{token}", "/healthz", "/readyz"}
