"""The store of a process that can die: an `SqlStore` that tells the board of every commit boundary, and dies there.

*Before* is as late as it can be: on SQLite and MySQL the statements are done and their locks held, and only COMMIT is
missing; a write on PostgreSQL is one statement, which is not sent. *After* means that the database has answered, and
nobody has heard it. What belongs to a dead process reaches no database: `Gone`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from edda.core.commit import Batch, BatchOutcome, Commit, Creation, NewInstance, Verdict
from edda.core.history import InstanceId, WorkerId
from edda.exceptions import StorageError
from edda.storage.port import Claims, LeaseLine, Reaped, UserTransaction
from edda.storage.sql import open_store
from edda.storage.sql.store import SqlStore
from edda.storage.sql.verb import Statement, Verb
from tests.simulation.faults import Fault
from tests.simulation.faulty_store import kind_of
from tests.simulation.real.board import Boundary

if TYPE_CHECKING:
    from tests.simulation.real.process import Process


class Gone(StorageError):
    """The process is dead: nothing of it reaches the database."""


class MortalStore(SqlStore):
    """See the head of this file."""

    def __init__(self, process: Process, url: str, **options: Any) -> None:
        super().__init__(open_store(url, **options).database)
        self.process = process
        self._at_commit: dict[str, Callable[[], None]] = {}
        """Verb -> what to ask when its transaction is about to be committed."""
        self._one_statement = self.database.dialect.single_statements & {"write"}
        database: Any = self.database
        if database.dialect.single_statements:
            # A claim on PostgreSQL is one statement, too; in a transaction of its own one can see what it took.
            database.dialect.single_statements = self._one_statement
        self._run_verb, database.run = database.run, self._run_observed
        self._reap_worker, database.reap = database.reap, self._reap_observed
        if database.sessions_exclude_writes:
            database.on_statement = self._before_statement
        else:
            database.on_statement = self._before_statement_async
            self._connect, database._connect = database._connect, self._connect_mortal
            database.has_presence = database.has_presence and process.number % 4 < 2

    # -- what every statement and connection passes -------------------------------------------------------------------

    def _before_statement(self, name: str, statement: Statement | Literal["COMMIT"]) -> None:
        self.must_live()
        if (statement == "COMMIT" or name in self._one_statement) and name in self._at_commit:
            self._at_commit.pop(name)()

    async def _before_statement_async(self, name: str, statement: Statement | Literal["COMMIT"]) -> None:
        self._before_statement(name, statement)

    def must_live(self) -> None:
        if self.process.dead:
            raise Gone(f"process {self.process.number} is dead")

    async def _connect_mortal(self, *args: Any, **options: Any) -> Any:
        self.must_live()
        connection = await self._connect(*args, **options)
        self.process.connected(connection._transport.get_extra_info("socket"))
        self.must_live()
        return connection

    async def _run_observed(self, name: str, make: Callable[[], Verb[Any]], **options: Any) -> Any:
        self.must_live()
        if name == "claim":
            make = observed(make, self._claims)
        return await self._run_verb(name, make, **options)

    async def _reap_observed(self, dead: WorkerId, make: Callable[[], Verb[Reaped | None]]) -> Reaped | None:
        def look(reaped: Reaped | None) -> None:
            if reaped is not None:
                self.process.board.reaped(dead, reaped)

        return await self._reap_worker(dead, observed(make, look))  # type: ignore[no-any-return]

    # -- boundaries ---------------------------------------------------------------------------------------------------

    async def write(self, worker: WorkerId, batch: Batch) -> BatchOutcome:
        transaction = Transaction(self.process, kind_of(batch), self.process.board.marks_of(batch))
        self._at_commit["write"] = transaction.before
        self.process.writes(batch)
        outcome = await super().write(worker, batch)
        self.process.written(batch, outcome)
        await transaction.after()
        return outcome

    def _claims(self, claims: Claims) -> None:
        self._claiming = Transaction(
            self.process, "claim", self.process.board.marks_of_claims(row.id for row in claims.rows)
        )
        self._at_commit["claim"] = self._claiming.before
        self.process.holds(row.id for row in claims.rows)

    async def claim(
        self,
        worker: WorkerId,
        *,
        workflows: Collection[str],
        limit: int,
        suspects: bool = True,
        ids: Sequence[InstanceId] | None = None,
    ) -> Claims:
        self._claiming = Transaction(self.process, "claim", {})
        taken = await super().claim(worker, workflows=workflows, limit=limit, suspects=suspects, ids=ids)
        await self._claiming.after()
        return taken

    def transaction(
        self, worker: WorkerId, *, label: str, before_open: Callable[[], Awaitable[None]] | None = None
    ) -> UserTransaction:
        return MortalTransaction(super().transaction(worker, label=label, before_open=before_open), self.process)

    def lease_line(self) -> LeaseLine:
        line: Any = super().lease_line()
        register = line.register

        async def register_noted(worker: WorkerId, **options: Any) -> int:
            self.process.workers.append(worker)
            return await register(worker, **options)  # type: ignore[no-any-return]

        line.register = register_noted
        return line  # type: ignore[no-any-return]


class Transaction:
    """One transaction, which is a boundary of all in it. The process may die before its COMMIT, or after it."""

    def __init__(self, process: Process, operation: str, marks: Mapping[str, Boundary]) -> None:
        self._process = process
        self._operation = operation
        self._marks = marks
        self._fault: Fault | None = None

    def before(self) -> None:
        self._fault = self._process.board.pass_boundary(self._operation, self._marks)
        if self._fault is Fault.CRASH_BEFORE:
            self._process.die()
            raise Gone(f"process {self._process.number} died before {self._operation}")

    async def after(self) -> None:
        """It is durable."""
        self._process.board.is_durable(self._marks)
        if self._fault is Fault.CRASH_AFTER:
            await self._process.die_in_peace()
            raise Gone(f"process {self._process.number} died after {self._operation}")


class MortalTransaction:
    """The transaction behind a `ctx.session`."""

    def __init__(self, inner: Any, process: Process) -> None:
        self._inner = inner
        self._process = process
        self._transaction: Transaction | None = None
        self._commit_line, inner._line.commit = inner._line.commit, self._at_commit

    @property
    def session(self) -> Any:
        return self._inner.session

    @property
    def opened(self) -> bool:
        return bool(self._inner.opened)

    async def flush(self) -> bool:
        return bool(await self._inner.flush())

    async def start(self, new: NewInstance) -> Creation:
        return await self._inner.start(new)  # type: ignore[no-any-return]

    async def rollback(self) -> None:
        await self._inner.rollback()

    async def commit(self, commit: Commit) -> Verdict:
        marks = self._process.board.marks_of(Batch(commits=(commit,)), where="session")
        self._transaction = Transaction(self._process, "session commit", marks)
        verdict: Verdict = await self._inner.commit(commit)
        self._process.board.committed(commit, verdict)
        await self._transaction.after()
        return verdict

    async def _at_commit(self) -> None:
        """Everything is written, and only COMMIT is missing."""
        assert self._transaction is not None
        await self._process.in_writer(self._transaction.before)
        await self._commit_line()


def observed(make: Callable[[], Verb[Any]], look: Callable[[Any], None]) -> Callable[[], Verb[Any]]:
    """The same verb, whose result somebody sees before it is committed."""

    def verb() -> Verb[Any]:
        result = yield from make()
        look(result)
        return result

    return verb
