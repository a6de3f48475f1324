"""Coverage-guided fuzzing of the codec: python -m tests.cloudevents.fuzz --seconds 600 [--corpus DIRECTORY]

The oracle: every input is an event or a refusal within 100 ms, what was read comes back from every mode, and the
process does not grow by more than 256 MiB (the fuzzer's own corpus included). Needs atheris: pip install -e '.[fuzz]'
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

INPUT_BYTES_MAX = 64 * 1024
SECONDS_MAX = 0.1
GROWTH_MIB_MAX = 256
TRIES = 5
"""Of a slow input: a busy machine can make one slow, not five."""

MODES = (b"application/cloudevents+json", b"application/cloudevents-batch+json", None)


WORDS = (
    *("specversion", "datacontenttype", "dataschema", "data_base64", "data", "subject", "source", "time", "type", "id"),
    *("ce-", "content-type:", "application/json", "text/plain", "; charset=utf-8", "+json", "application/cloudevents"),
    *(
        '"',
        '":',
        '","',
        ',"data":',
        "\\\\",
        '\\"',
        "\\u",
        "\\u0022",
        "\\u005c",
        "\\ud83d\\ude00",
        "\\/",
        "{}",
        "[]",
        "},{",
    ),
    *("1.0", "-0", "1e400", "1.10", "true", "null", "NaN", "Infinity", "%41", "%C0%A0", " ", "\t"),
)


def message(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """One byte chooses the mode; in binary mode lines up to an empty one are headers."""
    content_type = MODES[data[0] % len(MODES)] if data else None
    if content_type is not None:
        return [(b"content-type", content_type)], data[1:]
    head, _, body = data[1:].partition(b"\n\n")
    pairs = [line.partition(b":") for line in head.split(b"\n")]
    return [(name, value) for name, _, value in pairs], body


def seed(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """The input that makes this message, or nearly so."""
    pairs = list(headers)
    for number, mode in enumerate(MODES):
        if mode is not None and pairs == [(b"content-type", mode)]:
            return bytes([number]) + body
    return b"\x02" + b"\n".join(name + b":" + value for name, value in pairs) + b"\n\n" + body


def escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


def mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--corpus", type=Path, default=None)
    chosen = options.parse_args()
    if atheris is None:
        sys.exit("NOTHING WAS FUZZED: atheris is not installed. Install it with: pip install -e '.[fuzz]'")
    run(chosen.seconds, chosen.corpus or Path(tempfile.mkdtemp(prefix="edda-fuzz-")))


def run(seconds: int, corpus: Path) -> None:
    with atheris.instrument_imports(include=["edda.cloudevents"]):
        from tests.cloudevents.oracle import check, outcome
    from tests.cloudevents.rows import ROWS

    corpus.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(ROWS):
        (corpus / f"row-{number}").write_bytes(seed(row.headers, row.body))
    executions, slowest, before = 0, 0.0, mib()

    def one(data: bytes) -> None:
        nonlocal executions, slowest
        executions += 1
        headers, body = message(data)
        started = time.perf_counter()
        outcome(headers, body)
        took = time.perf_counter() - started
        if took > slowest:
            took = min(took, *(timed(headers, body) for _ in range(TRIES)))
            assert took <= SECONDS_MAX, f"{took:.3f} s for {len(data)} bytes"
            slowest = max(slowest, took)
        check(headers, body)
        if executions % 10_000 == 0:
            grown = mib() - before
            print(f"{executions} executions, slowest {slowest * 1000:.1f} ms, grown by {grown:.0f} MiB", flush=True)
            assert grown <= GROWTH_MIB_MAX, f"grown by {grown:.0f} MiB"

    def timed(headers: list[tuple[bytes, bytes]], body: bytes) -> float:
        started = time.perf_counter()
        outcome(headers, body)
        return time.perf_counter() - started

    words = corpus.with_suffix(".words")
    words.write_text("".join(f'"{escaped(word)}"\n' for word in WORDS))
    arguments = [sys.argv[0], f"-max_total_time={seconds}", f"-max_len={INPUT_BYTES_MAX}", "-timeout=10"]
    arguments += [f"-dict={words}", str(corpus)]
    atheris.Setup(arguments, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
