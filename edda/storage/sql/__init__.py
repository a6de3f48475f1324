"""The only place that knows SQL. Verbs are written once, as generators of statements; dialects hold what differs."""
