"""The names of the reference: `WorkflowAnalyzer` and `MermaidGenerator`, as thin forms over the graph.

The analyzer's dicts are steps with a `type`, nested as the source is; the generator draws one of them again.
"""

from __future__ import annotations

import ast
from typing import Any, Final

from edda.visualizer.analyzer import diagram, workflows_in
from edda.visualizer.graph import Block, Branch, Choice, Frame, Graph, Loop, Node, NodeKind, Parallel, Run, Step, Try
from edda.visualizer.mermaid import to_mermaid

_TYPES: Final[dict[NodeKind, str]] = {
    NodeKind.ACTIVITY: "activity",
    NodeKind.EVENT_WAIT: "wait_event",
    NodeKind.TIMER: "wait_timer",
    NodeKind.CHILD: "child_workflow",
    NodeKind.CHILD_RESULT: "child_workflow",
    NodeKind.EVENT_SEND: "send_event",
    NodeKind.REGISTRATION: "compensation",
    NodeKind.CALL: "call",
    NodeKind.RETURN: "return",
    NodeKind.RAISE: "raise",
    NodeKind.BREAK: "break",
    NodeKind.CONTINUE: "continue",
}


class WorkflowAnalyzer:
    """Reads source text."""

    def analyze(self, source: str) -> list[dict[str, Any]]:
        """The workflows in a text: `name`, `docstring`, `steps`, and the text itself for the generator."""
        return [
            {"name": graph.name, "docstring": graph.title, "steps": _steps(graph, graph.block), "source": source}
            for graph in (diagram(source, name) for name in workflows_in(ast.parse(source)))
        ]


class MermaidGenerator:
    """Draws what the analyzer read."""

    def generate(self, workflow: dict[str, Any]) -> str:
        """The flowchart of a dict of the analyzer's."""
        return to_mermaid(diagram(workflow["source"], workflow["name"]))


def _steps(graph: Graph, block: Block) -> list[dict[str, Any]]:
    nodes = graph.by_id()
    match block:
        case Run():
            return [step for part in block.blocks for step in _steps(graph, part)]
        case Step():
            return _step(nodes[block.node], block.undo and nodes[block.undo].name)
        case Choice():
            return [_choice(graph, block, nodes[block.node])]
        case Loop():
            body, otherwise = _steps(graph, block.body), _steps(graph, block.otherwise)
            return [{"type": "loop", "label": nodes[block.node].label, "body": body, "else": otherwise}]
        case Parallel():
            return [{"type": "parallel", "branches": _branches(graph, block.branches)}]
        case Try():
            return [
                {
                    "type": "try",
                    "body": _steps(graph, block.body),
                    "except": _branches(graph, block.handlers),
                    "else": _steps(graph, block.otherwise),
                    "finally": _steps(graph, block.lastly),
                }
            ]
        case Frame():
            return _steps(graph, block.block)


def _step(node: Node, undo: str) -> list[dict[str, Any]]:
    kind = _TYPES.get(node.kind)
    if kind is None:
        return []
    step: dict[str, Any] = {"type": kind, "name": node.name or node.label, "label": node.label, "line": node.line}
    return [{**step, "compensation": undo} if undo else step]


def _choice(graph: Graph, choice: Choice, node: Node) -> dict[str, Any]:
    branches = _branches(graph, choice.branches)
    kind = "match" if node.label.startswith("match ") else "condition" if len(branches) == 2 else "multi_condition"
    return {"type": kind, "label": node.label, "line": node.line, "branches": branches}


def _branches(graph: Graph, branches: tuple[Branch, ...]) -> list[dict[str, Any]]:
    return [{"label": branch.label, "steps": _steps(graph, branch.block)} for branch in branches]
