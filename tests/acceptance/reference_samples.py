"""The code of the reference's README, as it stands there (indentation restored), and what each sample lacks to run.

A sample runs as a program whose top level may await. Before it comes `given`: the imports and the outside world that
the README takes for granted; after it `then`, which uses what it defines. A sample that uses `ctx` without defining it
is what stands in a workflow: it becomes the body of one, `in_a_workflow`, and `returns` is its result.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One block of the README."""

    code: str
    given: str = ""
    then: str = ""
    needs: str = "sqlite"
    returns: str = ""


QUICK_START = Sample(
    """
from edda import EddaApp, workflow, activity, WorkflowContext

@activity
async def process_payment(ctx: WorkflowContext, amount: float):
    # Durable execution - automatically recorded in history
    print(f"Processing payment: ${amount}")
    return {"status": "paid", "amount": amount}

@workflow
async def order_workflow(ctx: WorkflowContext, order_id: str, amount: float):
    # Workflow orchestrates activities with automatic retry on crash
    result = await process_payment(ctx, amount)
    return {"order_id": order_id, **result}

# Simplified example - production code needs:
# 1. await app.initialize() before starting workflows
# 2. try-finally with await app.shutdown() for cleanup
# 3. PostgreSQL or MySQL for multi-process/multi-pod deployments
app = EddaApp(db_url="sqlite:///workflow.db")

# Start workflow
instance_id = await order_workflow.start(order_id="ORD-123", amount=99.99)
""",
    then="""
try:
    result = await instance_id.result(timeout=15)
    recorded = await results_of(app.handle(instance_id))
finally:
    await app.shutdown()
assert result == {"order_id": "ORD-123", "status": "paid", "amount": 99.99}
assert recorded == {"process_payment:1": {"status": "paid", "amount": 99.99}}
""",
)

WORKFLOWS_AND_ACTIVITIES = Sample(
    """
from edda import workflow, activity, WorkflowContext

@activity
async def send_email(ctx: WorkflowContext, email: str, message: str):
    # Business logic - this will be recorded
    print(f"Sending email to {email}")
    return {"sent": True}

@workflow
async def user_signup(ctx: WorkflowContext, email: str):
    # Orchestration logic
    await send_email(ctx, email, "Welcome!")
    return {"status": "completed"}
""",
    then="""
async with EddaApp(db_url="sqlite:///workflow.db") as app:
    handle = await user_signup.start("ada@example.com")
    assert await handle.result(timeout=15) == {"status": "completed"}
    assert await results_of(handle) == {"send_email:1": {"sent": True}}
""",
)

DURABLE_EXECUTION = Sample(
    """
@workflow
async def long_running_workflow(ctx: WorkflowContext, user_id: str):
    # Activity 1: Recorded in history
    result1 = await create_user(ctx, user_id)

    # If process crashes here, activity won't re-execute on restart

    # Activity 2: Continues from history on restart
    result2 = await send_welcome_email(ctx, result1["email"])
    return result2
""",
    given="""
from edda import activity, workflow, WorkflowContext
runs = []

@activity
async def create_user(ctx: WorkflowContext, user_id: str):
    runs.append("create_user")
    return {"email": f"{user_id}@example.com"}

@activity
async def send_welcome_email(ctx: WorkflowContext, email: str):
    runs.append("send_welcome_email")
    if len(runs) == 2:
        in_the_second.set()
        await asyncio.Event().wait()
    return f"sent to {email}"

in_the_second = asyncio.Event()
""",
    then="""
async with EddaApp(db_url="sqlite:///workflow.db", shutdown_grace_seconds=0) as app:
    handle = await app.start(long_running_workflow, "ada")
    await asyncio.wait_for(in_the_second.wait(), 15)
async with EddaApp(db_url="sqlite:///workflow.db") as app:
    assert await app.handle(handle).result(timeout=15) == "sent to ada@example.com"
assert runs == ["create_user", "send_welcome_email", "send_welcome_email"]
""",
)

