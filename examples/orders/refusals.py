"""Why an order may end without being shipped.

They are `TerminalError`s, so that an activity that raises one is not tried again. A workflow that is replayed after a
crash gets the same class again from its history: `except OrderRefused` works then, too.
"""

from __future__ import annotations

from typing import ClassVar

from edda import TerminalError


class OrderRefused(TerminalError):
    """Somebody in the chain said no, for good."""

    outcome: ClassVar[str]


class OutOfStock(OrderRefused):
    outcome = "out of stock"


class CardDeclined(OrderRefused):
    outcome = "card declined"


class Undeliverable(OrderRefused):
    outcome = "undeliverable"


REFUSALS = (OutOfStock, CardDeclined, Undeliverable)
COMPLETED = "completed"
