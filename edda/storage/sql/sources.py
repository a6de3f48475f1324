"""The statements behind `keep_sources` and `source`: the texts of workflows, for people only."""

from __future__ import annotations

from collections.abc import Sequence

from edda.storage.reads import Source
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.inbox import read_clock
from edda.storage.sql.rows import insert
from edda.storage.sql.schema import SOURCE
from edda.storage.sql.verb import Statement, Verb


def keep(dialect: Dialect, sources: Sequence[Source]) -> Verb[None]:
    """Only what is missing is written: with the same code again, that is nothing."""
    hashes = sorted({source.source_hash for source in sources})
    condition, params = dialect.within("source_hash", hashes)
    rows, _ = yield Statement(f"select workflow, source_hash from edda_source where {condition}", params)  # noqa: S608
    known = {(row[0], row[1]) for row in rows}
    new = [source for source in sorted(sources) if (source.workflow, source.source_hash) not in known]
    if new:
        now_us = yield from read_clock(dialect)
        columns = tuple(column.name for column in SOURCE.columns)
        values = [(*source, now_us) for source in new]
        yield Statement(insert("edda_source", columns) + dialect.if_absent_in(SOURCE), values, many=True)


def find(workflow: str, source_hash: str) -> Verb[Source | None]:
    rows, _ = yield Statement(
        "select workflow, source_hash, source_text from edda_source where workflow = ? "
        "order by case when source_hash = ? then 0 else 1 end, first_seen_at_us desc, source_hash limit 1",
        (workflow, source_hash),
    )
    return Source(*rows[0]) if rows else None
