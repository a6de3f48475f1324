"""An order service whose worker is killed again and again, and whose books are right in the end: see README.md."""
