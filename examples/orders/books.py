"""The books: what the shop, the bank and the workflows say in the end, and what they have to say.

`expected_books` computes them from the CSV files alone and shares no code with the workflow. `read_books` takes them
from the databases, row by row: a row that is there twice counts twice. `differences` compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from edda import EddaApp, InstanceNotFoundError, WorkflowHandle
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
    """What the CSV files say. Orders do not influence each other: of what is not sold out there is enough for all."""
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
            books.outcomes[order.id] = await _outcome(app.handle(order.id))
    engine = connect(db_url)
    async with AsyncSession(engine) as session:
        for stock in await session.scalars(select(Stock)):
            books.stock[stock.sku] = stock.available
        for movement in await session.scalars(select(Movement)):
            books.enter(MOVEMENTS, movement.order_id, movement.kind, movement.sku, movement.quantity)
        for payment in await session.scalars(select(Payment)):
            books.enter(PAYMENTS, payment.order_id, payment.kind, payment.amount_cents)
        for shipment in await session.scalars(select(Shipment)):
            books.enter(SHIPMENTS, shipment.order_id, shipment.city)
        for mail in await session.scalars(select(Mail)):
            books.enter(MAILS, mail.order_id, mail.recipient, mail.kind)
    await engine.dispose()
    for entry in bank.statement():
        books.enter(BANK, *entry)
    return books


async def _outcome(handle: WorkflowHandle[Any]) -> str:
    """How it ended, in the words of `refusals`; or whatever else there is to say about it."""
    try:
        status = await handle.status()
        if status not in ("completed", "failed"):
            return status
        await handle.result()
        return COMPLETED
    except OrderRefused as refusal:
        return refusal.outcome
    except InstanceNotFoundError:
        return "never started"
    except Exception as error:
        return f"failed with {error!r}"


# -- the comparison ----------------------------------------------------------------------------------------------------


def differences(expected: Books, found: Books) -> list[str]:
    """Everything that is not as it has to be, in words. Empty: the books are right."""
    return [
        *_unequal("order", expected.outcomes, found.outcomes),
        *_unequal("stock of", expected.stock, found.stock),
        *(line for ledger in LEDGERS for line in _miscounted(ledger, expected.effects[ledger], found.effects[ledger])),
    ]


def _unequal(what: str, expected: Mapping[str, object], found: Mapping[str, object]) -> Iterator[str]:
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            yield f"{what} {key}: expected {expected.get(key)}, found {found.get(key)}"


def _miscounted(ledger: str, expected: Counter[Effect], found: Counter[Effect]) -> Iterator[str]:
    for effect in sorted(expected.keys() | found.keys(), key=repr):
        if expected[effect] != found[effect]:
            words = " ".join(str(word) for word in effect)
            yield f"{ledger}: {words}: expected {_times(expected[effect])}, found {_times(found[effect])}"


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")
