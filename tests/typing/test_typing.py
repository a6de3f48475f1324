"""mypy and pyright accept `accepted.py` whole, and of `rejected.py` reject exactly the lines that are marked so.

`rejected.py` has to be kept out of the ordinary runs of both checkers, which expect no errors.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = ("accepted.py", "rejected.py")

Errors = dict[tuple[str, int], str]
"""What is wrong, by file name and line."""


def mypy(cache: Path) -> Errors:
    command = [sys.executable, "-m", "mypy", "--strict", "--output", "json", "--cache-dir", str(cache), "--exclude", ""]
    output = run([*command, *(str(HERE / file) for file in FILES)])
    errors = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return {
        (Path(error["file"]).name, error["line"]): error["message"]
        for error in errors
        if error["severity"] == "error" and Path(error["file"]).parent == HERE.relative_to(ROOT)
    }


def pyright(directory: Path) -> Errors:
    for file in FILES:  # pyright reads only what is below its project
        shutil.copy(HERE / file, directory)
    settings = {"extraPaths": [str(ROOT)], "pythonVersion": "3.11", "typeCheckingMode": "strict"}
    (directory / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(directory)]
    report = json.loads(run(command))
    assert report["summary"]["filesAnalyzed"] == len(FILES), report["summary"]
    return {
        (Path(error["file"]).name, error["range"]["start"]["line"] + 1): error["message"]
        for error in report["generalDiagnostics"]
        if error["severity"] == "error"
    }


def run(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False).stdout


def marked() -> set[tuple[str, int]]:
    lines = (HERE / "rejected.py").read_text(encoding="utf-8").splitlines()
    return {("rejected.py", number) for number, line in enumerate(lines, 1) if re.search(r"# rejected$", line)}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_each_wrong_line_is_rejected_and_no_other(checker: Callable[[Path], Errors], tmp_path: Path) -> None:
    errors = checker(tmp_path)
    wrongly_rejected = {place: errors[place] for place in errors.keys() - marked()}
    wrongly_accepted = sorted(marked() - errors.keys())
    assert not wrongly_rejected
    assert not wrongly_accepted
