"""Every Python block of the README and of the documentation runs as a program, in a directory of its own.

The top level of a block may await. `<!-- fragment -->` on the line before a block says that it is only a part of a
program: then it must compile. Decisions (docs/decisions) tell of the past and are left out.
"""

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
SECONDS_MAX = 60

BLOCK = re.compile(
    r"^(?P<before>[^\n]*)\n(?:[ \t]*\n)*?(?P<indent>[ \t]*)```python[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)

RUNNER = """
import ast, asyncio, sys
path = sys.argv[1]
code = compile(open(path, encoding="utf-8").read(), path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
if code.co_flags & 0x80:  # it awaits at the top level
    asyncio.run(eval(code))
else:
    exec(code)
"""


@dataclass(frozen=True, slots=True)
class Block:
    path: Path
    line: int
    code: str
    is_fragment: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks(path: Path) -> Iterator[Block]:
    text = "\n" + path.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        yield Block(
            path=path,
            line=text.count("\n", 0, match.start("code")),
            code=textwrap.dedent(match["code"]),
            is_fragment=match["before"].strip() == "<!-- fragment -->",
        )


def documents() -> list[Path]:
    docs = [path for path in sorted((ROOT / "docs").glob("**/*.md")) if "decisions" not in path.relative_to(ROOT).parts]
    return [*([README] if README.exists() else []), *docs]


@pytest.mark.process
@pytest.mark.parametrize("block", [block for path in documents() for block in blocks(path)], ids=str)
def test_the_block_runs(block: Block, tmp_path: Path) -> None:
    if block.is_fragment:
        compile(block.code, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        return
    (tmp_path / "block.py").write_text(block.code, encoding="utf-8")
    outcome = subprocess.run(
        [sys.executable, "-c", RUNNER, "block.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert outcome.returncode == 0, f"{block}\n{block.code}\n{outcome.stdout}\n{outcome.stderr}"


@pytest.mark.skipif(not README.exists(), reason="there is no README yet")
def test_the_readme_shows_python_that_runs() -> None:
    assert [block for block in blocks(README) if not block.is_fragment]


def test_blocks_are_found_with_their_lines_and_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "```python\nfirst = 1\n```\n\nText\n\n<!-- fragment -->\n```python\nawait second\n```\n\n"
        "1. item\n\n   ```python title=x\n   third = 3\n   ```\n\n```bash\nls\n```\n"
    )
    found = [(block.line, block.code, block.is_fragment) for block in blocks(path)]
    assert found == [(2, "first = 1\n", False), (9, "await second\n", True), (15, "third = 3\n", False)]
