"""For all tests: which databases there are is found out once, said loudly, and handed to child processes."""

from __future__ import annotations

import pytest

from tests import brokers, databases


def pytest_configure(config: pytest.Config) -> None:
    databases.available()


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [*databases.report_lines(), *brokers.report_lines()]
