"""Programs around the project: `python -m tools.bench` measures how fast it is, `python -m
tools.gate` whether its tasks tell models apart, and `python -m tools.predict` shows which words a
model predicts."""