RETRY_BY_DEFAULT = Sample(
    """
from edda import activity, WorkflowContext

@activity
async def call_external_api(ctx: WorkflowContext, url: str):
    # Automatically retries up to 5 times with exponential backoff
    # Delays: 1s, 2s, 4s, 8s, 16s
    response = await httpx.get(url, timeout=10)
    return response.json()
""",
    given="""
class httpx:
    calls = 0

    async def get(url, timeout):
        httpx.calls += 1
        if httpx.calls < 3:
            raise ConnectionError(f"call {httpx.calls}")
        return httpx

    def json():
        return {"call": httpx.calls}
""",
    then="""
from edda import workflow

@workflow
async def calling(ctx: WorkflowContext):
    return await call_external_api(ctx, "https://example.com")

async with EddaApp(db_url="sqlite:///workflow.db") as app:
    handle = await calling.start()
    assert await handle.result(timeout=15) == {"call": 3}
    (event,) = await events_of(handle, "ActivityCompleted")

# "Retry metadata for observability"
assert event.event_type == "ActivityCompleted"
assert event.event_data["activity_name"] == "call_external_api"
assert event.event_data["result"] == {"call": 3}
metadata = event.event_data["retry_metadata"]
assert metadata["total_attempts"] == 3
assert metadata["total_duration_ms"] >= 3000
assert metadata["last_error"]["message"] == "call 2"
assert metadata["exhausted"] is False
assert len(metadata["errors"]) == 2
""",
)

RETRY_OF_AN_ACTIVITY = Sample(
    """
from edda import activity, RetryPolicy, WorkflowContext

@activity(retry_policy=RetryPolicy(
    max_attempts=3,
    initial_interval=0.5,
    backoff_coefficient=2.0,
    max_interval=10.0,
    max_duration=60.0
))
async def flaky_operation(ctx: WorkflowContext, data: dict):
    # Custom: 3 attempts, delays 0.5s, 1s, 2s
    return await external_service.process(data)
""",
    given="""
class external_service:
    calls = 0

    async def process(data):
        external_service.calls += 1
        raise ConnectionError("away")
""",
    then="""
from edda import RetryExhaustedError, workflow

@workflow
async def operating(ctx: WorkflowContext):
    return await flaky_operation(ctx, {"a": 1})

async with EddaApp(db_url="sqlite:///workflow.db") as app:
    handle = await operating.start()
    try:
        await handle.result(timeout=15)
    except RetryExhaustedError:
        pass
    assert await handle.status() == "failed"
assert external_service.calls == 3
""",
)

RETRY_OF_AN_APP = Sample(
    """
from edda import EddaApp, RetryPolicy

app = EddaApp(
    db_url="sqlite:///workflow.db",
    default_retry_policy=RetryPolicy(
        max_attempts=10,
        initial_interval=2.0
    )
)
""",
    then="""
from edda import activity, workflow, WorkflowContext
times = []

@activity
async def flaky(ctx: WorkflowContext):
    times.append(time.monotonic())
    if len(times) == 1:
        raise ConnectionError("away")

@workflow
async def trying(ctx: WorkflowContext):
    await flaky(ctx)

async with app:
    await (await trying.start()).result(timeout=15)
assert 2.0 <= times[1] - times[0] < 4
""",
)

TERMINAL_ERROR = Sample(
    """
from edda import activity, TerminalError, WorkflowContext

@activity
async def validate_user(ctx: WorkflowContext, user_id: str):
    user = await get_user(user_id)
    if user is None:
        # Immediately fail without retry (user doesn't exist)
        raise TerminalError(f"User {user_id} not found")
    return user
""",
    given="""
asked = []

async def get_user(user_id):
    asked.append(user_id)
    return {"name": "Ada"} if user_id == "ada" else None
""",
    then="""
from edda import workflow

@workflow
async def validating(ctx: WorkflowContext, user_id: str):
    return await validate_user(ctx, user_id)

async with EddaApp(db_url="sqlite:///workflow.db") as app:
    assert await validating.run("ada") == {"name": "Ada"}
    handle = await validating.start("nobody")
    try:
        await handle.result(timeout=15)
    except TerminalError as error:
        assert str(error) == "User nobody not found"
    assert await handle.status() == "failed"
assert asked == ["ada", "nobody"]
""",
)

