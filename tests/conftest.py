"""For all tests: which databases there are is found out once, said loudly, and handed to child processes."""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

from tests import brokers, databases
from tests.viewer import browser

# A busy machine is slow, and that is no fault of what is tested.
settings.register_profile("edda", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("edda")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell that runs the tests in the background ignores it, and so would every process that a test interrupts.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    databases.available()
    browser.check_required()


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [*databases.report_lines(), *brokers.report_lines(), *browser.report_lines()]
