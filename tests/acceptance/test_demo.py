"""The demo, `python -m examples.orders`: it ends well although its worker is killed, and its verifier can fail."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from examples.orders.bank import Bank
from examples.orders.books import BANK, Books, differences, expected_books, read_books
from examples.orders.order import read_orders, read_stock

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
ORDERS = 40


def demo(*options: str, within_seconds: float = 100.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.orders", "--orders", str(ORDERS), *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=within_seconds,
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The database of a demo that has run, and what it printed."""
    path = tmp_path_factory.mktemp("demo") / "shop.db"
    ran = demo("--kills", "2", "--keep", str(path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return path, ran.stdout


@pytest.fixture
def shop(kept: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of that database, to tamper with."""
    for file in kept[0].parent.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path / kept[0].name


def test_the_worker_is_killed_twice_and_the_books_are_right(kept: tuple[Path, str]) -> None:
    _, said = kept
    assert "The books are right:" in said
    assert said.count("SIGKILL to worker") == 2


def test_a_shop_with_orders_of_an_earlier_run_is_refused(shop: Path) -> None:
    ran = demo("--keep", str(shop))
    assert ran.returncode == 2
    assert "empty database" in ran.stdout


def tampered(statement: str) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            assert connection.execute(statement).rowcount == 1

    return tamper


COPY_A_MOVEMENT = """
insert into shop_movement (order_id, kind, sku, quantity)
select order_id, kind, sku, quantity from shop_movement where order_id = 'ORD-1003'
"""
COPY_A_MAIL = """
insert into shop_mail (order_id, kind, recipient, text)
select order_id, kind, recipient, text from shop_mail where order_id = 'ORD-1003'
"""
ERRORS = {
    "stock movements: ORD-1003 reserved POT-CAST 4: expected once, found twice": tampered(COPY_A_MOVEMENT),
    "mails: ORD-1003 jonas.marino@example.com confirmation: expected once, found twice": tampered(COPY_A_MAIL),
    "shipments: ORD-1001 Lisbon: expected once, found never": tampered(
        "delete from shop_shipment where order_id = 'ORD-1001'"
    ),
    "payments: ORD-1001 captured 14660: expected once, found never": tampered(
        "update shop_payment set amount_cents = 14661 where order_id = 'ORD-1001'"
    ),
    "stock of MUG-BLUE: expected": tampered("update shop_stock set available = available + 1 where sku = 'MUG-BLUE'"),
    "order ORD-1001: expected completed, found compensating": tampered(
        "update edda_instance set status = 'compensating' where id = 'ORD-1001'"
    ),
    "order ORD-1002: expected card declined, found never started": tampered(
        "delete from edda_instance where id = 'ORD-1002'"
    ),
}


@pytest.mark.parametrize("complaint", ERRORS)
async def test_the_verifier_notices(complaint: str, shop: Path) -> None:
    ERRORS[complaint](shop)
    complaints = await complaints_about(shop)
    assert any(line.startswith(complaint) for line in complaints), complaints


async def test_the_verifier_notices_money_that_moved_twice(shop: Path) -> None:
    copy = "insert into entry (key, card, kind, amount_cents) select 'x', card, kind, amount_cents from entry limit 1"
    tampered(copy)(shop.with_suffix(".bank.db"))
    (complaint,) = await complaints_about(shop)
    assert complaint.startswith("bank entries: ")
    assert complaint.endswith("expected once, found twice")


async def test_what_is_as_it_was_left_has_no_differences(shop: Path) -> None:
    assert await complaints_about(shop) == []


async def complaints_about(shop: Path) -> list[str]:
    orders = read_orders(ORDERS)
    found = await read_books(f"sqlite:///{shop}", Bank(shop.with_suffix(".bank.db")), orders)
    return differences(expected_books(orders, read_stock()), found)


def test_a_wrong_book_is_told_line_by_line_and_ends_with_1(shop: Path) -> None:
    tampered(COPY_A_MOVEMENT)(shop)
    ran = demo("--keep", str(shop), "--verify")
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == [
        "THE BOOKS ARE WRONG, 1 difference:",
        "  stock movements: ORD-1003 reserved POT-CAST 4: expected once, found twice",
    ]


# -- the shipped files -------------------------------------------------------------------------------------------------


def test_the_shipped_orders_add_up() -> None:
    prices = {article.sku: article.price_cents for article in read_stock()}
    for order in read_orders():
        assert order.total_cents == sum(prices[item.sku] * item.quantity for item in order.items), order.id


def test_orders_do_not_influence_each_other_because_there_is_enough_of_what_is_not_sold_out() -> None:
    available = {article.sku: article.available for article in read_stock()}
    demand = Counter[str]()
    for order in read_orders():
        for item in order.items:
            if item.quantity <= available[item.sku]:
                demand[item.sku] += item.quantity
    assert all(count <= available[sku] for sku, count in demand.items())


@pytest.mark.parametrize("count", [ORDERS, 300])
def test_every_outcome_is_among_the_expected_ones(count: int) -> None:
    books: Books = expected_books(read_orders(count), read_stock())
    assert set(books.outcomes.values()) == {"completed", "out of stock", "card declined", "undeliverable"}
    assert len({card for card, *_ in books.effects[BANK]}) == len(
        [outcome for outcome in books.outcomes.values() if outcome in ("completed", "undeliverable")]
    )
