"""For language models (llmstxt.org): the list of pages in llms.txt, and llms-full.txt with all of them in one text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

COMMENT: Final = re.compile(r"<!-- .*? -->\n?")
LINK: Final = re.compile(r"\[([^]]+)\]\([^)]+\)")
SNIPPET: Final = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


def full_text(docs: Path) -> str:
    """Every page, in the order of the menu."""
    return "\n\n".join(_plain(docs / name, root=docs.parent) for name in menu(docs)) + "\n"


def page_list(docs: Path) -> str:
    """A link to each page, and how it begins."""
    return "\n".join(f"- [{_headline(docs / name)}]({name}): {_first_sentence(docs / name)}" for name in menu(docs))


def menu(docs: Path) -> list[str]:
    """The pages in their order."""
    return _names(yaml.safe_load((docs.parent / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])


def _names(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    entries = entry.values() if isinstance(entry, dict) else entry
    return [name for inner in entries for name in _names(inner)]


def _plain(page: Path, *, root: Path) -> str:
    text = COMMENT.sub("", page.read_text(encoding="utf-8")).strip()
    return SNIPPET.sub(lambda found: (root / found[1]).read_text(encoding="utf-8").rstrip(), text)


def _headline(page: Path) -> str:
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _first_sentence(page: Path) -> str:
    paragraph = page.read_text(encoding="utf-8").split("\n\n")[1]
    sentence, *_ = re.split(r"(?<=\.) ", " ".join(paragraph.split()))
    return LINK.sub(r"\1", sentence)
