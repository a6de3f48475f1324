"""Misuse by someone who knows the README only: an error says what happened, to which thing, and what to do."""

import enum
import functools
import re
from typing import Any

import pytest
from pydantic import BaseModel

from edda import (
    ConflictError,
    EddaApp,
    InvalidEventError,
    RetryPolicy,
    SerializationError,
    WorkflowContext,
    activity,
    compensation,
    on_failure,
    register_compensation,
    send_event,
    send_event_transactional,
    wait_timer,
    workflow,
)
from tests.acceptance.conftest import Apps
from tests.acceptance.support import SOON

URL = "sqlite:///:memory:"

# -- calling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "words"), [(None, "None"), (1, "of type int"), ({}, "of type dict")])
def test_an_activity_is_called_with_its_context_first(first: Any, words: str) -> None:
    @activity
    async def charge(ctx: WorkflowContext, amount: int = 1) -> None: ...

    with pytest.raises(TypeError) as caught:
        charge(first)
    assert str(caught.value) == (
        "activity charge is called in a workflow function, with its context first: await charge(ctx, ...). "
        f"Here its first argument is {words}."
    )


async def test_a_workflow_is_started_and_not_called() -> None:
    @workflow
    async def order(ctx: WorkflowContext, amount: int) -> None: ...

    unknown: Any = None
    with pytest.raises(
        TypeError, match=r"workflow order was called.*is None.*To start it, await order\.start\(\.\.\.\)"
    ):
        await order(unknown, 3)


async def test_what_takes_a_context_says_so() -> None:
    unknown: Any = "order-1"
    with pytest.raises(TypeError, match=r"first argument must be the context.*of type str"):
        await wait_timer(unknown, 1)


UNSENDABLE: list[tuple[dict[str, Any], str]] = [
    ({"event_source": "http://[x"}, "source must be a URI reference"),
    ({"event_source": "a%zz"}, "source must be a URI reference"),
    ({"event_type": "misuse.\ufdd0"}, "type"),
    ({"event_type": ""}, "event_type must be a text of 1 to 255 characters"),
    ({"content_type": "no media type"}, "no media type"),
    ({"content_type": "text/plain"}, "needs a datacontenttype that says so"),
    ({"content_type": "application/json", "event_data": b"{"}, "not valid JSON"),
    ({"content_type": "application/cloudevents+json", "event_data": b"{}"}, "itself a CloudEvent"),
    ({"event_data": functools.reduce(lambda inner, _: {"in": inner}, range(70), {})}, "nested more than 64 deep"),
]


@pytest.mark.parametrize("place", ["body", "activity"])
async def test_an_event_that_no_receiver_would_take_is_refused_where_it_is_sent(apps: Apps, place: str) -> None:
    """Not when it is delivered, as a dead letter that nobody looks at; and the attempt is not repeated."""
    attempts: list[int] = []
    good = {"event_type": "misuse.sent", "event_source": "misuse", "event_data": {}}

    @activity
    async def announce(ctx: WorkflowContext, number: int) -> None:
        attempts.append(number)
        await send_event_transactional(ctx, **(good | UNSENDABLE[number][0]))

    @workflow
    async def misuse_sends(ctx: WorkflowContext, number: int) -> None:
        if place == "activity":
            await announce(ctx, number)
        else:
            await send_event_transactional(ctx, **(good | UNSENDABLE[number][0]))

    app = await apps.open()
    for number, (_, words) in enumerate(UNSENDABLE):
        handle = await app.start(misuse_sends, number)
        with pytest.raises(InvalidEventError, match=re.escape(words)) as caught:
            await handle.result(timeout=SOON)
        assert f"workflow instance '{handle}'" in str(caught.value)
    assert attempts == (list(range(len(UNSENDABLE))) if place == "activity" else [])


async def test_names_of_events_may_be_members_of_enums(apps: Apps) -> None:
    class Kind(enum.StrEnum):
        PAID = "misuse.paid"

    await apps.open()
    await send_event(Kind.PAID, Kind.PAID, {}, subject=Kind.PAID)


