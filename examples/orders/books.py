"""The books: what the shop, the bank and the workflows say in the end, and what they have to say.

`expected_books` computes them from the CSV files alone and shares no code with the workflow. `read_books` takes them from
the databases, row by row: a row that is there twice counts twice. `differences` compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import InstrumentedAttribute

from edda import EddaApp, InstanceNotFoundError
from examples.orders.bank import Bank
from examples.orders.models import Mail, Movement, Payment, Shipment, Stock, connect
from examples.orders.order import Article, Order
from examples.orders.refusals import COMPLETED, CardDeclined, OrderRefused, OutOfStock, Undeliverable

Effect = tuple[str | int, ...]
"""A row of the books, without what differs from run to run."""

MOVEMENTS, PAYMENTS, BANK, SHIPMENTS, MAILS = LEDGERS = (
    "stock movements",
    "payments",
    "bank entries",
    "shipments",
    "mails",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """How each order ended, how many articles are left, and how often each effect happened, by ledger."""

    outcomes: dict[str, str] = field(default_factory=dict[str, str])
    stock: dict[str, int] = field(default_factory=dict[str, int])
    effects: dict[str, Counter[Effect]] = field(
        default_factory=lambda: {ledger: Counter[Effect]() for ledger in LEDGERS}
    )

    def enter(self, ledger: str, *effect: str | int) -> None:
        self.effects[ledger][effect] += 1

    @property
    def rows(self) -> int:
        return sum(ledger.total() for ledger in self.effects.values())

    def cents(self, kind: str) -> int:
        """Money `captured` or `refunded`, as the bank says."""
        return sum(int(entry[2]) * times for entry, times in self.effects[BANK].items() if entry[1] == kind)


# -- what has to be ----------------------------------------------------------------------------------------------------


def expected_books(orders: Iterable[Order], articles: Iterable[Article]) -> Books:
    """What the CSV files say. It does not matter in which order the orders are handled: what is not sold out is enough."""
    available = {article.sku: article.available for article in articles}
    books = Books(stock=dict(available))
    for order in orders:
        books.outcomes[order.id] = _enter_expected(books, order, available)
    return books


def _enter_expected(books: Books, order: Order, available: dict[str, int]) -> str:
    in_stock = [item.quantity <= available[item.sku] for item in order.items]
    reserved = order.items[: in_stock.index(False)] if not all(in_stock) else order.items
    outcome = COMPLETED
    if not all(in_stock):
        outcome = OutOfStock.outcome
    elif order.card.startswith("tok_declined_"):
        outcome = CardDeclined.outcome
    elif order.city == "Longyearbyen":
        outcome = Undeliverable.outcome
    for item in reserved:
        books.enter(MOVEMENTS, order.id, "reserved", item.sku, item.quantity)
        if outcome == COMPLETED:
            books.stock[item.sku] -= item.quantity
        else:
            books.enter(MOVEMENTS, order.id, "released", item.sku, item.quantity)
    moves = {COMPLETED: ["captured"], Undeliverable.outcome: ["captured", "refunded"]}.get(outcome, [])
    for kind in moves:
        books.enter(PAYMENTS, order.id, kind, order.total_cents)
        books.enter(BANK, order.card, kind, order.total_cents)
    if outcome == COMPLETED:
        books.enter(SHIPMENTS, order.id, order.city)
    books.enter(MAILS, order.id, order.email, "confirmation" if outcome == COMPLETED else "apology")
    return outcome


# -- what is -----------------------------------------------------------------------------------------------------------


async def read_books(db_url: str, bank: Bank, orders: Iterable[Order]) -> Books:
    """What is in the databases now."""
    books = Books()
    async with EddaApp("orders-books", db_url, workflows=[]) as app:
        for order in orders:
            books.outcomes[order.id] = await _outcome(app, order.id)
    engine = connect(db_url)
    async with engine.connect() as shop:
        async for sku, available in _rows(shop, Stock.sku, Stock.available):
            books.stock[str(sku)] = int(available)
        async for row in _rows(shop, Movement.order_id, Movement.kind, Movement.sku, Movement.quantity):
            books.enter(MOVEMENTS, *row)
        async for row in _rows(shop, Payment.order_id, Payment.kind, Payment.amount_cents):
            books.enter(PAYMENTS, *row)
        async for row in _rows(shop, Shipment.order_id, Shipment.city):
            books.enter(SHIPMENTS, *row)
        async for row in _rows(shop, Mail.order_id, Mail.recipient, Mail.kind):
            books.enter(MAILS, *row)
    await engine.dispose()
    for entry in bank.statement():
        books.enter(BANK, *entry)
    return books