SAGA = Sample(
    """
from edda import activity, on_failure, compensation, workflow, WorkflowContext

@compensation
async def cancel_reservation(ctx: WorkflowContext, item_id: str):
    # Automatically called on workflow failure (reverse order)
    print(f"Cancelled reservation for {item_id}")
    return {"cancelled": True}

@activity
@on_failure(cancel_reservation)
async def reserve_inventory(ctx: WorkflowContext, item_id: str):
    print(f"Reserved {item_id}")
    return {"reserved": True}

@workflow
async def order_workflow(ctx: WorkflowContext, item1: str, item2: str):
    await reserve_inventory(ctx, item1)  # Step 1: Reserve item1
    await reserve_inventory(ctx, item2)  # Step 2: Reserve item2
    await charge_payment(ctx)            # Step 3: If this fails...
    # Compensation runs: cancel item2 → cancel item1 (reverse order)
""",
    given="""
from edda import TerminalError, activity, WorkflowContext
printed = []
print = printed.append

@activity
async def charge_payment(ctx: WorkflowContext):
    raise TerminalError("card refused")
""",
    then="""
async with EddaApp(db_url="sqlite:///workflow.db") as app:
    handle = await order_workflow.start("hat", "coat")
    try:
        await handle.result(timeout=15)
    except TerminalError:
        pass
    assert await handle.status() == "failed"
assert printed == [
    "Reserved hat", "Reserved coat", "Cancelled reservation for coat", "Cancelled reservation for hat",
]
""",
)

MULTI_WORKER = Sample(
    """
# Worker 1 and Worker 2 can run simultaneously
# Only one will acquire the lock for each workflow instance
app = EddaApp(
    db_url="postgresql://localhost/workflows",  # Shared database for coordination
    service_name="order-service"
)
""",
    given="from edda import EddaApp",
    then="""
from edda import activity, workflow, WorkflowContext
runs = []

@activity
async def step(ctx: WorkflowContext):
    runs.append(ctx.instance_id)
    return ctx.worker_id

@workflow
async def order(ctx: WorkflowContext):
    return [await step(ctx), await step(ctx)]

other = EddaApp(db_url="postgresql://localhost/workflows", service_name="order-service")
async with app, other:
    handles = [await worker.start(order) for worker in (app, other) for _ in range(5)]
    for handle in handles:
        assert len(set(await handle.result(timeout=15))) == 1
        assert len(await results_of(handle)) == 2
assert sorted(runs) == sorted(handles * 2)
""",
    needs="postgresql",
)

PYDANTIC = Sample(
    """
from pydantic import BaseModel, Field
from edda import workflow, WorkflowContext

class OrderItem(BaseModel):
    item_id: str
    quantity: int = Field(..., ge=1)
    price: float = Field(..., gt=0)

@workflow
async def process_order(ctx: WorkflowContext, items: list[OrderItem]) -> dict:
    # Automatic validation before workflow starts
    total = sum(item.price * item.quantity for item in items)
    return {"total": total, "item_count": len(items)}
""",
    then="""
from pydantic import ValidationError

async with EddaApp(db_url="sqlite:///workflow.db") as app:
    handle = await process_order.start([OrderItem(item_id="pen", quantity=2, price=1.5)])
    assert await handle.result(timeout=15) == {"total": 3.0, "item_count": 1}
    assert await process_order.run(items=[{"item_id": "pen", "quantity": 1, "price": 4}]) == {
        "total": 4.0, "item_count": 1,
    }
    try:
        await process_order.start(items=[{"item_id": "pen", "quantity": 0, "price": 4}])
    except ValidationError:
        rejected = True
assert rejected
assert await table("SELECT status FROM edda_instance") == [("completed",)] * 2
""",
)

