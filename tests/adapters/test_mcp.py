"""Workflows as tools of an MCP server, asked by a real client in the same process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, Tool
from mcp.server import MCPServer
from mcp.types import CallToolResult
from pydantic import BaseModel

from edda import EddaApp, TerminalError, WorkflowContext, activity, wait_event, wait_timer, workflow
from edda.adapters import mcp as adapter
from edda.adapters.mcp import mcp_server


class Guest(BaseModel):
    name: str
    age: int


@dataclass(frozen=True)
class Room:
    number: int
    night: date


@activity(name="mcp.prepare")
async def prepare(ctx: WorkflowContext, guest: Guest) -> Room:
    return Room(number=guest.age, night=date(2030, 1, 2))


@workflow(name="mcp.stay")
async def stay(
    ctx: WorkflowContext, guest: Guest, nights: int = 1, board: Literal["none", "half"] = "none"
) -> dict[str, Any]:
    """Books a room for a guest."""
    room = await prepare(ctx, guest)
    return {"room": room, "nights": nights, "board": board, "key": b"\x00\xff"}


@workflow(name="mcp.confirmed")
async def confirmed(ctx: WorkflowContext, guest: str) -> str:
    event = await wait_event(ctx, "mcp.confirmation", match={"guest": guest})
    return str(event.data["by"])


@workflow(name="mcp.refused")
async def refused(ctx: WorkflowContext) -> None:
    raise TerminalError("we are full")


@workflow(name="mcp.hidden")
async def hidden(ctx: WorkflowContext) -> None:
    await wait_timer(ctx, 3600)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[EddaApp]:
    async with EddaApp(
        db_url=f"sqlite:///{tmp_path}/edda.db",
        workflows=[stay, confirmed, refused, hidden],
        shutdown_grace_seconds=0.05,
    ) as app:
        yield app


@pytest.fixture
def server(app: EddaApp) -> MCPServer[None]:
    return mcp_server(app, [stay, confirmed, refused], event_types=["mcp.confirmation"])


async def ask(server: MCPServer[None], tool: str, arguments: dict[str, Any], **options: Any) -> CallToolResult:
    async with Client(server) as client:
        return await client.call_tool(tool, arguments, **options)


async def tools_of(server: MCPServer[None]) -> dict[str, Tool]:
    async with Client(server) as client:
        return {tool.name: tool for tool in (await client.list_tools()).tools}


async def call(server: MCPServer[None], tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await ask(server, tool, arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return answer.structured_content


async def error(server: MCPServer[None], tool: str, **arguments: Any) -> str:
    answer = await ask(server, tool, arguments)
    assert answer.is_error
    (content,) = answer.content
    assert content.type == "text"
    return content.text


async def test_each_workflow_is_a_tool_with_the_schema_of_its_signature(server: MCPServer[None]) -> None:
    tools = await tools_of(server)
    assert set(tools) == {
        *("start_mcp.stay", "start_mcp.confirmed", "start_mcp.refused"),
        *("status", "result", "cancel", "send_event"),
    }
    schema = tools["start_mcp.stay"].input_schema
    assert schema["required"] == ["guest"]
    assert schema["$defs"]["Guest"]["properties"]["age"]["type"] == "integer"
    assert schema["properties"]["board"]["enum"] == ["none", "half"]
    assert "ctx" not in schema["properties"]
    assert "Books a room for a guest." in (tools["start_mcp.stay"].description or "")
    assert tools["send_event"].input_schema["properties"]["event_type"]["const"] == "mcp.confirmation"
    assert "ctx" not in tools["result"].input_schema["properties"]


async def test_it_is_started_and_its_result_fetched(server: MCPServer[None]) -> None:
    started = await call(server, "start_mcp.stay", guest={"name": "Ann", "age": 42}, nights=3, instance_id="stay-1")
    assert started["instance_id"] == "stay-1"
    ended = await call(server, "result", instance_id="stay-1")
    assert (ended["status"], ended["done"]) == ("completed", True)
    assert ended["result"]["room"] == {"number": 42, "night": "2030-01-02"}
    assert ended["result"]["nights"] == 3


async def test_the_same_start_twice_is_one_and_another_under_its_id_is_refused(server: MCPServer[None]) -> None:
    first = await call(server, "start_mcp.confirmed", guest="Ann", instance_id="one")
    again = await call(server, "start_mcp.confirmed", guest="Ann", instance_id="one")
    assert first["instance_id"] == again["instance_id"] == "one"
    assert "ConflictError" in await error(server, "start_mcp.confirmed", guest="Bob", instance_id="one")


async def test_arguments_that_do_not_fit_start_nothing(server: MCPServer[None]) -> None:
    assert "age" in await error(server, "start_mcp.stay", guest={"name": "Ann", "age": "old"}, instance_id="nobody")
    assert "InstanceNotFoundError" in await error(server, "status", instance_id="nobody")


async def test_a_result_that_is_not_there_yet_says_what_is_waited_for(server: MCPServer[None]) -> None:
    started = await call(server, "start_mcp.confirmed", guest="Ann")
    state = await call(server, "result", instance_id=started["instance_id"], wait_seconds=0.3)
    assert (state["done"], state["result"]) == (False, None)
    assert "mcp.confirmation" in state["reason"]


async def test_a_waiting_client_gets_the_result_as_soon_as_it_is_there(server: MCPServer[None]) -> None:
    started = await call(server, "start_mcp.confirmed", guest="Ann")
    result = asyncio.ensure_future(call(server, "result", instance_id=started["instance_id"], wait_seconds=30))
    event = {"event_type": "mcp.confirmation", "data": {"guest": "Ann", "by": "Bob"}, "event_id": "1"}
    assert await call(server, "send_event", **event) == {"result": "stored"}
    assert await call(server, "send_event", **event) == {"result": "duplicate"}
    assert (await result)["result"] == "Bob"


async def test_a_client_that_waits_hears_that_it_is_still_waited_for(
    server: MCPServer[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "PROGRESS_SECONDS", 0.02)
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    started = await call(server, "start_mcp.confirmed", guest="Ann")
    waited = {"instance_id": started["instance_id"], "wait_seconds": 0.1}
    await ask(server, "result", waited, progress_callback=hear)
    assert len(heard) >= 3
    assert heard == sorted(heard)


async def test_a_failure_is_told(server: MCPServer[None]) -> None:
    started = await call(server, "start_mcp.refused")
    state = await call(server, "result", instance_id=started["instance_id"])
    assert (state["status"], state["done"]) == ("failed", True)
    assert "we are full" in state["reason"]


async def test_an_instance_is_cancelled(server: MCPServer[None]) -> None:
    started = await call(server, "start_mcp.confirmed", guest="Ann")
    await call(server, "cancel", instance_id=started["instance_id"])
    assert (await call(server, "result", instance_id=started["instance_id"]))["status"] == "cancelled"
    assert "NotCancellableError" in await error(server, "cancel", instance_id=started["instance_id"])


@pytest.mark.parametrize("tool", ["status", "result", "cancel"])
async def test_instances_of_workflows_that_are_not_offered_are_unknown(
    app: EddaApp, server: MCPServer[None], tool: str
) -> None:
    handle = await app.start(hidden.options(id="hidden"))
    text = await error(server, tool, instance_id=handle.id)
    assert text == (await error(server, tool, instance_id="no-such")).replace("no-such", "hidden")
    assert await handle.status() != "cancelled"


async def test_an_id_that_is_taken_by_what_is_not_offered_is_only_said_to_be_taken(
    app: EddaApp, server: MCPServer[None]
) -> None:
    await app.start(hidden.options(id="hidden"))
    text = await error(server, "start_mcp.refused", instance_id="hidden")
    assert "taken" in text
    assert "mcp.hidden" not in text


async def test_an_event_for_an_instance_that_is_not_offered_is_refused(app: EddaApp, server: MCPServer[None]) -> None:
    await app.start(hidden.options(id="hidden"))
    event = {"event_type": "mcp.confirmation", "data": {}, "event_id": "1", "instance_id": "hidden"}
    assert "InstanceNotFoundError" in await error(server, "send_event", **event)


async def test_other_events_cannot_be_sent(server: MCPServer[None]) -> None:
    assert "mcp.other" in await error(server, "send_event", event_type="mcp.other", data={}, event_id="1")


async def test_without_event_types_there_is_no_way_to_send(app: EddaApp) -> None:
    assert "send_event" not in await tools_of(mcp_server(app, [stay]))


async def test_an_app_that_does_not_run_lives_as_long_as_the_server(tmp_path: Path) -> None:
    app = EddaApp(db_url=f"sqlite:///{tmp_path}/edda.db", workflows=[refused])
    async with Client(mcp_server(app, [refused])) as client:
        assert app.running
        await client.call_tool("start_mcp.refused", {})
    assert not app.running


def test_a_workflow_whose_parameters_have_no_names_cannot_be_a_tool() -> None:
    @workflow(name="mcp.nameless")
    async def nameless(ctx: WorkflowContext, *guests: str) -> None: ...

    with pytest.raises(TypeError, match=r"mcp.nameless.*\*guests"):
        mcp_server(EddaApp(), [nameless])


def test_two_workflows_cannot_be_one_tool() -> None:
    @workflow(name="mcp a")
    async def one(ctx: WorkflowContext) -> None: ...

    @workflow(name="mcp/a")
    async def two(ctx: WorkflowContext) -> None: ...

    with pytest.raises(ValueError, match="would be one tool"):
        mcp_server(EddaApp(), [one, two])


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [("edda.adapters.mcp", "mcp", "mcp"), ("edda.adapters.pydantic_ai", "pydantic_ai", "pydantic-ai")],
)
def test_without_its_package_an_adapter_names_the_extra(module: str, package: str, extra: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import {module}"
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"pip install 'edda-framework[{extra}]'" in outcome.stderr