async def test_an_attribute_error_of_the_function_itself_is_not_taken_for_misuse(apps: Apps) -> None:
    @workflow
    async def order(ctx: WorkflowContext) -> None:
        nothing: Any = None
        nothing.amount()

    handle = await (await apps.open()).start(order)
    with pytest.raises(AttributeError, match="amount"):
        await handle.result(timeout=SOON)


# -- declaring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("declare", [workflow, activity, compensation])
def test_a_function_that_takes_no_context_is_refused_when_it_is_declared(declare: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"{declare.__name__} by_id\(\) has to take the context first.*'order_id'.*str"
    ):

        @declare
        async def by_id(order_id: str) -> None: ...

    with pytest.raises(TypeError, match=rf"{declare.__name__} numbers\(\) yields"):

        @declare
        async def numbers(ctx: WorkflowContext) -> Any:
            yield 1

    with pytest.raises(TypeError, match=rf"{declare.__name__} Shop\.by_method\(\) is a method"):

        class Shop:
            @declare
            async def by_method(self, ctx: WorkflowContext) -> None: ...


@pytest.mark.parametrize("declare", [activity, compensation])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timeout": "5"}, TypeError, "timeout of .* paid must be a number of seconds, not '5'"),
        ({"timeout": 0}, ValueError, "timeout of .* paid must be a finite number of seconds, more than 0, not 0"),
        ({"retry_policy": 3}, TypeError, r"retry_policy of .* paid must be a RetryPolicy\(\.\.\.\) or None, not 3"),
    ],
)
def test_options_of_an_attempt(declare: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):

        @declare(**options)
        async def paid(ctx: WorkflowContext) -> None: ...


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"initial_interval": "1"}, "initial_interval of a RetryPolicy must be a number, not '1'"),
        ({"max_duration": "1"}, "max_duration of a RetryPolicy must be a number of seconds, or None, not '1'"),
        ({"max_attempts": "3"}, "max_attempts of a RetryPolicy must be a whole number, or None, not '3'"),
        (
            {"retryable_error_types": [ValueError]},
            "retryable_error_types of a RetryPolicy must be a tuple of exception",
        ),
    ],
)
def test_options_of_a_retry_policy(options: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        RetryPolicy(**options)


# -- the app ---------------------------------------------------------------------------------------------------------


def test_the_url_of_the_database_is_not_the_first_parameter() -> None:
    with pytest.raises(ValueError, match=r'EddaApp\(db_url="postgresql://') as caught:
        EddaApp("postgresql://edda:secret@localhost/shop")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "error", "bound"),
    [
        ("default_retry_policy", 3, TypeError, "a RetryPolicy"),
        ("max_running", 0, ValueError, "1 or more"),
        ("max_running", 1.5, TypeError, "a whole number"),
        ("max_activities", 0, ValueError, "1 or more"),
        ("activity_threads", 0, ValueError, "1 or more"),
        ("max_residents", -1, ValueError, "0 or more"),
        ("max_payload_bytes", 0, ValueError, "1 or more"),
        ("session_pool_size", 0, ValueError, "1 or more"),
        ("poll_seconds", -1, ValueError, "more than 0"),
        ("poll_seconds", "1", TypeError, "a number of seconds"),
        ("lease_seconds", 0.1, ValueError, "1 or more"),
        ("lease_seconds", "30", TypeError, "a number of seconds"),
        ("loop_stall_seconds", 0, ValueError, "1 or more"),
        ("session_hold_seconds", 0, ValueError, "more than 0"),
        ("shutdown_grace_seconds", -1, ValueError, "0 or more"),
        ("service_name", 7, TypeError, "a str"),
    ],
)
def test_an_option_of_the_app(option: str, value: Any, error: type[Exception], bound: str) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(error, match=rf"^{option} must be .*{bound}.*not {value!r}"):
        EddaApp(db_url=URL, **options)


def test_hooks_may_be_any_object() -> None:
    EddaApp(db_url=URL, hooks=object())


# -- ids -------------------------------------------------------------------------------------------------------------


@workflow
async def parcel(ctx: WorkflowContext, number: int) -> int:
    return number


@workflow
async def letter(ctx: WorkflowContext, number: int) -> int:
    return number