OUTBOX = Sample(
    """
from edda import activity, send_event_transactional, WorkflowContext

@activity  # Automatically transactional
async def create_order(ctx: WorkflowContext, order_id: str):
    # All operations in a single transaction:
    # 1. Activity execution
    # 2. History recording
    # 3. Event publishing (outbox table)
    await send_event_transactional(
        ctx,
        event_type="order.created",
        event_source="order-service",
        event_data={"order_id": order_id}
    )
    return {"order_id": order_id}
""",
    then="""
from edda import workflow

@workflow
async def ordering(ctx: WorkflowContext):
    return await create_order(ctx, "ORD-1")

async with EddaApp(db_url="sqlite:///workflow.db", outbox_enabled=True) as app:
    handle = await ordering.start()
    assert await handle.result(timeout=15) == {"order_id": "ORD-1"}
(event,) = await table("SELECT type, source, data, status FROM edda_outbox")
assert (event[0], event[1], json.loads(event[2]), event[3]) == (
    "order.created", "order-service", {"order_id": "ORD-1"}, "pending",
)
""",
)

OUTBOX_WITH_SESSION = Sample(
    """
@activity  # Edda manages the transaction
async def process_payment(ctx: WorkflowContext, order_id: str, amount: float):
    # Access Edda-managed session (same database as Edda)
    session = ctx.session

    # Your business logic
    payment = Payment(order_id=order_id, amount=amount)
    session.add(payment)

    # Edda event (same transaction)
    await send_event_transactional(
        ctx,
        event_type="payment.processed",
        event_source="payment-service",
        event_data={"order_id": order_id, "amount": amount}
    )

    # Edda automatically commits: your data + Edda's outbox (atomic!)
    return {"payment_id": f"PAY-{order_id}"}
""",
    given="""
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from edda import activity, send_event_transactional, workflow, WorkflowContext

class Base(DeclarativeBase): ...

class Payment(Base):
    __tablename__ = "payments"
    order_id: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[float]

@activity
async def create_tables(ctx: WorkflowContext):
    connection = await ctx.session.connection()
    await connection.run_sync(Base.metadata.create_all)
""",
    then="""
@workflow
async def paying(ctx: WorkflowContext):
    await create_tables(ctx)
    return await process_payment(ctx, "ORD-1", 9.5)

async with EddaApp(db_url="sqlite:///workflow.db", outbox_enabled=True) as app:
    handle = await paying.start()
    assert await handle.result(timeout=15) == {"payment_id": "PAY-ORD-1"}
assert await table("SELECT order_id, amount FROM payments") == [("ORD-1", 9.5)]
assert await table("SELECT type FROM edda_outbox") == [("payment.processed",)]
""",
)

HOOKS = Sample(
    """
from edda import EddaApp

class MyHooks:
    async def on_workflow_start(self, instance_id, workflow_name, input_data):
        print(f"Workflow {workflow_name} started: {instance_id}")

    async def on_workflow_complete(self, instance_id, workflow_name, result):
        print(f"Workflow {workflow_name} completed")

    async def on_activity_complete(self, instance_id, activity_id, activity_name, result, cache_hit):
        print(f"Activity {activity_name} completed (cache_hit={cache_hit})")

app = EddaApp(
    db_url="sqlite:///workflow.db",
    service_name="my-service",
    hooks=MyHooks()
)
""",
    given="""
printed = []
print = printed.append
""",
    then="""
from edda import activity, workflow, WorkflowContext

@activity
async def charge(ctx: WorkflowContext): ...

@workflow
async def order(ctx: WorkflowContext):
    await charge(ctx)

async with app:
    handle = await order.start()
    await handle.result(timeout=15)
    await eventually(lambda: len(printed) == 3)
assert printed == [
    f"Workflow order started: {handle}",
    "Activity charge completed (cache_hit=False)",
    "Workflow order completed",
]
""",
)

