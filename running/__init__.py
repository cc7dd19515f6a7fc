"""What a run stands on: the machine and its processes, its folder, what happens around its steps,
and which options and which models fit together."""
