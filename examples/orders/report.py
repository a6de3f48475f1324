"""The report: what happened, in a table, and the verdict on the books."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edda import EddaApp
from examples.orders.bank import Bank
from examples.orders.books import Books
from examples.orders.order import Order
from examples.orders.refusals import COMPLETED, REFUSALS
from examples.orders.supervisor import Kill, Run


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
    return "\n".join(f"  {title:<15}{text}".rstrip() for title, text in _rows(run, steps, bank))


def _rows(run: Run, steps: Steps, bank: Bank) -> Iterator[tuple[str, str]]:
    outcomes = Counter(run.outcomes.values())
    names = (COMPLETED, *(refusal.outcome for refusal in REFUSALS))
    yield from _group("Orders", (f"{outcomes[name]:>6,}  {name}" for name in names))
    yield "", ""
    yield "Activities", f"{steps.executed:>6,}  executed, and their results recorded"
    yield "", f"{run.replayed:>6,}  replayed from history after a kill, not executed again"
    yield "", f"{steps.retried:>6,}  attempts failed and were retried"
    yield "Compensations", f"{steps.compensations:>6,}  executed"
    yield "Bank", f"{bank.repeated_requests():>6,}  repeated requests, known by their idempotency key"
    if run.kills:
        yield "", ""
    yield from _group("Kills", map(_kill, run.kills))


def _group(title: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    yield from zip(itertools.chain([title], itertools.repeat("")), texts, strict=False)


def _kill(kill: Kill) -> str:
    recovery = "" if kill.recovery_seconds is None else f", next record after {kill.recovery_seconds:.2f} s"
    return f"{kill.at_share:>6.0%}  done, {len(kill.under_way)} under way{recovery}"


def verdict(books: Books, differences: list[str]) -> str:
    """One line if the books are right, else one for each difference as well."""
    if differences:
        count = "1 difference" if len(differences) == 1 else f"{len(differences)} differences"
        return "\n".join([f"THE BOOKS ARE WRONG, {count}:", *(f"  {line}" for line in differences)])
    earned_cents = books.cents("captured") - books.cents("refunded")
    return f"The books are right: {books.rows:,} rows, none missing, none twice, €{earned_cents / 100:,.2f} earned."
