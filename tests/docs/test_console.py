"""The sessions in docs/how-to/command-line.md are what a terminal shows: they are typed, in order, in one directory.

`…` stands for anything. A command that ends with `&` goes on beside the others until the page is over.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "command-line.md"
FENCE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS_MAX = 60
OLD_SQLITE = "WAL-reset bug"
"""What every second process that writes is told, where SQLite is older than 3.51.3."""


def sessions(text: str) -> Iterator[tuple[str, str]]:
    """Commands, and what they are to print."""
    for fence in FENCE.findall(text):
        for part in re.split(r"^\$ ", fence, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            yield command, printed


def pattern(printed: str) -> re.Pattern[str]:
    lines = [re.escape(line).replace("…", ".*") for line in printed.splitlines()]
    return re.compile(r"\s*".join([*lines, ""]), re.DOTALL)


@pytest.mark.process
@pytest.mark.timeout(400)  # some fifteen processes, one after the other
def test_every_session_of_the_page_goes_as_it_is_printed(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    program = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert program is not None
    (tmp_path / "shop.py").write_text(program[1])
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    script = bin_directory / "edda"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m edda "$@"\n')
    script.chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{bin_directory}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "TERM": "dumb",
    }  # fmt: skip
    environment.pop("EDDA_DATABASE_URL", None)
    found = list(sessions(text))
    assert len(found) >= 12
    with ExitStack() as stack:
        code = 0
        for command, printed in found:
            if command.endswith("&"):
                _begin(command.removesuffix("&"), printed, tmp_path, environment, stack)
            else:
                code = _check(command.replace("$?", str(code)), printed, tmp_path, environment)


def _begin(command: str, printed: str, directory: Path, environment: dict[str, str], stack: ExitStack) -> None:
    log = directory / "background.log"
    with log.open("w") as output:
        process = subprocess.Popen(f"exec {command}", shell=True, cwd=directory, env=environment, stderr=output)
    stack.callback(process.wait)
    stack.callback(process.kill)
    deadline = time.monotonic() + SECONDS_MAX
    while not pattern(printed).search(log.read_text()):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)  # it needs the processor more than we do


def _check(command: str, printed: str, directory: Path, environment: dict[str, str]) -> int:
    """What depends on the worker may take a moment, so whatever only looks is asked again."""
    deadline = time.monotonic() + SECONDS_MAX
    while True:
        done = subprocess.run(
            command, shell=True, cwd=directory, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX
        )
        said = done.stdout + "".join(line for line in done.stderr.splitlines(True) if OLD_SQLITE not in line)
        if pattern(printed).fullmatch(said):
            return done.returncode
        again = command.startswith(("edda why", "edda show", "edda ls"))
        if not again or time.monotonic() > deadline:
            pytest.fail(f"$ {command}\n{said}\n-- and not:\n{printed}")


def test_sessions_are_found_with_what_they_print() -> None:
    text = textwrap.dedent("""\
        ```console
        $ edda ls
        ID …
        $ edda why x
        ```
    """)
    assert list(sessions(text)) == [("edda ls", "ID …\n"), ("edda why x", "")]
    assert pattern("a … c\n").fullmatch("a b\nb c\n")
    assert not pattern("a … c\n").fullmatch("a b d\n")
