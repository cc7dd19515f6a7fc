"""How a program begins and ends: its command line, its settings, its errors, signals and bars."""
import os

# While torch's threads wait for each other, they spin for a while before they sleep. GNU OpenMP's
# default of 300,000 turns makes training ten times slower on a machine that does other work, too.
# With 3,000 turns an idle machine loses nothing (docs/LOG.md). torch reads the variable when it is
# imported, so every file imports program before torch: pyproject.toml orders the imports so.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
