"""The samples of the reference's README run as they are written (promise R147), each in a process of its own.

The one command among them, `uvicorn demo_app:application --port 8001`, is promise R121.
"""

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tests.acceptance.processes import ROOT
from tests.acceptance.reference_samples import SAMPLES, Sample
from tests.databases import available, fresh_database

PRELUDE = '''
import asyncio, json, time
from edda import EddaApp
from tests.acceptance.support import Tables, events_of, eventually, reaches, results_of

async def table(sql):
    return await Tables("sqlite:///workflow.db").rows(sql)

async def seconds_pass(seconds):
    """While no app runs: what has happened is so much longer ago."""
    tables = Tables("sqlite:///workflow.db")
    await tables.do(f"UPDATE edda_history SET at_us = at_us - {seconds * 1_000_000}")
    await tables.do(f"UPDATE edda_instance SET claimable_at_us = claimable_at_us - {seconds * 1_000_000}")

async def post(app, path, event_type, data):
    """POST a CloudEvent (or nothing, where there is no type) to an ASGI app; the status of the answer."""
    import httpx2, uuid
    event = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/test", "type": event_type, "data": data}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        body = b"" if event_type is None else json.dumps(event)
        return (await client.post(path, content=body, headers={"content-type": JSON})).status_code

JSON = "application/cloudevents+json"
'''

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


def code_of(sample: Sample) -> str:
    if not sample.returns:
        return sample.code
    body = textwrap.indent(f"{sample.code}\nreturn {sample.returns}\n", "    ")
    return f"@workflow\nasync def in_a_workflow(ctx: WorkflowContext):\n{body}"


def run(sample: Sample, directory: Path, *, environment: dict[str, str]) -> None:
    program = "\n".join((PRELUDE, sample.given, code_of(sample), sample.then))
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
