"""What the next commit of one instance will hold: filled while its body runs, taken when the body is quiet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from edda.core.commit import Commit, End, EventWait, NewInstance, OutboxMessage, Post, RowChange, Undo
from edda.core.history import HistoryEvent, InstanceId, Kind
from edda.core.journal import Journal
from edda.core.lifecycle import ENDED


class News(NamedTuple):
    """A call of a hook, to be made when what it tells of is durable."""

    hook: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


META: Final = json.JSONEncoder(separators=(",", ":"))


class Draft:
    """Rows are in the journal from the moment they are drafted; a refused commit takes them out again."""

    def __init__(self, instance_id: InstanceId, journal: Journal) -> None:
        self.instance_id = instance_id
        self.claim = 0
        self.records: list[HistoryEvent] = []
        self.children: list[NewInstance] = []
        self.outbox: list[OutboxMessage] = []
        self.posts: list[Post] = []
        self.waits: list[EventWait] = []
        self.waits_over: list[str] = []
        self.may_wait = False
        """Waits of this instance may be stored: at its end they go."""
        self._journal = journal
        self._news: list[News] = []

    def tell(self, hook: str, *args: Any, **kwargs: Any) -> None:
        """Tell observers of what is drafted, once it is durable."""
        self._news.append(News(hook, args, kwargs))

    def take_news(self) -> Sequence[News]:
        if not self._news:
            return ()
        news, self._news = self._news, []
        return news

    def record(
        self,
        kind: Kind,
        *,
        at_us: int,
        call_id: str = "",
        name: str = "",
        input: str | None = None,
        output: str | None = None,
        blob: bytes | None = None,
        meta: dict[str, Any] | str | None = None,
    ) -> HistoryEvent:
        """Draft one row. `meta` may be JSON text already."""
        event = HistoryEvent(
            self.instance_id,
            self._journal.next_seq,
            self.claim,
            at_us,
            kind._value_,
            call_id,
            name,
            input,
            output,
            blob,
            META.encode(meta) if isinstance(meta, dict) else meta,
        )
        self._journal.append(event)
        self.records.append(event)
        return event

    def take(
        self, row: RowChange, *, wakes: tuple[InstanceId, ...] = (), cancels: tuple[InstanceId, ...] = ()
    ) -> Commit:
        """The commit, leaving the draft empty."""
        commit = Commit(
            instance_id=self.instance_id,
            claim=self.claim,
            records=tuple(self.records),
            row=row,
            children=tuple(self.children),
            outbox=tuple(self.outbox),
            wakes=wakes,
            cancels=cancels,
        )
        if self.may_wait:
            commit = self._with_waits(commit)
        if self.posts:
            commit = commit._replace(posts=tuple(self.posts))
            self.posts.clear()
        self.records.clear()
        self.children.clear()
        self.outbox.clear()
        return commit

    def _with_waits(self, commit: Commit) -> Commit:
        commit = commit._replace(waits_over=tuple(self.waits_over))  # also of the last one: it may be taken back
        if _is_the_end_of_the_body(commit.row):
            commit = commit._replace(no_waits_left=True)
        else:
            commit = commit._replace(waits=tuple(self.waits))
        self.waits.clear()
        self.waits_over.clear()
        return commit

    def restore(self, commit: Commit, *, without: frozenset[str], outbox: bool = True) -> None:
        """Take back a commit of which nothing was written, leaving out rows of these kinds (and its outbox rows)."""
        taken = self._journal.withdraw(len(commit.records) + len(self.records))
        self.records.clear()
        for event in taken:
            if event.kind not in without:
                self.records.append(event._replace(seq=self._journal.next_seq))
                self._journal.append(self.records[-1])
        self.children[:0] = commit.children
        self.waits[:0] = commit.waits
        self.waits_over[:0] = commit.waits_over
        if outbox:
            self.outbox[:0] = commit.outbox
            self.posts[:0] = commit.posts

    def discard(self) -> None:
        """Forget what is drafted: it never happened."""
        self._journal.withdraw(len(self.records))
        self.records.clear()
        self.children.clear()
        self.outbox.clear()
        self.posts.clear()
        self.waits.clear()
        self.waits_over.clear()
        self._news.clear()


def _is_the_end_of_the_body(row: RowChange) -> bool:
    return isinstance(row, Undo) or (isinstance(row, End) and row.status in ENDED)
