"""`SqlStore`: the port's verbs over any database. It decides which verb goes where, and what its failures mean.

It knows no driver and almost no SQL: the verbs' texts are in `commits`, `claims`, `workers`, `people` and `reader`,
their differences in `dialects`, connections in the `*_database` modules.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from edda.core.commit import Batch, BatchOutcome, Commit, Creation, NewInstance, Verdict
from edda.core.history import InstanceId, WorkerId
from edda.core.lifecycle import Status
from edda.exceptions import StorageError
from edda.storage.port import Claims, InstanceRow, LeaseLine, Notice, Reaped, UnknownOutcome, UserTransaction
from edda.storage.reads import Source
from edda.storage.retention import BEGINNING, Place, Pruned
from edda.storage.sql import claims, commits, people, reader, retention, search, workers
from edda.storage.sql import sources as kept
from edda.storage.sql.database import Database, Lane
from edda.storage.sql.dialects.base import Problem
from edda.storage.sql.inbox_store import SqlInbox
from edda.storage.sql.outbox_store import SqlOutbox
from edda.storage.sql.reads_store import SqlReads
from edda.storage.sql.runner import DuplicateKeyError
from edda.storage.sql.verb import Verb

if TYPE_CHECKING:
    from edda.storage.sql.session_line import Lines

RACES_MAX: Final = 10
"""How often a batch may meet starts, or a retry a row of history, that another made a moment ago."""


class SqlStore(SqlReads, SqlInbox, SqlOutbox):
    """A `Store` on SQLite, PostgreSQL, MySQL or MariaDB."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._lines: Lines | None = None

    @property
    def on_statement(self) -> Any:
        """For tests: called with the name of the verb and a `Statement` or "COMMIT", before each is sent.

        On a database server it is awaited; on SQLite it is called in the writer's thread, and may block.
        """
        return self.database.on_statement

    @on_statement.setter
    def on_statement(self, hook: Any) -> None:
        self.database.on_statement = hook

    # -- life --------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        await self.database.open()

    async def close(self) -> None:
        if self._lines is not None:
            lines, self._lines = self._lines, None
            await lines.dispose()
        await self.database.close()

    # -- hints -------------------------------------------------------------------------------------------------------

    def listen(self, heard: Callable[[], None]) -> None:
        self.database.listen(heard)

    def hint(self) -> None:
        self.database.hint()

    # -- writing -----------------------------------------------------------------------------------------------------

    async def write(self, worker: WorkerId, batch: Batch) -> BatchOutcome:
        places = range(len(batch.commits))
        lost: set[int] = set()
        look_first = False
        for _ in range(len(batch.commits) + RACES_MAX):
            kept = [place for place in places if place not in lost]
            part = batch if not lost else Batch(commits=commits.without(batch.commits, lost), starts=batch.starts)
            try:
                outcome = await self.database.run(
                    "write",
                    partial(commits.write, self._dialect, worker, part, look_first=look_first),
                    lane=Lane.COMMIT,
                    repeat=False,
                    worker=worker,
                )
            except commits.StartsRaced:
                look_first = True
            except DuplicateKeyError as error:
                found = await self._taken(part.commits)
                if not found:
                    raise StorageError(f"The database refused a batch: {error}") from error
                lost |= {kept[place] for place in found}
            else:
                return _with_lost(outcome, lost, len(batch.commits))
        raise StorageError("Others created the same instances again and again")

    async def _taken(self, some: Sequence[Commit]) -> frozenset[int]:
        return await self.database.run("taken", partial(commits.taken, self._dialect, some), lane=Lane.READ)

    async def settle(self, worker: WorkerId, batch: Batch) -> tuple[Verdict | None, ...]:
        return await self.database.run(
            "settle", partial(commits.settle, self._dialect, worker, batch), lane=Lane.COMMIT, worker=worker
        )

    async def create(self, new: NewInstance) -> Creation:
        return await self.database.run("create", partial(commits.create, self._dialect, new), lane=Lane.DESK)

    # -- claiming ----------------------------------------------------------------------------------------------------

    async def claim(
        self,
        worker: WorkerId,
        *,
        workflows: Collection[str],
        limit: int,
        suspects: bool = True,
        ids: Sequence[InstanceId] | None = None,
    ) -> Claims:
        names = sorted(workflows)
        taken = await self._claim(worker, workflows=names, limit=limit, suspects=suspects, ids=ids)
        return taken

    async def _claim(self, worker: WorkerId, **what: Any) -> Claims:
        claim_key = secrets.randbits(63)
        try:
            return await self.database.run(
                "claim",
                partial(claims.claim, self._dialect, worker, claim_key=claim_key, **what),
                lane=Lane.DESK,
                repeat=False,
                worker=worker,
            )
        except UnknownOutcome:
            return await self.database.run(
                "claimed_with",
                partial(claims.claimed_with, self._dialect, worker, claim_key),
                lane=Lane.DESK,
                worker=worker,
            )

    async def notices(self, worker: WorkerId) -> tuple[Notice, ...]:
        return await self.database.run("notices", partial(claims.notices, worker), lane=Lane.READ)

    async def held(self, worker: WorkerId) -> Mapping[InstanceId, int]:
        return await self.database.run("held", partial(claims.held, worker), lane=Lane.READ)

    # -- workers -----------------------------------------------------------------------------------------------------

    def lease_line(self) -> LeaseLine:
        return self.database.lease_line()

    async def absentees(self, worker: WorkerId) -> tuple[WorkerId, ...]:
        present = self.database.present()
        return await self.database.run(
            "absentees", partial(workers.absentees, self._dialect, worker, present), lane=Lane.READ
        )

    async def reap(self, dead: WorkerId) -> Reaped | None:
        return await self.database.reap(dead, partial(workers.reap, self._dialect, dead, self.database.present()))

    async def announce(self, worker: WorkerId, workflows: Sequence[str]) -> None:
        await self.database.run("announce", partial(workers.announce, worker, workflows), lane=Lane.DESK)

    async def retire(self, worker: WorkerId) -> None:
        await self.database.run("retire", partial(workers.retire, self._dialect, worker), lane=Lane.DESK)

    # -- sources -----------------------------------------------------------------------------------------------------

    async def declare_search_fields(self, fields: Mapping[str, Collection[str]]) -> None:
        await self.database.run("declare_search_fields", partial(search.declare, self._dialect, fields), lane=Lane.DESK)

    async def keep_sources(self, sources: Sequence[Source]) -> None:
        await self.database.run("keep_sources", partial(kept.keep, self._dialect, sources), lane=Lane.DESK)

    # -- forgetting --------------------------------------------------------------------------------------------------

    async def prune(self, *, age_us: int, after: Place = BEGINNING, dry: bool = False) -> Pruned:
        make = partial(retention.prune, self._dialect, age_us=age_us, after=after, dry=dry)
        return await self.database.run("prune", make, lane=Lane.DESK)

    async def forget_workers(self, *, age_us: int) -> int:
        make = partial(retention.forget_workers, self._dialect, age_us=age_us)
        return await self.database.run("forget_workers", make, lane=Lane.DESK)

    # -- verbs of people ---------------------------------------------------------------------------------------------

    async def cancel(self, instance_id: InstanceId, *, by: str) -> InstanceRow | None:
        return await self.database.run(
            "cancel", partial(people.cancel, self._dialect, instance_id, by=by), lane=Lane.DESK
        )

    async def retry(self, instance_id: InstanceId) -> InstanceRow | None:
        make = partial(people.retry, self._dialect, instance_id)
        for _ in range(RACES_MAX):
            # A step locks no instance, so one of an older claim may take the place in history first: then look again.
            with contextlib.suppress(DuplicateKeyError):
                return await self.database.run("retry", make, lane=Lane.DESK, repeat=False)
        raise StorageError(f"Others wrote to the history of {instance_id} again and again")

    # -- reading -----------------------------------------------------------------------------------------------------

    async def list_instances(
        self, *, status: Status | None = None, workflow: str | None = None, limit: int = 50, before: str | None = None
    ) -> tuple[InstanceRow, ...]:
        make = partial(reader.list_instances, status=status, workflow=workflow, limit=limit, before=before)
        return await self.database.run("list_instances", make, lane=Lane.READ)

    # -- the user's own rows -----------------------------------------------------------------------------------------

    @property
    def sessions_exclude_writes(self) -> bool:
        return self.database.sessions_exclude_writes

    def transaction(
        self, worker: WorkerId, *, label: str, before_open: Callable[[], Awaitable[None]] | None = None
    ) -> UserTransaction:
        from edda.storage.sql.session import SessionTransaction  # imports SQLAlchemy: 280 ms

        if self._lines is None:
            self._lines = self.database.session_lines()
        return SessionTransaction(
            self._lines.line(worker=worker, label=label),
            label=label,
            write=partial(self._write_one, worker),
            create=partial(commits.create, self._dialect),
            before_open=before_open,
        )

    def _write_one(self, worker: WorkerId, commit: Commit) -> Verb[Verdict]:
        """One commit inside a user's transaction; with any verdict but COMMITTED that is rolled back."""
        try:
            outcome = yield from commits.write(self._dialect, worker, Batch(commits=(commit,)))
        except Exception as error:
            if self._dialect.problem(error) is Problem.DUPLICATE:
                return Verdict.CLAIM_LOST
            raise
        return outcome.verdicts[0]

    def is_serialization_failure(self, error: BaseException) -> bool:
        from edda.storage.sql.session import is_serialization_failure

        return is_serialization_failure(error)

    async def create_in(self, session: Any, new: NewInstance) -> Creation:
        from edda.storage.sql.session import create_in

        return await create_in(session, commits.create(self._dialect, new), url=self.database.url.sqlalchemy)


def _with_lost(outcome: BatchOutcome, lost: Collection[int], count: int) -> BatchOutcome:
    """The verdicts of the whole batch, where only the rest was written."""
    if not lost:
        return outcome
    rest = iter(outcome.verdicts)
    verdicts = tuple(Verdict.CLAIM_LOST if place in lost else next(rest) for place in range(count))
    return BatchOutcome(now_us=outcome.now_us, verdicts=verdicts, creations=outcome.creations)
