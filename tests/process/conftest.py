"""Fixtures for tests with processes: those of the acceptance tests."""

from tests.acceptance.conftest import db_url, program

__all__ = ["db_url", "program"]
