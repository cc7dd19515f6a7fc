"""Programs around the project: `python -m tools.bench` measures how fast it is, `python -m
tools.gate` whether its tasks tell models apart, `python -m tools.predict` shows which words a model
predicts, and `python -m tools.glance` lists runs and draws their curves."""
