"""What the seven concepts stand on: the command line, files, runs, processes and the hardware."""
import os

from plumbing import limits

# While torch's threads wait for each other, they spin for a while before they sleep. GNU OpenMP's
# default of 300,000 turns makes training ten times slower on a machine that does other work, too.
# With 3,000 turns an idle machine loses nothing (docs/LOG.md). torch reads the variable when it is
# imported, so every file imports plumbing before torch: pyproject.toml orders the imports so.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
# How many threads the user asks for, if at all.
USERS_THREADS = os.environ.get("OMP_NUM_THREADS")
# torch takes as many threads as there are processors. Where a container's quota gives less than
# that, they would wait for each other: on half a processor two take longer than one.
if limits.cores() < limits.processors():
    os.environ.setdefault("OMP_NUM_THREADS", str(limits.cores()))
