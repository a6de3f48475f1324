"""Diagrams of workflows: from source text to a graph, to SVG and to Mermaid, bare or with an execution laid over it.

`diagram(source)` reads the text alone and runs nothing; `overlay(graph, history)` marks what an execution did, by call
site; `to_svg(graph)` and `to_mermaid(graph)` draw. `draw(workflow)` does it in one for a workflow that is at hand.
"""

from __future__ import annotations

from edda.visualizer.analyzer import NoWorkflowError, diagram
from edda.visualizer.compatible import MermaidGenerator, WorkflowAnalyzer
from edda.visualizer.execution import overlay
from edda.visualizer.graph import Edge, EdgeKind, Graph, Node, NodeKind, State
from edda.visualizer.mermaid import to_mermaid
from edda.visualizer.source import diagram_of, draw
from edda.visualizer.svg import style_sheet, to_svg

__all__ = [
    "Edge",
    "EdgeKind",
    "Graph",
    "Node",
    "NodeKind",
    "MermaidGenerator",
    "NoWorkflowError",
    "State",
    "WorkflowAnalyzer",
    "diagram",
    "diagram_of",
    "draw",
    "overlay",
    "style_sheet",
    "to_mermaid",
    "to_svg",
]
