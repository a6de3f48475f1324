"""The diagrams of nasty workflows and of all examples are what a person found right.

After a change that is meant: `EDDA_UPDATE_SNAPSHOTS=1 pytest tests/visualizer/test_snapshots.py`; read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edda.visualizer import to_mermaid
from tests.visualizer.corpus import SOURCES, graph_of, told

SNAPSHOTS = Path(__file__).parent / "snapshots"


def compare(name: str, text: str) -> None:
    path = SNAPSHOTS / name
    if os.environ.get("EDDA_UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"there is no snapshot {name} yet: see the head of this file"
    assert text == path.read_text()


@pytest.mark.parametrize("name", SOURCES)
def test_the_graph_is_what_it_was(name: str) -> None:
    compare(f"{name}.txt", told(graph_of(name)))


@pytest.mark.parametrize("name", SOURCES)
def test_the_mermaid_text_is_what_it_was(name: str) -> None:
    compare(f"{name}.mmd", to_mermaid(graph_of(name)))


def test_no_snapshot_is_left_over() -> None:
    known = {f"{name}.{suffix}" for name in SOURCES for suffix in ("txt", "mmd")}
    assert {path.name for path in SNAPSHOTS.iterdir()} == known
