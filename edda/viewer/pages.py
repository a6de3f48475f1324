"""The pages: for each its path, its template, how its facts are loaded and how they are shown. One table.

`load` asks the database, `view` decides what is shown; the facts between them hold no clock, so that two that are equal
look equal, and a page is drawn again exactly when they change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from starlette.convertors import Convertor, register_url_convertor
from starlette.routing import compile_path

from edda.storage.reads import Reader
from edda.viewer import (
    events_page,
    instance_page,
    instances_page,
    outbox_page,
    workers_page,
    workflow_page,
    workflows_page,
)
from edda.viewer.asked import Asked
from edda.viewer.knowledge import Knowledge


class View(Protocol):
    """What is shown of the facts that `load` of the same page gave."""

    def __call__(self, facts: Any, asked: Asked, knowledge: Knowledge, /, *, now_us: int) -> Mapping[str, Any]: ...


class PageKind(NamedTuple):
    """`load` gives None for what does not exist."""

    path: str
    template: str
    title: str
    place: str
    """The word in the navigation under which it stands."""
    load: Callable[[Reader, Asked], Awaitable[Any]]
    view: View


class AnyText(Convertor[str]):
    """An id as it is: `path` takes no line ends, and drops a last one."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anytext", AnyText())

PAGES: Final = (
    PageKind("/instances", "instances.html", "Instances", "instances", instances_page.load, instances_page.view),
    PageKind(
        "/instances/{id:anytext}", "instance.html", "Instance", "instances", instance_page.load, instance_page.view
    ),
    PageKind("/workflows", "workflows.html", "Workflows", "workflows", workflows_page.load, workflows_page.view),
    PageKind("/workflows/one", "workflow.html", "Workflow", "workflows", workflow_page.load, workflow_page.view),
    PageKind("/events", "events.html", "Events", "events", events_page.load, events_page.view),
    PageKind("/outbox", "outbox.html", "Outbox", "outbox", outbox_page.load, outbox_page.view),
    PageKind("/workers", "workers.html", "Workers", "workers", workers_page.load, workers_page.view),
)

NAVIGATION: Final = tuple((kind.path, kind.title, kind.place) for kind in PAGES if kind.path.count("/") == 1)

_COMPILED: Final = tuple((compile_path(kind.path)[0], kind) for kind in PAGES)


def page_at(path: str) -> tuple[PageKind, dict[str, str]] | None:
    """The page at a path below the root, and the variable parts of the path."""
    for pattern, kind in _COMPILED:
        if found := pattern.match(path):
            return kind, found.groupdict()
    return None


def mark_of(facts: object) -> str:
    """The same for equal facts."""
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:24]
