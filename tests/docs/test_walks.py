"""A page with files is followed word by word: files are written and commands run in one directory, by one shell.

What a `text` block below a command shows has to be printed, line by line in this order; `…` in it stands for anything.
`<!-- exactly -->` before it: and nothing else.
"""

import contextlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks, walks

SECONDS_MAX = 280

PORT = "8000"
"""Where servers listen, on every page."""
FREE_PORTS = range(20_000, 30_000)
"""No system gives one of these to a client, or for port 0: what is free now is free when the server begins."""

WHERE_TIME_IS_NOT_KNOWN = """
said() { wc -c < ../said.txt; }
listens() { (exec 3<> /dev/tcp/127.0.0.1/$1) 2> /dev/null; }
kill() { builtin kill "$@" && if [ "$1" = -9 ]; then wait "$2" || true; fi; }
ready() { if [ -n "$serves" ]; then listens "$serves"; else [ "$(said)" != "$begun" ]; fi; }
sleep() {
    local before now calm=0 _
    for _ in {1..600}; do ready && break; command sleep 0.1; done
    while [ "$calm" -lt 6 ]; do
        before=$(said)
        command sleep 0.25
        now=$(said)
        if [ "$now" = "$before" ]; then calm=$((calm + 1)); else calm=0; fi
    done
}
"""
"""`sleep` waits until the program in the background listens, or has said something; then for a second and a half in
which nobody says anything. How long that takes depends on the machine, and what a page kills must be at its five
seconds of work: not before them, and not after. `kill -9` returns when the process is gone, and its port free."""

INTERRUPT = "while builtin kill -INT $! 2> /dev/null; do command sleep 0.2; done; wait $!"
"""More than once: what a shell begins in the background hears it only when it has asked to."""
IN_THE_BACKGROUND = re.compile(r"(?<!&)&( |$)")


@pytest.mark.process
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", walks(), ids=lambda page: page.stem)
def test_the_page_can_be_followed(page: Path, tmp_path: Path) -> None:
    steps = [block for block in blocks(page) if not block.is_not_run]
    said = followed(steps, tmp_path)
    for block in steps:
        if block.language == "text":
            must_have_said(block, said)


def followed(steps: Sequence[Block], directory: Path) -> str:
    """What the shell printed; each block begins with a line that names it."""
    output = directory / "said.txt"
    work = directory / "work"
    work.mkdir()
    with output.open("w") as said:
        shell = subprocess.Popen(
            ["bash", "-euc", script(steps)],
            cwd=work,
            env=os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": f"{ROOT}{os.pathsep}{work}",
                "PYTHONUNBUFFERED": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout=SECONDS_MAX)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)  # what it left in the background
            shell.wait()
    text = output.read_text(encoding="utf-8")
    assert code == 0, f"{steps[0].path} ended with {code}\n{text}"
    return text


def script(steps: Sequence[Block]) -> str:
    """All of the page; servers listen on a port that nobody else has."""
    text = WHERE_TIME_IS_NOT_KNOWN + "\n".join(filter(None, map(as_shell, steps)))
    return text.replace(PORT, str(free_port()))


def free_port() -> int:
    for port in random.sample(FREE_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("a hundred ports are taken")


def as_shell(block: Block) -> str:
    if block.title:
        return f"cat > {shlex.quote(block.title)} <<'END OF THE FILE'\n{block.code}END OF THE FILE"
    if block.language == "sh":
        return f"echo '{mark(block)}'; begun=$(said); serves=\n{commands(block)}"
    return f"echo '{mark(block)}'" if block.language == "text" else ""


def commands(block: Block) -> str:
    if block.goes_on:
        server = noticed(f"{block.code.strip()} --port 0 &")
        return f"{server}\nuntil ready; do command sleep 0.1; done\n{INTERRUPT}"
    return "\n".join(map(noticed, block.code.splitlines()))


def noticed(line: str) -> str:
    """What it begins in the background is what the next `sleep` waits for."""
    if not IN_THE_BACKGROUND.search(line):
        return line
    return f"begun=$(said); serves={PORT if f'--port {PORT}' in line else ''}\n{line}"


def mark(block: Block) -> str:
    return f"== {block.line} =="


def must_have_said(block: Block, said: str) -> None:
    """What it shows stands between the command before it and the end: background programs may print later."""
    lines, later = since_the_command(block, said)
    if block.note == "exactly":
        assert len(lines) == len(block.code.splitlines()), f"{block}: it said {lines}\n{said}"
    rest = iter([*lines, *later])
    for wanted in block.code.splitlines():
        pattern = re.compile(".*".join(map(re.escape, wanted.split("…"))))
        assert any(pattern.fullmatch(line) for line in rest), f"{block}: nothing says {wanted!r}\n{said}"


def since_the_command(block: Block, said: str) -> tuple[list[str], list[str]]:
    """What the command above printed, and what was printed after it."""
    before, _, after = said.partition(f"{mark(block)}\n")
    command = re.split(r"^== \d+ ==\n", before, flags=re.MULTILINE)[-1]
    return words(command), words(after)


def words(text: str) -> list[str]:
    """Without what a shell says when somebody was killed."""
    return [line.rstrip() for line in text.splitlines() if not re.match(r"bash: line \d+: +\d+ Killed", line)]
