"""A slice of the fault campaign (faults.py): each kind of fault some times. All of it: python tests/faults.py --minutes 30 --seed 1"""
import subprocess
import sys
import time

import pytest
from children import ROOT


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the campaign forks, and reads /proc")
def test_nothing_is_lost_and_every_end_is_clear():
    seed = str(int(time.time()))  # other faults each time; the message says which
    done = subprocess.run([sys.executable, "tests/faults.py", "--minutes", "1.5", "--seed", seed], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, f"--seed {seed}\n{done.stdout}\n{done.stderr[-5000:]}"
    assert done.stdout.count("| 0 | 0 |") >= 11  # rows without loss
