"""Programs around the project: `python -m tools.bench` measures how fast it is, and
`python -m tools.gate` whether its tasks tell models apart."""