CLOUD_EVENTS = Sample(
    """
from edda import EddaApp

app = EddaApp(
    db_url="sqlite:///workflow.db",
    service_name="order-service",
    outbox_enabled=True  # Enable transactional outbox
)

# Accepts CloudEvents at any HTTP path
""",
    then="""
from edda import wait_event, workflow, WorkflowContext

@workflow
async def paid(ctx: WorkflowContext):
    return (await wait_event(ctx, "payment.completed")).data

async with app:
    handle = await paid.start()
    assert await post(app, "/any/path/at/all", "payment.completed", {"amount": 5}) == 202
    assert await handle.result(timeout=15) == {"amount": 5}
    assert await post(app, "/", "nobody.waits.for.it", {}) == 202
    assert await post(app, "/", "", {}) == 400
""",
)

EVENT_WAITING = Sample(
    """
from edda import workflow, wait_event, send_event, WorkflowContext

@workflow
async def payment_workflow(ctx: WorkflowContext, order_id: str):
    # Send payment request event
    await send_event("payment.requested", "payment-service", {"order_id": order_id})

    # Wait for payment completion event (process-releasing)
    payment_event = await wait_event(ctx, "payment.completed")
    return payment_event.data
""",
    then="""
@workflow
async def payment_service(ctx: WorkflowContext):
    return (await wait_event(ctx, "payment.requested")).data

async with EddaApp(db_url="sqlite:///workflow.db") as app:
    service = await app.start(payment_service)
    handle = await app.start(payment_workflow, "ORD-1")
    assert await service.result(timeout=15) == {"order_id": "ORD-1"}
    await reaches(handle, "waiting_for_event")
async with EddaApp(db_url="sqlite:///workflow.db") as app:
    await send_event("payment.completed", "bank", {"amount": 5})
    assert await app.handle(handle).result(timeout=15) == {"amount": 5}
assert await table("SELECT type FROM edda_inbox ORDER BY accepted_at_us") == [
    ("payment.requested",), ("payment.completed",),
]
""",
)

TIMER_WAITING = Sample(
    """
from edda import wait_timer

@workflow
async def order_with_timeout(ctx: WorkflowContext, order_id: str):
    # Create order
    await create_order(ctx, order_id)

    # Wait 60 seconds for payment
    await wait_timer(ctx, duration_seconds=60)

    # Check payment status
    return await check_payment(ctx, order_id)
""",
    given="""
from edda import activity, workflow, WorkflowContext
runs = []

@activity
async def create_order(ctx: WorkflowContext, order_id: str):
    runs.append("create_order")

@activity
async def check_payment(ctx: WorkflowContext, order_id: str):
    runs.append("check_payment")
    return "paid"
""",
    then="""
async with EddaApp(db_url="sqlite:///workflow.db") as app:
    handle = await app.start(order_with_timeout, "ORD-1")
    await reaches(handle, "waiting_for_timer")
((due_us,),) = await table("SELECT claimable_at_us FROM edda_instance")
assert 50 < due_us / 1e6 - time.time() <= 60
await seconds_pass(60)
async with EddaApp(db_url="sqlite:///workflow.db") as app:
    assert await app.handle(handle).result(timeout=15) == "paid"
assert runs == ["create_order", "check_payment"]
""",
)

ASGI_MOUNT = Sample(
    """
from fastapi import FastAPI
from edda import EddaApp

# Create FastAPI app
api = FastAPI()

# Create Edda app
edda_app = EddaApp(db_url="sqlite:///workflow.db")

# Mount Edda at /workflows path
api.mount("/workflows", edda_app)

# Now Edda handles all requests under /workflows/*
# POST /workflows/any-path -> CloudEvents handler
# POST /workflows/cancel/{instance_id} -> Cancellation
""",
    then="""
from edda import wait_event, workflow, WorkflowContext

@workflow
async def paid(ctx: WorkflowContext):
    return (await wait_event(ctx, "payment.completed")).data

assert await post(api, "/workflows/any-path", "nobody.waits", {}) == 202  # and with that the app has begun
one, other = await paid.start(), await paid.start()
assert await post(api, f"/workflows/cancel/{other}", None, None) == 202
await reaches(other, "cancelled")
assert await post(api, "/workflows/any-path", "payment.completed", {"amount": 5}) == 202
assert await one.result(timeout=15) == {"amount": 5}
await edda_app.shutdown()
""",
)

