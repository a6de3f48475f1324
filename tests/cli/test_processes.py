"""The command line as users have it: real processes, signals, pipes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAMS, SERVICE

pytestmark = pytest.mark.process
ROOT = Path(__file__).parents[2]
EDDA = [sys.executable, "-m", "edda"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    url = f"sqlite:///{tmp_path / 'edda.db'}"
    found = {**os.environ, "EDDA_DATABASE_URL": url, "EDDA_TEST_CLI_URL": url}
    found |= {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    edda(found, "db", "upgrade")
    return found


def edda(environment: dict[str, str], *arguments: str, code: int = 0) -> str:
    done = subprocess.run([*EDDA, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout


@pytest.fixture
def worker(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*EDDA, "run", f"{SERVICE}:app"], env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Worker"):
            assert "cli_approval, cli_order, cli_shipping" in line
            break
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_a_worker_runs_what_is_started_and_ends_well_on_sigterm(
    environment: dict[str, str], worker: subprocess.Popen[str]
) -> None:
    waiting = subprocess.Popen(
        [*EDDA, "start", f"{PROGRAMS}:order", "order_id=5", "--id", "o-5", "--wait", "--timeout", "50s"],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    while '"o-5"' not in edda(environment, "ls", "--status", "waiting_for_event", "--json"):
        pass
    edda(environment, "send", "cli.paid", "--data", '{"order_id": "5", "by": "ann"}')
    assert waiting.communicate(timeout=60)[0] == '"5 paid by ann"\n'
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 0, errors
    assert "Stopping" in errors
    assert "Traceback" not in errors


def test_the_end_of_a_pipe_is_no_error(environment: dict[str, str]) -> None:
    for number in range(3):
        edda(environment, "start", f"{PROGRAMS}:order", f"order_id={number}")
    command = f"{' '.join(EDDA)} ls | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("ID")
    assert done.stderr == ""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error_and_no_database_gets_its_number(environment: dict[str, str], closed: str) -> None:
    command = f"{' '.join(EDDA)} start {PROGRAMS}:order order_id=1 --id o-1 {closed}"
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"o-1"' in edda(environment, "ls", "--json")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_what_an_encoding_cannot_say_is_written_as_in_json(environment: dict[str, str], encoding: str) -> None:
    edda(environment, "start", f"{PROGRAMS}:order", "order_id=1", "--id", "Zoë-𐍈")
    narrow = environment | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [*EDDA, "ls", "--json"]
    said = subprocess.run(command, env=narrow, capture_output=True, check=True, timeout=60).stdout.decode(encoding)
    assert json.loads(said)["instances"][0]["id"] == "Zoë-𐍈"
    command = [*EDDA, "show", "nobody-𐍈"]
    told = subprocess.run(command, env=narrow, capture_output=True, check=False, timeout=60)
    assert (told.returncode, b"nobody-\\ud800\\udf48" in told.stderr) == (3, True)


def test_tail_is_ended_by_ctrl_c_without_a_word(environment: dict[str, str]) -> None:
    with subprocess.Popen(
        [*EDDA, "tail"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "Waiting for changes" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=60)
            assert (process.returncode, out, errors) == (130, "", "")
        finally:
            process.kill()


def test_the_installed_script_is_the_same_command() -> None:
    script = Path(sys.executable).with_name("edda")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"edda \d+\.\d+\.\d+\n", done.stdout)


def test_bench_measures_and_leaves_nothing_behind(environment: dict[str, str]) -> None:
    before = edda(environment, "ls", "--json")
    text = edda(environment, "bench", "--instances", "5", "--json")
    assert "steps_per_second_together" in text
    assert edda(environment, "ls", "--json") == before
