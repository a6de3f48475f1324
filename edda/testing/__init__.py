"""For tests of your own workflows: an app in memory, time that passes at will, crashes where you want them, fakes.

What passes here behaves the same on a real database: it is the same engine over the same SQL, on SQLite in memory.
The fixture `edda_app` for pytest comes with the package; nothing here needs pytest. See docs/how-to/testing.md.
"""

from __future__ import annotations

from edda.testing.app import InMemoryApp, InstanceStuckError
from edda.testing.clock import VirtualClock
from edda.testing.crashes import CrashFoundError, CrashPoint, CrashTest, crash_anywhere
from edda.testing.fakes import Fake, FakeCall, fake

__all__ = [
    "CrashFoundError",
    "CrashPoint",
    "CrashTest",
    "Fake",
    "FakeCall",
    "InMemoryApp",
    "InstanceStuckError",
    "VirtualClock",
    "crash_anywhere",
    "fake",
]