def test_options_of_a_start() -> None:
    number: Any = 7
    with pytest.raises(TypeError, match=r'an instance id is a str, not 7.*id=str\(7\).*f"order-'):
        parcel.options(id=number)
    ignore: Any = "ignore"
    with pytest.raises(ValueError, match="on_conflict must be 'error' or 'return', not 'ignore'"):
        parcel.options(on_conflict=ignore)


async def test_an_instance_of_another_workflow_is_never_returned(apps: Apps) -> None:
    app = await apps.open()
    handle = await parcel.options(id="order-1").on(app).start(1)
    assert await parcel.options(id=handle, on_conflict="return").on(app).start(2) == handle
    with pytest.raises(ConflictError, match=r"'order-1'.*with workflow 'parcel'.*as one of 'letter'") as caught:
        await letter.options(id="order-1", on_conflict="return").on(app).start(1)
    assert caught.value.instance_id == "order-1"


# -- compensations ---------------------------------------------------------------------------------------------------


class Receipt(BaseModel):
    payment_id: str


@compensation
async def refund(ctx: WorkflowContext, payment_id: str) -> None: ...


@pytest.mark.parametrize("returns", [None, str, int, float, bool, "None", "str", "list[int]"])
def test_a_parameter_that_nothing_can_supply_is_refused(returns: Any) -> None:
    async def pay(ctx: WorkflowContext, amount: int) -> Any: ...

    pay.__annotations__["return"] = returns
    with pytest.raises(TypeError, match=r"compensation refund\(\) needs 'payment_id'.*pay\(\).*as 'result'"):
        on_failure(refund)(pay)  # type: ignore[arg-type]


@pytest.mark.parametrize("returns", [dict, dict[str, str], Receipt, "Receipt", Any, object, "Later", str | None])
def test_a_result_that_may_supply_it_passes(returns: Any) -> None:
    async def pay(ctx: WorkflowContext, amount: int) -> Any: ...

    pay.__annotations__["return"] = returns
    on_failure(refund)(pay)  # type: ignore[arg-type]


async def test_what_is_no_function_is_no_compensation() -> None:
    words = r"takes a compensation, and 7 is none: declare .* with @compensation"
    number: Any = 7
    with pytest.raises(TypeError, match=rf"^on_failure\(\) {words}"):
        on_failure(number)
    with pytest.raises(TypeError, match=rf"^register_compensation\(\) {words}"):
        await register_compensation(number, number)
    with pytest.raises(TypeError, match=r"a compensation is a function.*not 7"):
        compensation(number)


async def test_an_activity_may_undo_another_one(apps: Apps) -> None:
    undone: list[int] = []

    @activity(retry_policy=RetryPolicy(max_attempts=1))
    async def unpay(ctx: WorkflowContext, amount: int) -> None:
        undone.append(amount)

    @activity
    @on_failure(unpay)
    async def pay(ctx: WorkflowContext, amount: int) -> None: ...

    @workflow
    async def order(ctx: WorkflowContext) -> None:
        await pay(ctx, 5)
        raise RuntimeError("declined")

    handle = await (await apps.open()).start(order)
    with pytest.raises(RuntimeError, match="declined"):
        await handle.result(timeout=SOON)
    assert undone == [5]


async def test_an_event_that_nobody_could_receive_is_refused_where_it_is_sent(apps: Apps) -> None:
    await apps.open()
    for event_type, source in (
        ("", "x"),
        ("a b", "x"),
        ("a", "my source"),
        ("a", "x\n"),
        ("a" * 256, "x"),
        ("a", "\ud800"),
    ):
        with pytest.raises(ValueError, match="must"):
            await send_event(event_type, source, {})
    with pytest.raises(SerializationError, match="JSON"):
        await send_event("a", "x", {"n": float("nan")})
    with pytest.raises(SerializationError, match="JSON"):
        await send_event("a", "x", {"o": object()})


async def test_an_empty_id_of_a_call_is_refused_where_it_is_made(apps: Apps) -> None:
    @activity
    async def unnamed(ctx: WorkflowContext) -> None: ...

    @workflow
    async def naming(ctx: WorkflowContext) -> str:
        with pytest.raises(ValueError, match="the id of a call is empty: leave it out"):
            await unnamed(ctx, activity_id="")
        return "refused"

    handle = await (await apps.open()).start(naming)
    assert await handle.result(timeout=SOON) == "refused"
