"""Agents that the tests of the adapter run: scripted models, which count how often they are asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable
from typing import Any

from pydantic import BaseModel
from pydantic_ai import Agent, AgentStreamEvent, ModelRetry, RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from edda import RetryPolicy, WorkflowContext, activity, workflow
from edda.adapters.pydantic_ai import ActivityOptions, EddaDurability

DONE = Counter[str]()
"""What was really done, as the world outside counts it."""


class Offer(BaseModel):
    item: str
    cents: int


def turns_of(messages: list[ModelMessage]) -> int:
    return sum(isinstance(message, ModelResponse) for message in messages)


def returns_in(messages: list[ModelMessage]) -> list[Any]:
    return [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]


def buyer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Asks for two prices at once, then for the stock, then says what it has learned."""
    DONE["model"] += 1
    match turns_of(messages):
        case 0:
            return ModelResponse(
                parts=[ToolCallPart("price", {"item": "lamp"}), ToolCallPart("price", {"item": "desk"})]
            )
        case 1:
            return ModelResponse(parts=[ToolCallPart("stock", {"item": "lamp"})])
        case _:
            return ModelResponse(parts=[TextPart(f"learned {returns_in(messages)}")])


shop = Agent(FunctionModel(buyer), name="shop", capabilities=[EddaDurability[None]()])


@shop.tool_plain
async def price(item: str) -> Offer:
    DONE[f"price {item}"] += 1
    return Offer(item=item, cents=100 * len(item))


@shop.tool_plain
def stock(item: str) -> int:
    DONE[f"stock {item}"] += 1
    return len(item)


@workflow(name="agents.ask")
async def ask(ctx: WorkflowContext, question: str) -> str:
    return (await shop.run(question)).output


# -- one that is in trouble --------------------------------------------------------------------------------------------


def clumsy(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    DONE["model"] += 1
    if turns_of(messages) < 2:
        return ModelResponse(parts=[ToolCallPart("weigh", {"item": ["?", "lamp"][turns_of(messages)]})])
    return ModelResponse(parts=[TextPart(f"it has {returns_in(messages)[-1]} g")])


scale = Agent(
    FunctionModel(clumsy),
    name="scale",
    capabilities=[EddaDurability[None](tool=ActivityOptions(retry_policy=RetryPolicy(initial_interval=60)))],
)


@scale.tool_plain
async def weigh(item: str) -> int:
    DONE["weigh"] += 1
    if item == "?":
        raise ModelRetry("which item?")
    if DONE["weigh"] < 4:
        raise ConnectionError("the scale is off")
    return 700


@workflow(name="agents.weigh")
async def weighing(ctx: WorkflowContext) -> str:
    return (await scale.run("how heavy?")).output


# -- one whose tools make durable calls --------------------------------------------------------------------------------


@activity(name="agents.pay")
async def pay(ctx: WorkflowContext, cents: int) -> str:
    DONE["pay"] += 1
    return f"receipt for {cents}"


payer = Agent(
    TestModel(),
    name="payer",
    deps_type=WorkflowContext,
    capabilities=[EddaDurability[WorkflowContext]()],
)


@payer.tool(metadata={"edda": False})
async def settle(ctx: RunContext[WorkflowContext], cents: int) -> list[str]:
    """Part of the workflow function: it has its context, and is replayed with it."""
    return [await pay(ctx.deps, cents), str(ctx.run_id), str(ctx.deps.uuid())]


@workflow(name="agents.pay_all")
async def pay_all(ctx: WorkflowContext) -> str:
    return (await payer.run("pay", deps=ctx)).output


# -- one that is listened to -------------------------------------------------------------------------------------------


async def listen(ctx: RunContext[None], events: AsyncIterable[AgentStreamEvent]) -> None:
    async for event in events:
        DONE[type(event).__name__] += 1


spoken = Agent(
    TestModel(custom_output_text="hello"),
    name="spoken",
    capabilities=[EddaDurability[None](event_stream_handler=listen)],
)


@workflow(name="agents.speak")
async def speak(ctx: WorkflowContext) -> str:
    return (await spoken.run("say hello")).output


# -- one that is used wrongly ------------------------------------------------------------------------------------------


wrong = Agent(TestModel(), name="wrong", capabilities=[EddaDurability[None]()])


@wrong.tool_plain(metadata={"edda": "five seconds"})
async def misplaced() -> str:
    return "?"


@workflow(name="agents.wrong")
async def wronged(ctx: WorkflowContext) -> str:
    return (await wrong.run("?")).output


ALL = [ask, weighing, pay_all, speak, wronged]
