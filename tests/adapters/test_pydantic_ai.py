"""Agents of Pydantic AI in workflow functions: what they ask and do is recorded, and never asked or done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic_ai.exceptions import UserError

from edda.testing import CrashTest, InMemoryApp
from tests.adapters.agents import ALL, DONE, ask, pay_all, shop, speak, weighing, wronged
from tests.databases import available, fresh_database

ANSWER = "learned [{'item': 'lamp', 'cents': 400}, {'item': 'desk', 'cents': 400}, 4]"


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    DONE.clear()


@pytest.fixture
async def app() -> AsyncIterator[InMemoryApp]:
    async with InMemoryApp(workflows=ALL) as app:
        yield app


async def test_requests_and_tools_are_activities_under_names_that_stay(app: InMemoryApp) -> None:
    handle = await app.start(ask, "a lamp?")
    assert await handle.result() == ANSWER
    assert DONE == {"model": 3, "price lamp": 1, "price desk": 1, "stock lamp": 1}
    recorded = [entry.activity_id for entry in await handle.history() if entry.event_type == "ActivityCompleted"]
    # These names are in the histories of running instances: a change here strands them.
    assert recorded == [
        "shop__model.request:1",
        "shop__function_toolset__<agent>.call_tool:price:1",
        "shop__function_toolset__<agent>.call_tool:price:2",
        "shop__model.request:2",
        "shop__function_toolset__<agent>.call_tool:stock:1",
        "shop__model.request:3",
    ]


async def test_it_comes_to_the_same_end_wherever_it_dies() -> None:
    async def nothing_recorded_was_done_again(app: InMemoryApp) -> None:
        assert sum(DONE.values()) <= 6 + 2, DONE  # what was done right before the crash is not known
        DONE.clear()

    trying = CrashTest(make_app=lambda: InMemoryApp(workflows=ALL), check=nothing_recorded_was_done_again)
    points = await trying.run(ask, "a lamp?")
    assert len(points) >= 12


async def test_a_crash_between_two_tools_costs_no_second_request(app: InMemoryApp) -> None:
    app.crash_at(4)  # start, the first request, both prices; then the second request
    assert await (await app.start(ask, "a lamp?")).result() == ANSWER
    assert app.crashes == 1
    assert DONE == {"model": 3, "price lamp": 1, "price desk": 1, "stock lamp": 1}


async def test_what_a_tool_says_to_the_model_is_no_failure_and_what_fails_is_retried(app: InMemoryApp) -> None:
    handle = await app.start(weighing)
    assert await handle.result() == "it has 700 g"
    assert DONE == {"model": 3, "weigh": 4}
    failed = [entry for entry in await handle.history() if entry.event_type == "ActivityAttemptFailed"]
    assert len(failed) == 2


async def test_a_tool_may_be_part_of_the_workflow_and_make_durable_calls(app: InMemoryApp) -> None:
    handle = await app.start(pay_all)
    assert "receipt for 0" in await handle.result()
    names = [entry.name for entry in await handle.history() if entry.event_type == "ActivityCompleted"]
    assert names == ["payer__model.request", "agents.pay", "payer__model.request"]


async def test_the_ids_of_a_run_are_the_same_in_every_replay() -> None:
    seen: set[str] = set()
    for commit in range(2, 5):
        async with InMemoryApp(workflows=ALL) as app:
            app.crash_at(commit)
            seen.add(await (await app.start(pay_all.options(id="always-this"))).result())
            assert app.crashes == 1
    assert len(seen) == 1, seen


async def test_its_events_are_seen_in_activities(app: InMemoryApp) -> None:
    assert await (await app.start(speak)).result() == "hello"
    assert DONE["PartStartEvent"] == 1
    assert DONE["FinalResultEvent"] == 1


async def test_an_agent_that_is_used_wrongly_fails_at_once(app: InMemoryApp) -> None:
    with pytest.raises(UserError, match="ActivityOptions"):
        await (await app.start(wronged)).result()


async def test_outside_of_a_workflow_it_is_an_agent_as_any() -> None:
    assert "learned" in (await shop.run("a lamp?")).output


# -- a process that is killed ------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, signal, sys
from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel
from edda import EddaApp, WorkflowContext, workflow
from edda.adapters.pydantic_ai import EddaDurability

url, log = sys.argv[1:]

def note(line):
    with open(log, "a") as lines:
        lines.write(line + "\\n")

def model(messages, info):
    note("model")
    turn = sum(isinstance(message, ModelResponse) for message in messages)
    return ModelResponse(parts=[ToolCallPart(["first", "second"][turn], {})] if turn < 2 else [TextPart("done")])

agent = Agent(FunctionModel(model), name="killed", capabilities=[EddaDurability()])

@agent.tool_plain
async def first() -> str:
    note("first")
    return "one"

@agent.tool_plain
async def second() -> str:
    killed = "killed" in open(log).read()
    note("second" if killed else "killed")
    if not killed:
        os.kill(os.getpid(), signal.SIGKILL)
    return "two"

@workflow(name="agents.killed")
async def run(ctx: WorkflowContext) -> str:
    return (await agent.run("go")).output

async def main():
    async with EddaApp(db_url=url) as app:
        handle = await app.start(run.options(id="the-one"))
        print(await handle.result(timeout=60))

asyncio.run(main())
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def db_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if available()[request.param] is None:
        pytest.skip(f"there is no {request.param} server")
    with fresh_database(request.param) as url:
        yield url


@pytest.mark.process
def test_a_killed_process_is_gone_on_with_without_asking_the_model_again(db_url: str, tmp_path: Path) -> None:
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(PROGRAM)
    log.touch()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(program), db_url, str(log)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert outcome.stdout == "done\n", outcome.stderr
    assert log.read_text().split() == ["model", "first", "model", "killed", "second", "model"]


def test_the_package_is_imported_on_use_only() -> None:
    program = "import sys, edda, edda.app, edda.testing; print([n for n in sys.modules if n.startswith('pydantic_ai')])"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert outcome.stdout == "[]\n"
