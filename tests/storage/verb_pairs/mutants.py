"""Planted bugs: the matrix is only as good as what it catches. Each mutant is a context manager that plants one.

With it come the pairs of verbs in which it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final

from edda.storage.sql import claims, commits, mail, outbox, runner, workers
from edda.storage.sql.verb import Verb

Mutant = Callable[[], AbstractContextManager[None]]
Pairs = tuple[tuple[str, str], ...]
MUTANTS: Final[dict[str, tuple[Mutant, Pairs]]] = {}


def mutant(title: str, *pairs: tuple[str, str]) -> Callable[[Mutant], Mutant]:
    def add(plant: Mutant) -> Mutant:
        MUTANTS[title] = plant, pairs
        return plant

    return add


@contextmanager
def _swapped(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Replace an attribute by `make(original)` for a while."""
    original = getattr(owner, name)
    setattr(owner, name, make(original))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _without(words: tuple[str, ...], verb: Callable[..., Verb[Any]]) -> Callable[..., Verb[Any]]:
    """The verb, with these words gone from its statements."""

    def changed(*arguments: Any, **more: Any) -> Verb[Any]:
        original = verb(*arguments, **more)
        try:
            statement = next(original)
            while True:
                text = statement.text
                for word in words:
                    text = text.replace(word, "")
                try:
                    rows = yield statement._replace(text=text)
                except Exception as error:
                    statement = original.throw(error)
                else:
                    statement = original.send(rows)
        except StopIteration as end:
            return end.value

    return changed


@mutant("a batch does not lock its worker's row", ("step", "reap"))
def fence_without_a_lock() -> AbstractContextManager[None]:
    return _swapped(commits, "write", partial(_without, (" for key share", " lock in share mode")))


@mutant("a claim does not lock what it takes", ("claim", "claim"))
def claim_without_a_lock() -> AbstractContextManager[None]:
    return _swapped(claims, "claim", partial(_without, (" for update skip locked",)))


@mutant("a reaper does not lock before it looks", ("reap", "renew"))
def reap_without_a_lock() -> AbstractContextManager[None]:
    return _swapped(workers, "reap", partial(_without, (" for update",)))


@mutant("a relayer does not lock what it leases", ("lease", "lease"))
def lease_without_a_lock() -> AbstractContextManager[None]:
    return _swapped(outbox, "claim", partial(_without, (" for update skip locked",)))


@mutant("a settlement does not lock what it looks at", ("delivered", "lease"), ("dead", "lease"))
def settle_without_a_lock() -> AbstractContextManager[None]:
    return _swapped(outbox, "settle", partial(_without, (" for update",)))


@mutant("a cancel is several transactions", ("cancel", "finish"))
def split_cancel() -> AbstractContextManager[None]:
    def split(run: Callable[..., Any]) -> Callable[..., Any]:
        def changed(self: Any, name: str, make: Any, **more: Any) -> Any:
            return run(self, name, make, **(more | {"atomic": False} if name == "cancel" else more))

        return changed

    return _swapped(runner.Runner, "run", split)


@mutant("a deadlock is not tried again", ("start", "start"), ("reap", "deliver"))
def no_retries() -> AbstractContextManager[None]:
    return _swapped(runner, "ATTEMPTS_MAX", lambda _: 1)


@mutant("what is on its way is looked at last", ("look", "route"))
def fresh_ones_last() -> AbstractContextManager[None]:
    def make(original: Any) -> Any:
        def look(dialect: Any, looks: Any, *, unrouted: bool) -> Verb[Any]:
            found = yield from original(dialect, looks, unrouted=False)
            for one in looks if unrouted else ():
                fresh = yield from mail._fresh(dialect, {wanted.type for wanted in one.wanted})
                found[one.instance_id] = mail._sorted(found[one.instance_id], mail._fitting(one, fresh))
            return found

        return look

    return _swapped(mail, "look", make)


@contextmanager
def routes_with_the_wake() -> Iterator[None]:
    """An event gets its routes in the same transaction that reads the waits; see `matrix.missed`."""

    def make(original: Any) -> Any:
        def route(dialect: Any, keys: Any) -> Verb[Any]:
            routed = yield from original(dialect, keys)
            if routed.left and not routed.woken:
                routed = yield from original(dialect, keys)
            return routed

        return route

    with _swapped(mail, "route", make):
        yield
