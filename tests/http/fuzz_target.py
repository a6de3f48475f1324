"""The HTTP face before a door that only remembers, for fuzzing from outside:

uvicorn tests.http.fuzz_target:app --port 8765
schemathesis run docs/openapi.json --url http://127.0.0.1:8765 -n 10000
"""

from __future__ import annotations

from edda.http import HttpApp
from tests.http.support import FakeDoor

door = FakeDoor()
door.running = {"order-1"}
door.ended = {"order-0"}
app = HttpApp(door)
