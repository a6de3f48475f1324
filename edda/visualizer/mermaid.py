"""From a graph to the text of a Mermaid flowchart, for copying into a README or a wiki.

Every word from a workflow is quoted and escaped with Mermaid's entity codes, so that no label can end its quotes, start
a tag or a directive. Node ids are our own: `n0`, `n1`, in the order of the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edda.visualizer.graph import Edge, EdgeKind, Graph, Node, NodeKind, State
from edda.visualizer.layout import caption_of

LABEL_MAX: Final = 80

_SHAPES: Final[dict[NodeKind, tuple[str, str]]] = {
    NodeKind.START: ("([", "])"),
    NodeKind.END: ("([", "])"),
    NodeKind.RETURN: ("([", "])"),
    NodeKind.RAISE: ("([", "])"),
    NodeKind.BREAK: ("([", "])"),
    NodeKind.CONTINUE: ("([", "])"),
    NodeKind.CHOICE: ("{", "}"),
    NodeKind.LOOP: ("{{", "}}"),
    NodeKind.TRY: ("[/", "\\]"),
    NodeKind.PARALLEL: ("[[", "]]"),
    NodeKind.EVENT_WAIT: ("{{", "}}"),
    NodeKind.CHILD: ("[[", "]]"),
}
_ARROWS: Final[dict[EdgeKind, str]] = {
    EdgeKind.NEXT: "-->",
    EdgeKind.BRANCH: "-->",
    EdgeKind.BACK: "-->",
    EdgeKind.EXCEPTION: "-.->",
    EdgeKind.COMPENSATION: "-.->",
}
_LOOKS: Final[dict[State, str]] = {
    State.EXECUTED: "fill:#e5f4ea,stroke:#1f7a45,color:#1c2330",
    State.RUNNING: "fill:#e4eefc,stroke:#1d5fc4,color:#1c2330",
    State.WAITING: "fill:#f0e8fb,stroke:#7440c0,color:#1c2330",
    State.RETRYING: "fill:#fdf0d8,stroke:#95610a,color:#1c2330",
    State.FAILED: "fill:#fce8e6,stroke:#b3261e,color:#1c2330",
    State.COMPENSATED: "fill:#fbeae2,stroke:#a8481f,color:#1c2330",
    State.PERHAPS: "stroke:#1f7a45,stroke-dasharray:2 3",
    State.SKIPPED: "opacity:0.45",
}


def to_mermaid(graph: Graph) -> str:
    """The flowchart of a graph, top down."""
    names = {node.id: f"n{index}" for index, node in enumerate(graph.nodes)}
    lines = ["flowchart TD"]
    lines += (f"    {names[node.id]}{_shape(node)}" for node in graph.nodes)
    lines += (f"    {_edge(edge, names)}" for edge in graph.edges)
    lines += _states(graph, names)
    return "\n".join(lines) + "\n"


def _shape(node: Node) -> str:
    opening, closing = _SHAPES.get(node.kind, ("[", "]"))
    words = [caption_of(node), _cut(node.label), *(_cut(detail) for detail in node.details)]
    if node.count > 1:
        words.append(f"{node.count} times")
    return f'{opening}"{"<br/>".join(escaped(word) for word in words if word)}"{closing}'


def _edge(edge: Edge, names: dict[str, str]) -> str:
    label = f'|"{escaped(_cut(edge.label))}"|' if edge.label else ""
    return f"{names[edge.source]} {_ARROWS[edge.kind]}{label} {names[edge.target]}"


def _states(graph: Graph, names: dict[str, str]) -> Iterator[str]:
    for state, look in _LOOKS.items():
        nodes = [names[node.id] for node in graph.nodes if node.state is state]
        if nodes:
            yield f"    classDef {state.value} {look}"
            yield f"    class {','.join(nodes)} {state.value}"
    unreachable = [names[node.id] for node in graph.nodes if not node.reachable]
    if unreachable:
        yield "    classDef unreachable opacity:0.5,stroke-dasharray:3 3"
        yield f"    class {','.join(unreachable)} unreachable"


def escaped(text: str) -> str:
    """Letters, digits and harmless signs as they are; all else as entity codes, `#34;`."""
    return "".join(letter if letter.isalnum() or letter in _HARMLESS else f"#{ord(letter)};" for letter in text)


_HARMLESS: Final = frozenset(" .,:_-+/=()'*?!|@$%…")


def _cut(text: str) -> str:
    return text if len(text) <= LABEL_MAX else text[: LABEL_MAX - 1] + "…"
