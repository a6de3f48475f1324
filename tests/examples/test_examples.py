"""Every example as a program: started as its README says, spoken to over HTTP, killed where it says that it may be."""

import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.examples.server import ROOT, Server

pytestmark = pytest.mark.process

Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[Server] = []

    def start(example: str, **environment: str) -> Server:
        servers.append(Server(example, tmp_path, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


def test_an_order_in_fastapi_is_paid_after_a_crash(serve: Serve) -> None:
    shop = serve("fastapi_orders")
    for _ in range(2):  # a repeated request starts nothing twice
        shop.request("PUT", "/orders/7", params={"item": "lamp"})
    shop.reaches("/orders/7", status="waiting_for_event")
    shop.kill_and_start()
    shop.reaches("/orders/7", status="waiting_for_event")
    shop.event("/workflows/", "payment-0", "order.paid", {"order_id": "8", "cents": 1})
    shop.event("/workflows/", "payment-1", "order.paid", {"order_id": "7", "cents": 4900})
    shop.reaches("/orders/7", status="completed")
    shop.hears("7: shipped, for 4900 cents")
    assert shop.count("7: lamp is reserved") == 1
    assert shop.count("lamp is for sale again") == 0


def test_an_order_in_fastapi_that_is_cancelled_or_never_paid_releases_its_goods(serve: Serve) -> None:
    shop = serve("fastapi_orders", PAY_WITHIN_SECONDS="2")
    shop.request("PUT", "/orders/1", params={"item": "chair"})
    shop.request("DELETE", "/orders/1")
    shop.request("PUT", "/orders/2", params={"item": "table"})
    shop.reaches("/orders/1", status="cancelled")
    shop.reaches("/orders/2", status="failed")
    shop.hears("1: chair is for sale again")
    shop.hears("2: table is for sale again")


def test_the_demo_app_is_started_and_resumed_by_events(serve: Serve) -> None:
    app = serve("demo_app")
    for _ in range(2):
        app.event("/", "1", "order.created", {"order_id": "ORD-1"})
    app.hears("ORD-1 waits for its payment")
    app.is_waiting("demo.db")
    app.kill_and_start()
    app.event("/anywhere", "2", "payment.completed", {"order_id": "ORD-1", "amount": 99.99})
    app.event("/", "3", "customer.registered", {"name": "Ada"})
    app.hears("ORD-1 is paid: 99.99")
    app.hears("welcome, Ada")
    assert app.count("ORD-1 waits") == 1


def test_a_message_of_protobuf_comes_as_json_and_as_bytes(serve: Serve, tmp_path: Path) -> None:
    shop = serve("protobuf_events")
    for order in "AB":
        shop.event("/", order, "order.created", {"order_id": order})
    pay(shop, "A")
    shop.hears("A: 4900 cents, BANK-1")
    shop.kill_and_start()
    pay(shop, "B", "--binary")
    shop.hears("B: 4900 cents, BANK-1")
    with closing(sqlite3.connect(tmp_path / "payments.db")) as database:
        stored = dict(
            database.execute("SELECT subject, coalesce(data, bytes) FROM edda_inbox WHERE type = 'payment.completed'")
        )
    assert '"bankReference"' in stored["A"]
    assert stored["B"].startswith(b"\n\x01B\x10")


def pay(shop: Server, *arguments: str) -> None:
    command = [sys.executable, "-m", "examples.protobuf_events.pay", shop.url, *arguments]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("hotel", ["H-1", None], ids=["with a room", "without a room"])
def test_a_trip_is_booked_or_called_off_across_crashes(serve: Serve, hotel: str | None) -> None:
    trips = serve("saga_events")
    trips.event("/", "1", "trip.requested", {"trip_id": "rome"})
    trips.hears("rome: flight asked for")
    trips.is_waiting("trips.db")
    trips.kill_and_start()
    trips.event("/", "2", "partner.answered", {"trip_id": "rome", "part": "flight", "reference": "AZ-611"})
    trips.hears("rome: hotel asked for")
    trips.is_waiting("trips.db")
    trips.kill_and_start()
    trips.event("/", "3", "partner.answered", {"trip_id": "rome", "part": "hotel", "reference": hotel})
    if hotel is None:
        trips.hears("rome: flight called off")
        said = [line for line in trips.said if line.startswith("rome")]
        assert said == [
            "rome: flight asked for",
            "rome: hotel asked for",
            "rome: hotel called off",
            "rome: flight called off",
        ]
    else:
        assert trips.result("trips.db") == ["AZ-611", "H-1"]


def test_a_human_being_answers_by_the_link_that_was_printed(serve: Serve) -> None:
    expenses = serve("approval")
    expenses.request("PUT", "/expenses/1", params={"who": "Ann", "cents": 4900})
    path = expenses.hears(r"http://localhost:8000(/workflows/callback/\S+)")
    expenses.reaches("/expenses/1", status="waiting_for_event")
    expenses.kill_and_start()
    expenses.request("POST", path, json={"approved": True})
    answer = expenses.reaches("/expenses/1", status="completed")
    assert answer["result"] == "Ann gets 4900 cents"
    assert expenses.count("Ann spent 4900 cents") == 1


def test_an_expense_is_refused_with_a_comment_or_nobody_answers(serve: Serve) -> None:
    expenses = serve("approval", ANSWER_WITHIN_SECONDS="4")
    expenses.request("PUT", "/expenses/1", params={"who": "Ann", "cents": 4900})
    path = expenses.hears(r"http://localhost:8000(/workflows/callback/\S+)")
    expenses.request("POST", path, json={"approved": False, "comment": "a lamp?"})
    assert expenses.reaches("/expenses/1", status="completed")["result"] == "Ann gets nothing: a lamp?"
    expenses.request("PUT", "/expenses/2", params={"who": "Bob", "cents": 1})
    assert expenses.reaches("/expenses/2", status="completed")["result"] == "Bob gets nothing: nobody answered"


@pytest.mark.parametrize("allowed", [True, False])
def test_an_agent_is_killed_while_it_waits_for_approval_and_repeats_nothing(serve: Serve, allowed: bool) -> None:
    model = serve("agent", DATABASE_URL="sqlite:///model.db")
    agent = serve("agent", OPENAI_BASE_URL=f"{model.url}/v1")
    agent.request("PUT", "/tasks/lamp", params={"task": "The lamp of order 7 is broken"})
    path = agent.hears(r"May I refund .*http://127.0.0.1:8000(/callback/\S+)")
    agent.reaches("/tasks/lamp", status="waiting_for_event")
    for _ in range(2):
        agent.kill_and_start()
    agent.request("POST", path, json={"approved": allowed})
    answer = agent.reaches("/tasks/lamp", status="completed")["result"]
    assert re.match("I looked into it. (Refunded 4900|A human being said no)", answer)
    assert agent.count("tool: look_up_order 7") == 1
    assert agent.count("tool: refund 7 4900") == allowed
    assert [line for line in model.said if line.startswith("model: ")] == [f"model: turn {turn}" for turn in (1, 2, 3)]


@pytest.mark.parametrize("readme", sorted((ROOT / "examples").glob("*/README.md")), ids=lambda path: path.parent.name)
def test_a_readme_of_an_example_begins_with_the_command_that_runs_it(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert re.match(r"# .+\n\n```(sh)?\n(uvicorn|./run) .+\n```\n", text), text[:200]
