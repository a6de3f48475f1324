"""An app that names its database itself, as processes of their own run it."""

from __future__ import annotations

import os

from edda import EddaApp
from tests.cli.programs import approval, order, shipping

__all__ = ["app", "approval", "order", "shipping"]

app = EddaApp("cli-tests", db_url=os.environ.get("EDDA_TEST_CLI_URL", "sqlite:///edda.db"), poll_seconds=0.1)
