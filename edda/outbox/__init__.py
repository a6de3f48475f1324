"""The relayer: takes what workflows put into the outbox to where `broker_url` points, at least once and in order.

`sink` is for those who write a sink of their own, `sinks` has ours, `relayer` is the loop. It knows the port of
storage, the core and CloudEvents; it knows neither the engine nor SQL.
"""

from edda.outbox.dead_letter import DeadLetter
from edda.outbox.sink import Answer, Delivered, Outgoing, Reject, Retry, Sink

__all__ = ["Answer", "DeadLetter", "Delivered", "Outgoing", "Reject", "Retry", "Sink"]
