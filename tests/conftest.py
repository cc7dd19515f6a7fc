"""What all tests share: the project's folder on the path, no network, and a way to run a program as a user does."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once: a test downloads nothing


@pytest.fixture
def python():
    """python("budget.py", "--json") -> its CompletedProcess: returncode, stdout, stderr. Fails after 30 seconds."""
    def run(*arguments, **options):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.run([sys.executable, *arguments], cwd=ROOT, text=True, timeout=30, **pipes)
    return run
