"""What differs between databases, and nothing else. No driver is imported here."""
