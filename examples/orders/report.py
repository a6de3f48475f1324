"""The report: what happened, in a table, and the verdict on the books."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edda import EddaApp
from examples.orders.bank import Bank
from examples.orders.books import Books
from examples.orders.order import Order
from examples.orders.refusals import COMPLETED, REFUSALS
from examples.orders.supervisor import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How many steps there are in the histories of all orders."""

    executed: int
    retried: int
    compensations: int


async def count_steps(db_url: str, orders: Iterable[Order]) -> Steps:
    """Ask edda for the history of each order."""
    events = Counter[str]()
    async with EddaApp("orders-report", db_url, workflows=[]) as app:
        for order in orders:
            events.update(entry.event_type for entry in await app.handle(order.id).history())
    return Steps(
        executed=events["ActivityCompleted"] + events["ActivityFailed"],
        retried=events["ActivityAttemptFailed"],
        compensations=events["CompensationExecuted"],
    )


def table(run: Run, steps: Steps, bank: Bank) -> str:
    """Everything there is to tell about a run, as lines of at most 80 columns."""
    return "\n".join(f"  {title:<16}{text}".rstrip() for title, text in _rows(run, steps, bank))


def _rows(run: Run, steps: Steps, bank: Bank) -> Iterator[tuple[str, str]]:
    outcomes = Counter(run.outcomes.values())
    title = "Orders"
    for outcome in (COMPLETED, *(refusal.outcome for refusal in REFUSALS)):
        yield title, f"{outcomes[outcome]:>6,}  {outcome}"
        title = ""
    yield "", ""
    yield "Activities", f"{steps.executed:>6,}  executed, and their results recorded"
    yield "", f"{run.replayed:>6,}  replayed from history, without executing them again"
    yield "", f"{steps.retried:>6,}  attempts failed and were retried"
    yield "Compensations", f"{steps.compensations:>6,}  executed"
    yield "Bank", f"{bank.repeated_requests():>6,}  repeated requests, recognised by their idempotency key"
    yield "", ""
    title = "Kills"
    for kill in run.kills:
        text = f"{kill.at_share:>6.0%}  done, {len(kill.under_way)} orders under way; "
        if kill.recovery_seconds is not None:
            text += f"they went on after {kill.recovery_seconds:.2f} s"
        yield title, text
        title = ""


def verdict(books: Books, differences: list[str]) -> str:
    """One line if the books are right, else one for each difference as well."""
    if differences:
        return "\n".join([f"THE BOOKS ARE WRONG, {len(differences)} differences:", *(f"  {d}" for d in differences)])
    captured, refunded = (f"€{books.cents(kind) / 100:,.2f}" for kind in ("captured", "refunded"))
    return (
        f"The books are right: {len(books.outcomes)} orders and {books.rows:,} effects, none missing, none twice; "
        f"{captured} captured, {refunded} refunded."
    )
