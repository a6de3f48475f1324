"""The shop's own tables, in the same database as edda's. Ordinary SQLAlchemy models, written through `ctx.session`.

No constraint forbids a row from being there twice: were an effect repeated after a crash, it would show in the books.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import String, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.orders.order import Article

DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
}


class Base(DeclarativeBase):
    type_annotation_map = {str: String(80)}  # noqa: RUF012 - SQLAlchemy's own idiom


class Stock(Base):
    """How many of an article may still be sold."""

    __tablename__ = "shop_stock"

    sku: Mapped[str] = mapped_column(primary_key=True)
    available: Mapped[int]


class Movement(Base):
    """Goods `reserved` for an order, or `released` again."""

    __tablename__ = "shop_movement"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    kind: Mapped[str]
    sku: Mapped[str]
    quantity: Mapped[int]


class Payment(Base):
    """Money `captured` for an order, or `refunded`."""

    __tablename__ = "shop_payment"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    kind: Mapped[str]
    amount_cents: Mapped[int]
    bank_reference: Mapped[str]


class Shipment(Base):
    """A parcel that was handed to the carrier."""

    __tablename__ = "shop_shipment"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    city: Mapped[str]
    parcel: Mapped[str]


class Mail(Base):
    """An e-mail to the customer: a `confirmation` or an `apology`."""

    __tablename__ = "shop_mail"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    kind: Mapped[str]
    recipient: Mapped[str]
    text: Mapped[str] = mapped_column(String(400))


def connect(db_url: str) -> AsyncEngine:
    """SQLAlchemy on the database of the app: `sqlite:///…` as edda takes it, with a driver's name for SQLAlchemy."""
    url = make_url(db_url)
    return create_async_engine(url.set(drivername=DRIVERS.get(url.drivername, url.drivername)))


async def open_shop(engine: AsyncEngine, articles: Iterable[Article]) -> bool:
    """Make the tables and fill the shelves. False: this shop was open before, and nothing was changed."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session, session.begin():
        articles = list(articles)
        if await session.get(Stock, articles[0].sku) is not None:
            return False
        session.add_all(Stock(sku=article.sku, available=article.available) for article in articles)
    return True
