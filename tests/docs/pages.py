"""The pages of the documentation, and the blocks of code in them.

A line before a block may say what it is:

- `<!-- fragment -->`: only a part of a program; then it must compile.
- `<!-- not run: why -->`: a command that cannot run here; then the shell must understand it.
- `<!-- until Ctrl-C -->`: a server, in a walk: it begins with `--port 0`, and is interrupted when it has spoken.
- `<!-- needs redis -->`: a program that needs a broker at its usual place; see `tests/brokers.py`.

`title="shop.py"` behind the language makes a block a file. A page with files is a *walk*: its files are written and its
commands run in the order of the page, in one directory, by one shell, as its reader would.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

BLOCK = re.compile(
    r"^(?P<before>[^\n]*)\n(?:[ \t]*\n)*?(?P<indent>[ \t]*)```(?P<language>[a-z]+)(?P<rest>[^\n]*)\n"
    r"(?P<code>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, slots=True)
class Block:
    path: Path
    line: int
    language: str
    code: str
    title: str | None
    note: str
    """What stands in the comment before it."""

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path}:{self.line}"

    @property
    def is_fragment(self) -> bool:
        return self.note == "fragment"

    @property
    def needs(self) -> str | None:
        return self.note.removeprefix("needs ") if self.note.startswith("needs ") else None

    @property
    def goes_on(self) -> bool:
        return self.note == "until Ctrl-C"

    @property
    def is_not_run(self) -> bool:
        return self.note.startswith("not run: ")


def blocks(path: Path) -> Iterator[Block]:
    text = "\n" + path.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        title = TITLE.search(match["rest"])
        note = re.fullmatch(r"<!-- (.*) -->", match["before"].strip())
        yield Block(
            path=path,
            line=text.count("\n", 0, match.start("code")),
            language=match["language"],
            code=textwrap.dedent(match["code"]),
            title=title and title[1],
            note=note[1] if note else "",
        )


def documents() -> list[Path]:
    """Decisions (docs/decisions) tell of the past and are left out."""
    docs = [path for path in sorted((ROOT / "docs").glob("**/*.md")) if "decisions" not in path.relative_to(ROOT).parts]
    return [README, *docs]


def walks() -> list[Path]:
    return [path for path in documents() if any(block.title for block in blocks(path))]


def single_blocks() -> list[Block]:
    """Those that are no part of a walk."""
    walked = walks()
    return [block for path in documents() for block in blocks(path) if path not in walked or _stands_alone(block)]


def _stands_alone(block: Block) -> bool:
    """On the page of a walk: what is neither one of its files nor one of its commands."""
    return block.title is None and (block.language != "sh" or block.is_not_run)
