"""`python -m documentation` (`./run docs`): the site, from docs/ to build/site; any warning is an error.

First what can be read from the code is written into the pages, where it stays and is committed (see `regions`). Then
Zensical builds the site. Then the pages as they are and llms-full.txt are put beside it, for language models.
`--pages` does only the first; `--check` says whether it would change anything.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from documentation.llms import full_text
from documentation.regions import outdated, renew

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = ROOT / "build" / "site"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="./run docs", description="Build the documentation site into build/site.")
    parser.add_argument("--pages", action="store_true", help="only renew the generated parts of the pages")
    parser.add_argument("--check", action="store_true", help="only say which generated parts are not of today")
    options = parser.parse_args(arguments)
    if options.check:
        stale = outdated(DOCS)
        print("\n".join(f"{name} is not of today; ./run docs renews it" for name in stale))
        return bool(stale)
    for name in renew(DOCS):
        print(f"renewed {name}")
    if not options.pages:
        build()
        print(f"The site is in {SITE.relative_to(ROOT)}; look at it with: python -m http.server -d build/site 8000")
    return 0


def build() -> None:
    """Raises CalledProcessError for a link or an anchor that does not exist, and for every other warning."""
    shutil.rmtree(SITE, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=ROOT, check=True)
    for page in DOCS.glob("**/*.md"):  # llms.txt leads to them
        shutil.copyfile(page, SITE / page.relative_to(DOCS))
    (SITE / "llms-full.txt").write_text(full_text(DOCS), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
