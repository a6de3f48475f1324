"""The engine does: it steps bodies, runs activities, and hands `Commit`s to the committer. Internal."""
