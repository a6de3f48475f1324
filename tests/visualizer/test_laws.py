"""What is true of every diagram: of nasty workflows, examples, random programs, and of any Python there is."""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edda.visualizer import Graph, NodeKind, NoWorkflowError, diagram, to_mermaid, to_svg
from edda.visualizer.graph import Step, blocks_in, nodes_in
from edda.visualizer.layout import layout
from edda.visualizer.mermaid import escaped
from tests.visualizer.corpus import SOURCES, graph_of
from tests.visualizer.programs import Program

STDLIB = Path(ast.__file__).parent

GRAPHS = {name: graph_of(name) for name in SOURCES} | {
    f"random {seed}": diagram(Program(seed).source) for seed in range(60)
}
every_graph = pytest.mark.parametrize("graph", [pytest.param(graph, id=name) for name, graph in GRAPHS.items()])


def reached(graph: Graph) -> set[str]:
    following: dict[str, list[str]] = {}
    for edge in graph.edges:
        following.setdefault(edge.source, []).append(edge.target)
    seen, pending = {"start"}, ["start"]
    while pending:
        for target in following.get(pending.pop(), ()):
            if target not in seen:
                seen.add(target)
                pending.append(target)
    return seen


@every_graph
def test_ids_are_unique_and_every_node_has_its_place_in_the_structure(graph: Graph) -> None:
    ids = [node.id for node in graph.nodes]
    undos = [step.undo for step in blocks_in(graph.block) if isinstance(step, Step) and step.undo]
    assert len(ids) == len(set(ids))
    assert Counter([*nodes_in(graph.block), *undos]) == Counter(ids)


@every_graph
def test_edges_join_nodes_that_are_there(graph: Graph) -> None:
    ids = {node.id for node in graph.nodes}
    assert {edge.source for edge in graph.edges} | {edge.target for edge in graph.edges} <= ids


@every_graph
def test_a_node_is_reached_or_marked(graph: Graph) -> None:
    seen = reached(graph)
    assert [node.id for node in graph.nodes if node.reachable != (node.id in seen)] == []


@every_graph
def test_nothing_in_the_picture_overlaps(graph: Graph) -> None:
    picture = layout(graph)
    boxes = picture.placed
    for index, one in enumerate(boxes):
        assert one.x >= -0.01
        assert one.x + one.width <= picture.width + 0.01
        assert 0 <= one.y <= picture.height - one.height + 0.01
        for other in boxes[index + 1 :]:
            apart = (
                one.x + one.width <= other.x
                or other.x + other.width <= one.x
                or one.y + one.height <= other.y
                or other.y + other.height <= one.y
            )
            assert apart, f"{one.node} and {other.node}"


@every_graph
def test_every_node_but_a_needless_end_is_in_the_picture(graph: Graph) -> None:
    placed = Counter(one.node for one in layout(graph).placed)
    missing = {node.id for node in graph.nodes} - set(placed)
    assert missing <= {"end", *(node.id for node in graph.nodes if node.kind is NodeKind.TRY)}
    assert set(placed.values()) == {1}


@every_graph
def test_svg_is_well_formed_and_holds_no_script_style_attribute_or_address(graph: Graph) -> None:
    root = ElementTree.fromstring(to_svg(graph, alone=False))
    allowed = {"svg", "title", "g", "rect", "path", "text", "polygon"}
    for element in root.iter():
        assert element.tag.removeprefix("{http://www.w3.org/2000/svg}") in allowed
        for attribute in element.attrib:
            assert not attribute.startswith("on")
            assert attribute not in ("style", "href", "id")


@every_graph
def test_mermaid_text_is_only_what_we_meant_it_to_be(graph: Graph) -> None:
    text = r'"[^"<>\[\]{}`\\;&]*(?:#\d+;|<br/>|[^"<>\[\]{}`\\;&])*"'
    shape = rf"(\(\[{text}\]\)|\{{{text}\}}|\{{\{{{text}\}}\}}|\[/{text}\\\]|\[\[{text}\]\]|\[{text}\])"
    node = re.compile(rf"    n\d+{shape}")
    edge = re.compile(rf"    n\d+ (-->|-\.->)(\|{text}\|)? n\d+")
    look = re.compile(r"    class(Def \w+ [\w:#,.\- ]+| [n\d,]+ \w+)")
    first, *lines = to_mermaid(graph).rstrip("\n").split("\n")
    assert first == "flowchart TD"
    for line in lines:
        assert node.fullmatch(line) or edge.fullmatch(line) or look.fullmatch(line), line


@given(st.text())
def test_no_text_can_leave_its_quotes_in_mermaid(text: str) -> None:
    safe = escaped(text)
    assert not set(safe) & set('"<>[]{}`\\&\n\r')
    assert re.sub(r"#(\d+);", lambda code: chr(int(code[1])), safe) == text


def durable_calls(source: str) -> Counter[str]:
    """The calls of activities in random programs, by `line:column`, in functions that are called."""
    tree = ast.parse(source)
    return Counter(
        f"{node.lineno}:{node.col_offset}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("a", "b")
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(min_value=1000, max_value=10**9))
def test_each_call_in_the_source_is_one_node_for_each_way_it_is_called(seed: int) -> None:
    source = Program(seed).source
    graph = diagram(source)
    drawn = [node.id for node in graph.nodes if node.kind is NodeKind.ACTIVITY]
    assert {node_id.rpartition("/")[2] for node_id in drawn} == set(durable_calls(source))
    assert len(set(drawn)) == len(drawn)


def _async_functions() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for path in sorted([*STDLIB.glob("*.py"), *STDLIB.glob("asyncio/*.py"), *STDLIB.glob("test/test_asyncio/*.py")]):
        text = path.read_text(errors="replace")
        if "async def" in text:
            found += ((str(path), one) for one in _segments(text))
    return found


def _segments(text: str) -> list[str]:
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)]
    return [ast.unparse(node) for node in functions[:40]]


def test_any_async_function_can_be_drawn() -> None:
    functions = _async_functions()
    assert len(functions) > 30, f"found only {len(functions)} in {STDLIB} of Python {sys.version}"
    for path, text in functions:
        graph = diagram(text)
        assert to_svg(graph), path
        assert to_mermaid(graph), path


def test_what_is_no_workflow_is_refused_in_words() -> None:
    with pytest.raises(NoWorkflowError, match="no async function"):
        diagram("x = 1")
    with pytest.raises(NoWorkflowError, match="no workflow 'other'"):
        diagram("async def one(ctx): ...", "other")
    with pytest.raises(SyntaxError):
        diagram("async def")
