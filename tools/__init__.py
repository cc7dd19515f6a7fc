"""Programs around the project: `python -m tools.bench` measures how fast it is, `python -m
tools.gate` whether its tasks tell models apart, `python -m tools.predict` shows which words a model
predicts, `python -m tools.glance` lists runs and draws their curves, and `python -m tools.pages`
makes pages of the code."""
