"""The statements behind declared search fields: which workflows have them, and how instances are found by their terms.

The terms themselves are written with their instance, in `commits`. It must not know what a page looks like.
"""

# ruff: noqa: S608 - the only strings that go into statements are our own names of tables and columns

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from edda.core.search import Term, term_of
from edda.storage.reads import InstanceFilter
from edda.storage.sql.condition import Condition, behind, within_time
from edda.storage.sql.dialects.base import Dialect
from edda.storage.sql.inbox import read_clock
from edda.storage.sql.rows import insert
from edda.storage.sql.schema import SEARCH_FIELD
from edda.storage.sql.verb import Statement, Verb


class FieldTerm(NamedTuple):
    """What instances of a workflow have as a term that were started since then with the wanted value."""

    workflow: str
    term: Term
    since_us: int


def declare(dialect: Dialect, fields: Mapping[str, Collection[str]]) -> Verb[None]:
    """Only what changes is written: with the same code again, that is nothing."""
    condition, params = dialect.within("workflow", sorted(fields))
    rows, _ = yield Statement(f"select workflow, path from edda_search_field where {condition}", params)
    known = {(row[0], row[1]) for row in rows}
    wanted = {(workflow, path) for workflow, paths in fields.items() for path in paths}
    if gone := sorted(known - wanted):
        yield Statement("delete from edda_search_field where workflow = ? and path = ?", gone, many=True)
    if wanted - known:
        now_us = yield from read_clock(dialect)
        columns = tuple(column.name for column in SEARCH_FIELD.columns)
        values = [(*field, now_us) for field in sorted(wanted - known)]
        yield Statement(insert("edda_search_field", columns) + dialect.if_absent_in(SEARCH_FIELD), values, many=True)


def terms_for(which: InstanceFilter) -> Verb[tuple[FieldTerm, ...]]:
    """By what the wanted instances are found: one for each workflow that declares the field; none where none does."""
    if which.argument is None:
        return ()
    path, value = which.argument
    rows, _ = yield Statement(
        "select workflow, since_us from edda_search_field where path = ? order by workflow", (path,)
    )
    found = [(row[0], term_of(row[0], path, value), int(row[1])) for row in rows]
    return tuple(
        FieldTerm(workflow, term, since_us)
        for workflow, term, since_us in found
        if term is not None and (not which.workflows or workflow in which.workflows)
    )


def keys_of(term: FieldTerm, which: InstanceFilter, place: tuple[Any, Any] | None) -> Condition:
    """The select of the instances that have this term, along its index. Those that had it in an earlier life of the
    field are found where what is older than the field is looked at, and must not be found twice."""
    condition = Condition("term = ? and created_at_us >= ?", (term.term, term.since_us))
    condition &= within_time("created_at_us", which.created_from_us, which.created_before_us)
    condition &= behind(("created_at_us", "instance_id"), place)
    return Condition(f"select instance_id as id, created_at_us from edda_search{condition.where}", condition.params)


def known_by(dialect: Dialect, terms: Sequence[FieldTerm]) -> Condition:
    """An expression that is true of an instance `i` with one of these terms."""
    if not terms:
        return Condition("0")
    condition, params = dialect.within("s.term", [term.term for term in terms])
    text = (
        f"case when exists (select 1 from edda_search s where s.instance_id = i.id and {condition}) then 1 else 0 end"
    )
    return Condition(text, params)
