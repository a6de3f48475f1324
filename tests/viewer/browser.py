"""The browser that the viewer is tested in: Debian's Chromium, headless; where it is, and how it is started."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "chromium"
"""The word in `EDDA_REQUIRE`."""

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",
)


def executable() -> str | None:
    """Its path; None where there is none. `EDDA_TEST_CHROMIUM` may name one, `none` switches it off."""
    wish = os.environ.get("EDDA_TEST_CHROMIUM", "")
    if wish:
        return None if wish == "none" else wish
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


def check_required() -> None:
    """An error where `EDDA_REQUIRE` asks for a browser and there is none."""
    if REQUIRED in os.environ.get("EDDA_REQUIRE", "").replace(" ", "").split(",") and executable() is None:
        raise pytest.UsageError("EDDA_REQUIRE asks for chromium, but there is none: install the package chromium")


def report_lines() -> list[str]:
    found = executable()
    return [f"chromium: {found}" if found else "!!! THE VIEWER IS NOT TESTED IN A BROWSER !!! there is no chromium"]
