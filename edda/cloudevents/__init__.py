"""CloudEvents 1.0 over HTTP: headers and bytes <-> `edda.core.event.CloudEvent`. Internal.

Knows the HTTP binding and the JSON event format; knows no I/O, no framework and no database.

Laws:
- The same event in binary, structured and batch form is an equal `CloudEvent`.
- `parse(to_…(event)) == normal(event)`, and what `parse` returns is normal.
- Whatever comes in, `parse` gives events or `CloudEventError`, never another error.
"""

from edda.cloudevents.data import check_own, normal
from edda.cloudevents.errors import CloudEventError
from edda.cloudevents.http_binding import Batch, Headers, Message, parse, to_batch, to_binary, to_structured
from edda.cloudevents.limits import LIMITS, Limits

__all__ = [
    "parse",
    "to_binary",
    "to_structured",
    "to_batch",
    "normal",
    "check_own",
    "Batch",
    "Headers",
    "Message",
    "CloudEventError",
    "Limits",
    "LIMITS",
]
