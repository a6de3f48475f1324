"""An expense that a human being has to approve: see README.md."""
