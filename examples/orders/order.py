"""Orders and articles as they come in: the CSV files in `data/`.

What will become of an order is written in these files alone: what is sold out, whose card is declined
(`tok_declined_…`), where no carrier goes. So the books can be computed without running anything (`books.py`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

DATA = Path(__file__).parent / "data"


class Item(BaseModel, frozen=True):
    """One line of an order."""

    sku: str
    quantity: int


class Order(BaseModel, frozen=True):
    """What a customer ordered, and agreed to pay at the checkout."""

    id: str
    customer: str
    email: str
    city: str
    card: str
    items: tuple[Item, ...]
    total_cents: int


class Article(BaseModel, frozen=True):
    """What the shop sells, and how many there are before the first order."""

    sku: str
    name: str
    price_cents: int
    available: int


def read_orders(count: int | None = None) -> list[Order]:
    """The first `count` orders, or all."""
    rows = list(_rows("orders.csv"))[:count]
    return [Order.model_validate(row | {"items": _items(row["items"])}) for row in rows]


def read_stock() -> list[Article]:
    return [Article.model_validate(row) for row in _rows("stock.csv")]


def _rows(name: str) -> Iterator[dict[str, Any]]:
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _items(text: str) -> list[dict[str, str]]:
    """`MUG-BLUE:2 TEA-ASSAM:1`, taken apart."""
    pairs = (item.split(":") for item in text.split())
    return [{"sku": sku, "quantity": quantity} for sku, quantity in pairs]
