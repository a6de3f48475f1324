"""The names of the reference."""

from __future__ import annotations

from edda.visualizer import MermaidGenerator, WorkflowAnalyzer, to_mermaid
from tests.visualizer.corpus import SOURCES, graph_of


def test_the_analyzer_lists_the_workflows_of_a_text_with_their_steps() -> None:
    text, _ = SOURCES["early_returns"]
    found = {one["name"]: one for one in WorkflowAnalyzer().analyze(text)}
    steps = found["early_returns"]["steps"]
    assert [step["type"] for step in steps] == [
        "condition", "activity", "condition", "condition", "activity", "return",
    ]  # fmt: skip
    assert steps[1] | {"line": 0} == {
        "type": "activity", "name": "take-it", "label": "take-it", "line": 0, "compensation": "give-back",
    }  # fmt: skip
    assert found["match_with_guards"]["steps"][1]["type"] == "match"
    assert found["nested_branches"]["steps"][0]["type"] == "multi_condition"
    assert found["try_everything"]["steps"][0]["type"] == "try"
    assert found["loop_with_break_else"]["steps"][0]["type"] == "loop"


def test_the_generator_draws_what_was_analyzed() -> None:
    text, _ = SOURCES["early_returns"]
    for workflow in WorkflowAnalyzer().analyze(text):
        if workflow["name"] == "early_returns":
            assert MermaidGenerator().generate(workflow) == to_mermaid(graph_of("early_returns"))
