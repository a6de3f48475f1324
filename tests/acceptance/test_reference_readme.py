"""The samples of the reference's README run as they are written (promise R147), each in a process of its own.

Samples of parts that are not built yet (events, HTTP) come with those parts.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.acceptance.processes import ROOT
from tests.acceptance.reference_samples import SAMPLES, Sample
from tests.databases import available, fresh_database

PRELUDE = """
import asyncio, json, time
from edda import EddaApp
from tests.acceptance.support import Tables, events_of, eventually, results_of

async def table(sql):
    return await Tables("sqlite:///workflow.db").rows(sql)
"""

RUNNER = """
import ast, asyncio, sys
path = sys.argv[1]
code = compile(open(path, encoding="utf-8").read(), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

async def main():
    outcome = eval(code, globals())
    if outcome is not None:
        await outcome

asyncio.run(main())
"""


@pytest.fixture
def postgresql() -> Iterator[dict[str, str]]:
    """What makes `postgresql://localhost/workflows` a database of our own: the variables of PostgreSQL's clients."""
    if available()["postgresql"] is None:
        pytest.skip("there is no postgresql server")
    with fresh_database("postgresql") as url:
        server = make_url(url)
        yield {
            "database": str(server.database),
            "PGPORT": str(server.port or 5432),
            "PGUSER": server.username or "postgres",
            "PGPASSWORD": str(server.password or ""),
        }


def run(sample: Sample, directory: Path, *, environment: dict[str, str]) -> None:
    program = "\n".join((PRELUDE, sample.given, sample.code, sample.then))
    if "database" in environment:
        program = program.replace("localhost/workflows", f"localhost/{environment['database']}")
    (directory / "sample.py").write_text(program, encoding="utf-8")
    outcome = subprocess.run(
        [sys.executable, "-c", RUNNER, "sample.py"],
        cwd=directory,
        env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, f"{program}\n\n{outcome.stdout}\n{outcome.stderr}"


@pytest.mark.process
@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.needs == "sqlite"])
def test_R147_the_sample_runs_as_it_is_written(name: str, tmp_path: Path) -> None:
    run(SAMPLES[name], tmp_path, environment={})


@pytest.mark.process
@pytest.mark.postgresql
@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.needs == "postgresql"])
def test_R147_the_sample_runs_as_it_is_written_on_postgresql(
    name: str, tmp_path: Path, postgresql: dict[str, str]
) -> None:
    run(SAMPLES[name], tmp_path, environment=postgresql)
