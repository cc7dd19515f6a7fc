"""The embedded world: stories without end, and tasks about them. Nothing is downloaded."""
