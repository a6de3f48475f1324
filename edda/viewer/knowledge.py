"""What is known beyond the rows: why an instance stands still, the source of its workflow, and the drawing of it.

The pages ask this and nothing else of the rest of the house. Whatever is stored, a page is drawn: with less on it where
there is no source, or none that can be read.
"""

from __future__ import annotations

import ast
import logging
import re
import textwrap
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edda import visualizer
from edda.core.commit import EventWait
from edda.core.history import HistoryEvent
from edda.storage.reads import Source
from edda.why import Answer, Situation, why

log = logging.getLogger("edda.viewer")

DIAGRAMS_MAX: Final = 64
"""Graphs kept in memory."""
SMALL_WIDTH: Final = 520
"""Of a drawing, in pixels: on a screen of 390 it is shown at two thirds at least."""
SOURCE_MAX: Final = 64 * 1024
"""Characters of source that are drawn."""


class Knowledge:
    """Of one viewer."""

    def __init__(self) -> None:
        self._graphs: OrderedDict[tuple[str, str], visualizer.Graph | None] = OrderedDict()
        self._parameters: OrderedDict[str, dict[str, tuple[str, ...]]] = OrderedDict()

    def why(self, situation: Situation) -> Answer:
        """Why an instance stands where it stands. Rows that nobody would write must not stop a page."""
        try:
            return why(situation)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            log.warning("what is stored of %s cannot be explained", situation.row.id, exc_info=True)
            return Answer(sentence=situation.row.reason)

    def parameters(self, source: Source | None, name: str) -> tuple[str, ...]:
        """Of a workflow or activity: names of what may be passed by position, without the context."""
        if source is None or len(source.text) > SOURCE_MAX:
            return ()
        if source.text not in self._parameters:
            self._parameters[source.text] = parameters_in(source.text)
            if len(self._parameters) > DIAGRAMS_MAX:
                self._parameters.popitem(last=False)
        return self._parameters[source.text].get(name, ())

    def graph(self, source: Source | None, workflow: str) -> visualizer.Graph | None:
        """None where there is no source, or none that can be drawn."""
        if source is None or len(source.text) > SOURCE_MAX:
            return None
        key = (workflow, source.text)
        if key not in self._graphs:
            self._graphs[key] = _graph_of(source.text, workflow)
            if len(self._graphs) > DIAGRAMS_MAX:
                self._graphs.popitem(last=False)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def drawing(
        self,
        source: Source | None,
        workflow: str,
        *,
        history: Sequence[HistoryEvent] = (),
        status: str = "",
        waits: Sequence[EventWait] = (),
    ) -> Drawing | None:
        """The diagram of a workflow, with what one instance did where there is a history."""
        graph = self.graph(source, workflow)
        if graph is None or source is None:
            return None
        if status:
            graph = _laid_over(graph, history, status, waits)
        svg = visualizer.to_svg(graph, alone=False)
        return Drawing(
            svg=svg,
            small=_width_of(svg) <= SMALL_WIDTH,
            mermaid=visualizer.to_mermaid(graph),
            notes=graph.notes,
            running=tuple(node.name or node.label for node in graph.nodes if node.state is visualizer.State.RUNNING),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    svg: str
    mermaid: str
    small: bool
    """Narrow enough to be drawn smaller on a telephone, and still be read."""
    notes: tuple[str, ...]
    running: tuple[str, ...]
    """Names of the steps that run now, as far as the source tells."""


def _width_of(svg: str) -> int:
    """As the drawing says itself, in its first element."""
    found = re.match(r'<svg [^>]*?\bwidth="(\d+)"', svg)
    assert found is not None, svg[:200]
    return int(found.group(1))


def parameters_in(text: str) -> dict[str, tuple[str, ...]]:
    """By the names of functions, and the names that their decorators give them: parameters but the first."""
    try:
        tree = ast.parse(textwrap.dedent(text))
    except (SyntaxError, ValueError, RecursionError):
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args]
            for name in (node.name, *_given_names(node)):
                found.setdefault(name, tuple(argument.arg for argument in arguments[1:]))
    return found


def _given_names(node: ast.AsyncFunctionDef | ast.FunctionDef) -> Iterator[str]:
    """`@workflow(name="shop.order")`."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call):
            for keyword in decorator.keywords:
                if (
                    keyword.arg == "name"
                    and isinstance(keyword.value, ast.Constant)
                    and isinstance(keyword.value.value, str)
                ):
                    yield keyword.value.value


def _laid_over(
    graph: visualizer.Graph, history: Sequence[HistoryEvent], status: str, waits: Sequence[EventWait]
) -> visualizer.Graph:
    try:
        return visualizer.overlay(graph, history, status=status, waits=waits)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        log.warning("a history cannot be laid over its diagram", exc_info=True)
        return graph


def _graph_of(text: str, workflow: str) -> visualizer.Graph | None:
    failures: tuple[Any, ...] = (SyntaxError, ValueError, RecursionError)
    for name in (workflow, None):
        try:
            return visualizer.diagram(text, name)
        except failures:
            continue
    return None
