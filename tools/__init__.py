"""Programs around the project: `python -m tools.bench`, `python -m tools.gate`."""
