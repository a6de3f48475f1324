"""The workflows that the diagrams are tested with: nasty ones, and all of the examples."""

from __future__ import annotations

import ast
from pathlib import Path

from edda.visualizer import Graph, diagram
from edda.visualizer.analyzer import workflows_in
from edda.visualizer.graph import Block, Branch, Choice, Frame, Loop, Parallel, Run, Step, Try

HERE = Path(__file__).parent
EXAMPLES = HERE.parent.parent / "examples"


def _sources() -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for path in [HERE / "nasty.py", *sorted(EXAMPLES.rglob("*.py"))]:
        text = path.read_text()
        for name in workflows_in(ast.parse(text)):
            prefix = "" if path.parent == HERE else f"{path.parent.name}."
            found[f"{prefix}{name}"] = (text, name)
    return found


SOURCES = _sources()
"""Source text and workflow by a name of our own."""


def graph_of(name: str) -> Graph:
    return diagram(*SOURCES[name])


def told(graph: Graph) -> str:
    """A graph as text that a person can check: its blocks, then its edges."""
    edges = sorted(
        f"{edge.source} -> {edge.target} [{edge.kind}{f': {edge.label}' if edge.label else ''}]" for edge in graph.edges
    )
    head = f"{graph.name}{' (abandons)' if graph.abandons else ''}"
    return "\n".join([head, *_told(graph, graph.block, 1), "", *edges]) + "\n"


def _told(graph: Graph, block: Block, depth: int) -> list[str]:
    pad = "  " * depth

    def branches(parts: tuple[Branch, ...]) -> list[str]:
        return [
            line for part in parts for line in (f"{pad}  = {part.label or '-'}", *_told(graph, part.block, depth + 2))
        ]

    match block:
        case Run():
            return [line for part in block.blocks for line in _told(graph, part, depth)]
        case Step():
            undo = [f"{pad}  undone by {graph.node(block.undo).label}"] if block.undo else []
            return [pad + _node(graph, block.node), *undo]
        case Choice():
            return [pad + _node(graph, block.node), *branches(block.branches)]
        case Loop():
            otherwise = _told(graph, block.otherwise, depth + 2)
            return [
                f"{pad}{_node(graph, block.node)}{' (endless)' if block.endless else ''}",
                *_told(graph, block.body, depth + 1),
                *([f"{pad}  = else", *otherwise] if otherwise else []),
            ]
        case Parallel():
            how = ("" if block.joined else " (not joined)") + (" (many)" if block.many else "")
            return [f"{pad}{_node(graph, block.node)}{how}", *branches(block.branches)]
        case Try():
            parts = (Branch("else", block.otherwise), Branch("finally", block.lastly))
            rest = tuple(part for part in parts if part.block != Run())
            return [
                pad + _node(graph, block.node),
                *_told(graph, block.body, depth + 1),
                *branches((*block.handlers, *rest)),
            ]
        case Frame():
            how = "".join(
                f" ({word})" for word in ("concurrent", "function", "detached") if getattr(block, word) and block.label
            )
            if not block.label:
                return _told(graph, block.block, depth)
            return [f"{pad}[{block.label}]{how}", *_told(graph, block.block, depth + 1)]


def _node(graph: Graph, node_id: str) -> str:
    node = graph.node(node_id)
    more = [*node.details]
    more += [f"name {node.name!r}"] if node.name and node.name != node.label else []
    more += [f"pattern {node.pattern!r}"] if node.pattern else []
    more += [f"id {node.call_pattern!r}"] if node.call_pattern else []
    more += [f"literals {dict(node.literals)!r}"] if node.literals else []
    more += [] if node.certain else ["uncertain"]
    more += [] if node.reachable else ["UNREACHABLE"]
    return f"{node.id} {node.kind}: {node.label}" + (f" ({'; '.join(more)})" if more else "")
