"""`edda viewer` as a program of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from edda import EddaApp
from tests.cli.conftest import PROGRAMS, SERVICE, Run


@contextmanager
def viewer(*arguments: str) -> Iterator[httpx2.Client]:
    """A visitor of a viewer that runs until the end of the block."""
    command = [sys.executable, "-m", "edda", "viewer", "--port", "0", *arguments]
    environment = {**os.environ, "EDDA_TEST_CLI_URL": os.environ["EDDA_DATABASE_URL"]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://\S+", process.stdout.readline())
            assert address is not None
            with httpx2.Client(base_url=address[0].partition("/?")[0], follow_redirects=True) as client:
                assert client.get(address[0]).status_code == 200
                yield client
        finally:
            process.terminate()


@pytest.mark.process
async def test_with_an_app_it_asks_for_parameters_and_runs_nothing(app: EddaApp) -> None:
    with viewer(f"{SERVICE}:app", "--allow-actions") as visitor:
        page = visitor.get("/start?workflow=cli_order").text
        assert 'name="arguments/order_id"' in page
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="(\w+)"', page))
        answer = visitor.post(
            "/start?workflow=cli_order",
            data={**fields, "arguments/order_id": "ORD-7", "arguments/amount": "2", "id": "from-the-form"},
            headers={"sec-fetch-site": "same-origin"},
        )
        assert answer.url.path == "/instances/from-the-form"
        workers = visitor.get("/workers").text
    assert await app.handle("from-the-form").status() in ("running", "waiting_for_event")
    assert workers.count('<td class="workflow">') == 1


@pytest.mark.process
async def test_without_an_app_it_knows_the_database_only(app: EddaApp) -> None:
    from tests.cli.programs import order

    await app.start(order.options(id="there"), "ORD-1")
    with viewer("--allow-actions") as visitor:
        assert 'name="arguments"' in visitor.get("/start?workflow=cli_order").text


def test_what_is_no_app_is_refused(edda: Run) -> None:
    said = edda("viewer", f"{PROGRAMS}:NOT_A_WORKFLOW")
    assert (said.code, "no EddaApp" in said.err) == (2, True)
    said = edda("viewer", f"{SERVICE}:app", "--db", "sqlite:///other.db")
    assert (said.code, "database of its own" in said.err) == (2, True)
