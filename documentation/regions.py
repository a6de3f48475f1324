"""Parts of pages that are written by the code itself, between `<!-- begin NAME -->` and `<!-- end NAME -->`.

They are committed, so that pages can be read without building anything; a test says when one is not of today.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from documentation import code, command_line
from documentation.llms import page_list

REGION: Final = re.compile(r"(?P<begin><!-- begin (?P<name>\w+) -->\n).*?(?P<end><!-- end (?P=name) -->)", re.DOTALL)


def makers(docs: Path) -> dict[str, Callable[[], str]]:
    return {
        "options": code.app_options,
        "http_options": code.http_options,
        "transitions": code.transitions,
        "tables": code.tables,
        "commands": command_line.commands,
        "decisions": lambda: decisions(docs),
        "pages": lambda: page_list(docs),
    }


def decisions(docs: Path) -> str:
    """Each decision by its headline."""
    pages = sorted((docs / "decisions").glob("0*.md"))
    return "\n".join(f"- [{_headline(page)}]({page.name})" for page in pages)


def renewed(text: str, made: dict[str, Callable[[], str]]) -> str:
    """The page as it should be. Raises KeyError for a region that nobody makes."""
    return REGION.sub(lambda found: f"{found['begin']}\n{made[found['name']]().strip()}\n\n{found['end']}", text)


def outdated(docs: Path) -> list[str]:
    return [str(page.relative_to(docs.parent)) for page, _ in _stale(docs)]


def renew(docs: Path) -> list[str]:
    """Write what is not of today; the names of these pages."""
    stale = list(_stale(docs))
    for page, text in stale:
        page.write_text(text, encoding="utf-8")
    return [str(page.relative_to(docs.parent)) for page, _ in stale]


def _stale(docs: Path) -> Iterator[tuple[Path, str]]:
    made = makers(docs)
    for page in sorted([*docs.glob("**/*.md"), docs / "llms.txt"]):
        text = page.read_text(encoding="utf-8")
        if (new := renewed(text, made)) != text:
            yield page, new


def _headline(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
