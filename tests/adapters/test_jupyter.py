"""edda in a notebook: workflows in cells, `await` at their top level, cells that are run again; a real kernel."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

CELLS = [
    """
    import asyncio
    from edda import EddaApp, WorkflowContext, activity, sleep, workflow

    policy = type(asyncio.get_event_loop_policy())
    app = EddaApp(db_url="sqlite:///notebook.db")
    await app.initialize()
    """,
    """
    @activity
    async def add(ctx: WorkflowContext, number: int) -> int:
        return number + 1

    @workflow
    async def count(ctx: WorkflowContext, number: int) -> int:
        await sleep(ctx, 0.01)
        return await add(ctx, number)
    """,
    """
    handle = await count.start(1)
    await handle.result(timeout=30)
    """,
    """
    @activity
    async def add(ctx: WorkflowContext, number: int) -> int:
        return number + 100

    @workflow
    async def count(ctx: WorkflowContext, number: int) -> int:
        await sleep(ctx, 0.01)
        return await add(ctx, number)
    """,
    """
    await count.run(1)
    """,
    """
    await asyncio.gather(*(count.run(number) for number in range(3)))
    """,
    """
    assert type(asyncio.get_event_loop_policy()) is policy
    await app.shutdown()
    app.running
    """,
]
OUTPUTS = [None, None, "2", None, "101", "[100, 101, 102]", "False"]


def run(cells: list[str], directory: Path) -> list[str | None]:
    """The last value that each cell shows."""
    notebook: Any = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(_dedent(cell)) for cell in cells])
    client = NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(directory)}}
    )
    client.execute()
    return [_shown(cell) for cell in notebook.cells]


def _dedent(cell: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in cell.strip("\n").splitlines())


def _shown(cell: Any) -> str | None:
    values = [output.data["text/plain"] for output in cell.outputs if output.output_type == "execute_result"]
    return values[-1] if values else None


@pytest.fixture(autouse=True)
def this_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of this interpreter, whatever others are installed for the user."""
    place = tmp_path / "kernels" / "python3"
    place.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.mark.process
def test_workflows_of_cells_run_and_a_cell_that_is_run_again_counts(tmp_path: Path) -> None:
    assert run(CELLS, tmp_path) == OUTPUTS


@pytest.mark.process
def test_what_one_kernel_left_another_goes_on_with(tmp_path: Path) -> None:
    define = CELLS[1].replace("0.01", "2.0")
    start = """
    handle = await count.options(id="the-one").start(1)
    while await handle.status() != "waiting_for_timer":
        await asyncio.sleep(0.01)
    """
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(Exception, match=r"[Kk]ernel died"):
        run([CELLS[0], define, start, kill], tmp_path)
    shown = run([define_imports(define), CELLS[0], 'await app.handle("the-one").result(timeout=30)'], tmp_path)
    assert shown[-1] == "2"


def define_imports(cell: str) -> str:
    return "    from edda import WorkflowContext, activity, sleep, workflow\n" + cell.strip("\n")


@pytest.mark.process
def test_an_error_of_a_workflow_is_the_error_of_the_cell(tmp_path: Path) -> None:
    wrong = """
    @workflow
    async def fail(ctx: WorkflowContext) -> None:
        raise ValueError("as planned")

    await fail.run()
    """
    with pytest.raises(CellExecutionError, match="as planned"):
        run([CELLS[0], wrong], tmp_path)
