"""What follows what: from nested blocks to edges.

A *loose end* is a way out of a block that does not know its target yet. A block is connected to the loose ends before
it and leaves some of its own; none means that what comes after it is never reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edda.visualizer.graph import (
    Block,
    Choice,
    Edge,
    EdgeKind,
    Frame,
    Graph,
    Loop,
    Node,
    NodeKind,
    Parallel,
    Run,
    Step,
    Try,
    nodes_in,
)


@dataclass(frozen=True, slots=True)
class Loose:
    source: str
    kind: EdgeKind = EdgeKind.NEXT
    label: str = ""


Ends = tuple[Loose, ...]


@dataclass(slots=True)
class _Exits:
    """Where the ways out of the enclosing blocks are gathered."""

    returns: list[Loose] = field(default_factory=list[Loose])
    breaks: list[Loose] = field(default_factory=list[Loose])
    loop: str = ""


def edges_of(block: Block, *, nodes: Sequence[Node]) -> tuple[Edge, ...]:
    """All edges of a workflow."""
    flow = _Flow({node.id: node.kind for node in nodes})
    flow.connect(block, (), _Exits())
    return tuple(dict.fromkeys(flow.edges))


def reachable(nodes: Sequence[Node], edges: Sequence[Edge]) -> tuple[Node, ...]:
    """The nodes, with a mark on those that no way leads to."""
    following: dict[str, list[str]] = {}
    for edge in edges:
        following.setdefault(edge.source, []).append(edge.target)
    seen, pending = {"start"}, ["start"]
    while pending:
        for target in following.get(pending.pop(), ()):
            if target not in seen:
                seen.add(target)
                pending.append(target)
    return tuple(node if node.id in seen else replace(node, reachable=False) for node in nodes)


@dataclass(slots=True)
class _Flow:
    kinds: dict[str, NodeKind]
    edges: list[Edge] = field(default_factory=list[Edge])
    dead: set[str] = field(default_factory=set[str])
    """Nodes that nothing alive leads to."""

    def connect(self, block: Block, ends: Ends, exits: _Exits) -> Ends:
        """Draw the edges into and inside a block; returns its loose ends."""
        match block:
            case Run():
                for part in block.blocks:
                    ends = self.connect(part, ends, exits)
                return ends
            case Step():
                return self._step(block, ends, exits)
            case Choice():
                self._into(block.node, ends)
                return tuple(
                    end
                    for branch in block.branches
                    for end in self.connect(branch.block, (Loose(block.node, EdgeKind.BRANCH, branch.label),), exits)
                )
            case Loop():
                return self._loop(block, ends, exits)
            case Parallel():
                return self._parallel(block, ends, exits)
            case Try():
                return self._try(block, ends, exits)
            case Frame():
                return self._frame(block, ends, exits)

    def _is_alive(self, ends: Ends) -> bool:
        return any(end.source not in self.dead for end in ends)

    def _into(self, node: str, ends: Ends) -> None:
        if node != "start" and not self._is_alive(ends):
            self.dead.add(node)
        self.edges += (Edge(source=end.source, target=node, kind=end.kind, label=end.label) for end in ends)

    def _step(self, step: Step, ends: Ends, exits: _Exits) -> Ends:
        self._into(step.node, ends)
        if step.undo:
            self.edges.append(Edge(source=step.node, target=step.undo, kind=EdgeKind.COMPENSATION, label="undo"))
        match self.kinds[step.node]:
            case NodeKind.RETURN:
                exits.returns.append(Loose(step.node))
            case NodeKind.BREAK:
                exits.breaks.append(Loose(step.node))
            case NodeKind.CONTINUE:
                self.edges.append(Edge(source=step.node, target=exits.loop, kind=EdgeKind.BACK))
            case NodeKind.RAISE:
                pass
            case _:
                return (Loose(step.node),)
        return ()

    def _loop(self, loop: Loop, ends: Ends, exits: _Exits) -> Ends:
        self._into(loop.node, ends)
        inner = _Exits(returns=exits.returns, loop=loop.node)
        for end in self.connect(loop.body, (Loose(loop.node, EdgeKind.BRANCH, "each"),), inner):
            self.edges.append(Edge(source=end.source, target=loop.node, kind=EdgeKind.BACK, label=end.label))
        over: Ends = () if loop.endless else (Loose(loop.node, EdgeKind.BRANCH, "done"),)
        return (*self.connect(loop.otherwise, over, exits), *inner.breaks)

    def _parallel(self, parallel: Parallel, ends: Ends, exits: _Exits) -> Ends:
        self._into(parallel.node, ends)
        joined: list[Loose] = []
        for branch in parallel.branches:
            joined += self.connect(branch.block, (Loose(parallel.node, EdgeKind.BRANCH, branch.label),), exits)
        return tuple(joined) if parallel.joined else (Loose(parallel.node),)

    def _try(self, block: Try, ends: Ends, exits: _Exits) -> Ends:
        self._into(block.node, ends)
        after = self.connect(block.body, (Loose(block.node),), exits)
        after = self.connect(block.otherwise, after, exits)
        for handler in block.handlers:
            after += self.connect(handler.block, (Loose(block.node, EdgeKind.EXCEPTION, handler.label),), exits)
        if not any(nodes_in(block.lastly)):
            return after
        if self._is_alive(after):
            return self.connect(block.lastly, after, exits)
        self.connect(block.lastly, (*after, Loose(block.node, EdgeKind.EXCEPTION, "finally")), exits)
        return ()

    def _frame(self, frame: Frame, ends: Ends, exits: _Exits) -> Ends:
        if not frame.function:
            return self.connect(frame.block, ends, exits)
        inner = _Exits()
        after = self.connect(frame.block, ends, inner)
        return (*after, *inner.returns) if not frame.detached else (*ends, *after)


def with_nodes(graph: Graph, nodes: dict[str, Node]) -> Graph:
    """The same structure with other nodes."""
    return replace(graph, nodes=tuple(nodes.get(node.id, node) for node in graph.nodes))
