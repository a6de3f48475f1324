"""The pure core: given history and a request it decides. No clock, no await, no I/O; standard library types only."""
