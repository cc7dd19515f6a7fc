"""What the seven concepts stand on: the command line, files, runs, processes, the hardware."""
import os

# How long torch's threads spin before they sleep, when they wait for each other. GNU OpenMP's default of 300,000 turns makes
# training ten times slower on a machine that does other work too; with 3,000 an idle one loses nothing (docs/LOG.md). It is
# read when torch is imported: so every file imports plumbing before torch (pyproject.toml orders the imports so).
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
