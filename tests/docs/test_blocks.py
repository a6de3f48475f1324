"""Every block of the README and of the documentation runs, in a directory of its own, or is what it says to be.

The top level of a Python block may await. Pages that are walks are tested as a whole, in `test_walks`.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.brokers import DEFAULTS, broker
from tests.docs.pages import README, ROOT, Block, blocks, documents, single_blocks

SECONDS_MAX = 60

RUNNER = """
import ast, asyncio, sys
path = sys.argv[1]
code = compile(open(path, encoding="utf-8").read(), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
if code.co_flags & 0x80:  # it awaits at the top level
    asyncio.run(eval(code))
else:
    exec(code)
"""

SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)
"""A file of the repository, put there when the site is built."""

READERS: dict[str, Callable[[str], Any]] = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}


def of_language(*languages: str) -> list[Block]:
    return [block for block in single_blocks() if block.language in languages]


@pytest.mark.process
@pytest.mark.parametrize("block", of_language("python"), ids=str)
def test_the_block_runs(block: Block, tmp_path: Path) -> None:
    if block.is_fragment:
        compile(block.code, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return
    code = block.code if block.needs is None else block.code.replace(DEFAULTS[block.needs], broker(block.needs))
    (tmp_path / "block.py").write_text(code, encoding="utf-8")
    run(block, [sys.executable, "-c", RUNNER, "block.py"], tmp_path)


@pytest.mark.process
@pytest.mark.parametrize("block", of_language("sh"), ids=str)
def test_the_command_runs(block: Block, tmp_path: Path) -> None:
    run(block, ["bash", *(["-n"] if block.is_not_run else ["-eu"]), "-c", block.code], tmp_path)


@pytest.mark.parametrize("block", of_language(*READERS), ids=str)
def test_the_block_can_be_read(block: Block) -> None:
    READERS[block.language](SNIPPET.sub(lambda found: (ROOT / found[1]).read_text(encoding="utf-8"), block.code))


def run(block: Block, command: list[str], directory: Path) -> None:
    outcome = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{directory}"},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert outcome.returncode == 0, f"{block}\n{block.code}\n{outcome.stdout}\n{outcome.stderr}"


def test_the_readme_shows_python_that_runs() -> None:
    assert [block for block in blocks(README) if block.language == "python" and not block.is_fragment]


def test_blocks_are_in_a_language_that_somebody_checks() -> None:
    checked = {"python", "sh", "text", "html", "console", *READERS}  # sessions of a console: test_console
    assert [str(block) for path in documents() for block in blocks(path) if block.language not in checked] == []


def test_blocks_are_found_with_their_lines_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "```python\nfirst = 1\n```\n\nText\n\n<!-- fragment -->\n```python\nawait second\n```\n\n"
        '1. item\n\n   ```python title="x.py"\n   third = 3\n   ```\n\n<!-- not run: why -->\n```sh\nls\n```\n'
    )
    found = [(block.line, block.language, block.code, block.title, block.note) for block in blocks(path)]
    assert found == [
        (2, "python", "first = 1\n", None, ""),
        (9, "python", "await second\n", None, "fragment"),
        (15, "python", "third = 3\n", "x.py", ""),
        (20, "sh", "ls\n", None, "not run: why"),
    ]
