"""The embedded world: stories without end, and tasks about them. No download."""
