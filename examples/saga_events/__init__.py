"""A saga whose steps wait for events: see README.md."""
