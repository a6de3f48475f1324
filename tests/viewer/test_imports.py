"""The viewer starts quickly because it imports no engine, and nothing that only writers need."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = "import sys; from edda.viewer import create_app; print(*sys.modules)"


def test_the_viewer_imports_no_engine_and_no_sqlalchemy() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    assert {"edda.viewer.application", "starlette.applications"} <= found
    assert not found & {"edda.app", "edda.engine.engine", "sqlalchemy", "pydantic", "httpx2", "uvicorn"}
