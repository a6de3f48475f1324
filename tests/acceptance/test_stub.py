"""The promises are tested by tests that can fail: on an engine that records nothing, at least 90 % of them do."""

from pathlib import Path

import pytest

from tests.acceptance.stub_count import FAILING_MIN, run_on_stub, summary, verdicts


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_on_an_engine_that_records_nothing_nearly_all_promises_fail(tmp_path: Path) -> None:
    run_on_stub(tmp_path / "report.xml")
    share, lines = summary(verdicts(tmp_path / "report.xml"))
    assert share >= FAILING_MIN, "\n".join(lines)
    print(*lines, sep="\n")
