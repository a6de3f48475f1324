"""Storage remembers: a few verbs with exact meanings (`port`), a model in memory that is their specification
(`memory`), and SQL that must agree with it (`sql`)."""
