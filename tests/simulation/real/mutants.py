"""Planted bugs that only a crash shows: the matrix on a real database has to find each.

One is borrowed from the simulation; the others sit where the model has nothing: in SQL, and between two processes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from edda.core.commit import Batch, Commit, Verdict
from edda.engine.claimer import Claimer
from edda.storage.sql.session import SessionTransaction
from tests.simulation.mutants import MUTANTS, swapped

Plant = Callable[[], AbstractContextManager[None]]


def record_apart() -> Any:
    """The rows of `ctx.session` are committed first, and the record of the activity after them."""

    def make(original: Any) -> Any:
        async def commit(self: Any, commit: Commit) -> Verdict:
            write = self._write
            store, worker = write.func.__self__, write.args[0]
            self._over = True
            await self._session.commit()
            await self._line.commit()
            await self._session.close()
            outcome = await store.write(worker, Batch(commits=(commit,)))
            return outcome.verdicts[0]  # type: ignore[no-any-return]

        return commit

    return swapped(SessionTransaction, "commit", make)


def history_forgotten() -> Any:
    """Whoever takes an instance over begins at its beginning."""

    def make(original: Any) -> Any:
        async def read_histories(self: Claimer, ids: Any) -> Any:
            return {instance_id: [] for instance_id in ids}

        return read_histories

    return swapped(Claimer, "_read_histories", make)


REAL_MUTANTS: Final[dict[str, tuple[Plant, str]]] = {
    "the undo list is lost in a crash": (MUTANTS["the undo list is lost in a crash"], "canon_saga"),
    "the record comes after the rows of ctx.session": (record_apart, "canon_session"),
    "who takes over forgets history": (history_forgotten, "canon_sequence"),
}
"""What is wrong -> how to plant it, and the workflow that shows it."""
