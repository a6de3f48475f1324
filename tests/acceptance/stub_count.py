"""How many promises are tested by something that can fail: `python -m tests.acceptance.stub_count`.

Runs the promises on an engine that records nothing (`stub_engine.py`) and names those of which no test failed: tests
that cannot fail, or promises about the package's metadata. Below the bar it is an error.
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

FAILING_MIN = 0.9
_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]


def run_on_stub(report: Path, *, arguments: tuple[str, ...] = ()) -> None:
    """Run the promises on the stub and write a JUnit report."""
    files = [str(path.relative_to(_ROOT)) for path in sorted(_HERE.glob("test_promises_*.py"))]
    command = [sys.executable, "-m", "pytest", "-p", "tests.acceptance.stub_engine", "-q", "--no-header", "--tb=no"]
    command += ["-p", "no:cacheprovider", "--runxfail", f"--junit-xml={report}", *arguments, *files]
    outcome = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True)
    if outcome.returncode != 1:  # tests failed, as they should
        raise RuntimeError(f"pytest ended with {outcome.returncode}\n{outcome.stdout}\n{outcome.stderr}")


def verdicts(report: Path) -> dict[int, bool]:
    """Per promise, whether at least one of its tests failed. Skipped tests say nothing."""
    failed: dict[int, bool] = defaultdict(bool)
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            for number in re.findall(r"(?<=_)R(\d+)(?=_)", case.attrib["name"]):  # one test may speak of several
                failed[int(number)] |= case.find("failure") is not None or case.find("error") is not None
    return dict(failed)


def summary(failed: dict[int, bool]) -> tuple[float, list[str]]:
    """The share of the promises that fail on the stub, and the report."""
    survivors = [f"R{number}" for number in sorted(failed) if not failed[number]]
    share = sum(failed.values()) / len(failed)
    return share, [
        f"{sum(failed.values())} of {len(failed)} promises fail on an engine that records nothing ({share:.0%}; "
        f"at least {FAILING_MIN:.0%} have to).",
        f"Those that do not: {', '.join(survivors) or 'none'}.",
    ]


def main() -> int:
    report = Path(sys.argv[1]) if len(sys.argv) > 1 else _ROOT / ".pytest_cache" / "stub.xml"
    report.parent.mkdir(exist_ok=True)
    run_on_stub(report, arguments=("-n", "2"))
    share, lines = summary(verdicts(report))
    print(*lines, sep="\n")
    return 0 if share >= FAILING_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
