"""From the source text of a workflow to its graph. Reads the text only: nothing of it is imported or run.

A statement that makes no durable call and does not change the way through the function is left out. Helper functions
whose source is in the same text are drawn where they are called, in a frame with their name.
"""

from __future__ import annotations

import ast
import textwrap

from edda.visualizer.body import Reader
from edda.visualizer.flow import edges_of, reachable
from edda.visualizer.graph import Block, Graph, Node, Step, blocks_in, nodes_in
from edda.visualizer.names import Declared, Function, Names, declaration_of, names_in


class NoWorkflowError(ValueError):
    """The text holds no such workflow function."""


def diagram(source: str, workflow: str | None = None) -> Graph:
    """The graph of a workflow from its source: of one function, or of a whole module.

    `workflow` chooses one by its name in history or its function's name; else it is the first one that is declared,
    or the first `async def`. Raises SyntaxError for what is no Python and `NoWorkflowError` where there is no such
    function.
    """
    tree = ast.parse(textwrap.dedent(source))
    names = names_in(tree)
    declared = _chosen(tree, names, workflow)
    assert declared.function is not None
    reader = Reader(names=names)
    block = reader.read_workflow(declared.function, declared.name)
    shown = _in_order(block, {node.id: node for node in reader.nodes})
    edges = edges_of(block, nodes=shown)
    nodes = reachable(shown, edges)
    return Graph(
        name=declared.name,
        title=_first_line(declared.function),
        nodes=nodes,
        edges=edges,
        block=block,
        abandons=reader.abandons,
    )


def _in_order(block: Block, nodes: dict[str, Node]) -> list[Node]:
    """The nodes that are drawn, in the order of the source; a compensation follows what it undoes."""
    undos = {step.node: step.undo for step in blocks_in(block) if isinstance(step, Step) and step.undo}
    found: list[Node] = []
    for node_id in nodes_in(block):
        found.append(nodes[node_id])
        if node_id in undos:
            found.append(nodes[undos[node_id]])
    return found


def workflows_in(tree: ast.Module) -> list[str]:
    """The names of the workflows that a text declares, in its order."""
    declared = [one for one in names_in(tree).declared.values() if one.sort == "workflow" and one.function]
    return [one.name for one in sorted(declared, key=lambda one: one.function.lineno if one.function else 0)]


def _chosen(tree: ast.Module, names: Names, workflow: str | None) -> Declared:
    workflows = [declared for declared in names.declared.values() if declared.sort == "workflow"]
    workflows.sort(key=lambda declared: declared.function.lineno if declared.function else 0)
    plain = [
        declaration_of(names, node) or Declared(sort="workflow", name=node.name, function=node)
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef)
    ]
    for declared in [*workflows, *plain]:
        if workflow is None or workflow in (declared.name, declared.function.name if declared.function else ""):
            return declared
    raise NoWorkflowError(
        "There is no async function in this text"
        if workflow is None
        else f"There is no workflow {workflow!r} in this text"
    )


def _first_line(function: Function) -> str:
    return (ast.get_docstring(function) or "").partition("\n")[0]
