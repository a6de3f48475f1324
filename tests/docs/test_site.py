"""The site builds without a warning, needs nothing from elsewhere, and the generated parts of pages are of today."""

import re
from pathlib import Path

import pytest

from documentation.__main__ import DOCS, SITE, build
from documentation.llms import menu
from documentation.regions import makers, outdated, renewed
from edda import exceptions


def test_the_generated_parts_are_of_today() -> None:
    assert outdated(DOCS) == [], "./run docs renews them"


def test_a_part_that_is_not_of_today_is_noticed() -> None:
    page = "# Statuses\n\n<!-- begin transitions -->\nnothing follows\n<!-- end transitions -->\n"
    assert "nothing follows" not in renewed(page, makers(DOCS))


def test_every_page_is_in_the_menu() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.glob("**/*.md")}
    decisions = {page for page in pages if page.startswith("decisions/0")}
    assert pages - decisions == set(menu(DOCS))


def test_every_error_is_explained() -> None:
    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    errors = [
        name for name, thing in vars(exceptions).items() if isinstance(thing, type) and issubclass(thing, Exception)
    ]
    assert [name for name in errors if f"`{name}`" not in page] == []


@pytest.mark.process
def test_the_site_builds_without_a_warning_and_asks_nobody_else() -> None:
    build()
    pages = list(SITE.glob("**/*.html"))
    assert len(pages) >= len(menu(DOCS))
    assert {request for page in pages for request in requests(page)} == set()
    assert (SITE / "llms.txt").exists()
    assert "# Tutorial" in (SITE / "llms-full.txt").read_text(encoding="utf-8")


def requests(page: Path) -> list[str]:
    """What a browser would fetch from elsewhere to show the page."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"""<(?:script|img|iframe|link)[^>]+?(?:src|href)=["']?(https?://[^"' >]+)""", text)