MESSAGES = """
from edda import workflow, WorkflowContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

file = descriptor_pb2.FileDescriptorProto(name="orders.proto", syntax="proto3")
for name in ("OrderCreated", "PaymentCompleted"):
    message = file.message_type.add(name=name)
    message.field.add(name="order_id", number=1, type=9, label=1)
    message.field.add(name="amount", number=2, type=1, label=1)
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
OrderCreated, PaymentCompleted = (
    message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in ("OrderCreated", "PaymentCompleted")
)
completed = PaymentCompleted(order_id="123", amount=99.99)
"""

JSON_DATA = Sample(
    """
from google.protobuf import json_format
from edda import send_event, wait_event

# Send: Protobuf → JSON dict
msg = OrderCreated(order_id="123", amount=99.99)
await send_event("order.created", "orders", json_format.MessageToDict(msg))

# Receive: JSON dict → Protobuf
event = await wait_event(ctx, "payment.completed")
payment = json_format.ParseDict(event.data, PaymentCompleted())
""",
    given=MESSAGES,
    returns="[payment.order_id, payment.amount, event.data]",
    then="""
from google.protobuf import json_format
from edda import send_event

async with EddaApp(db_url="sqlite:///workflow.db") as app:
    handle = await in_a_workflow.start()
    sent = json_format.MessageToDict(completed)
    await send_event("payment.completed", "bank", sent)
    assert await handle.result(timeout=15) == ["123", 99.99, sent]
((data, blob),) = await table("SELECT data, bytes FROM edda_inbox WHERE type = 'order.created'")
assert json.loads(data) == {"orderId": "123", "amount": 99.99}
assert blob is None
""",
)

BINARY_DATA = Sample(
    """
from edda import send_event, wait_event

# Send binary data (e.g., Protobuf)
msg = OrderCreated(order_id="123", amount=99.99)
await send_event("order.created", "orders", msg.SerializeToString())  # bytes → BLOB

# Receive binary data
event = await wait_event(ctx, "payment.completed")
payment = PaymentCompleted()
payment.ParseFromString(event.data)  # bytes from BLOB
""",
    given=MESSAGES,
    returns="[payment.order_id, payment.amount, event.data]",
    then="""
from edda import send_event

async with EddaApp(db_url="sqlite:///workflow.db") as app:
    handle = await in_a_workflow.start()
    sent = completed.SerializeToString()
    await send_event("payment.completed", "bank", sent)
    assert await handle.result(timeout=15) == ["123", 99.99, sent]
((data, blob),) = await table("SELECT data, bytes FROM edda_inbox WHERE type = 'order.created'")
assert data is None
assert blob == OrderCreated(order_id="123", amount=99.99).SerializeToString()
""",
)

SAMPLES = {
    "quick_start": QUICK_START,
    "workflows_and_activities": WORKFLOWS_AND_ACTIVITIES,
    "durable_execution": DURABLE_EXECUTION,
    "retry_by_default": RETRY_BY_DEFAULT,
    "retry_of_an_activity": RETRY_OF_AN_ACTIVITY,
    "retry_of_an_app": RETRY_OF_AN_APP,
    "terminal_error": TERMINAL_ERROR,
    "saga": SAGA,
    "multi_worker": MULTI_WORKER,
    "pydantic": PYDANTIC,
    "outbox": OUTBOX,
    "outbox_with_session": OUTBOX_WITH_SESSION,
    "cloud_events": CLOUD_EVENTS,
    "event_waiting": EVENT_WAITING,
    "timer_waiting": TIMER_WAITING,
    "asgi_mount": ASGI_MOUNT,
    "hooks": HOOKS,
    "json_data": JSON_DATA,
    "binary_data": BINARY_DATA,
}
