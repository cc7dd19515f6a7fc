"""What all tests share: the project on the path, no network, `--slow`, and a way to run a program
as a user does."""
import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# Before huggingface_hub is imported, which reads it once: a test downloads nothing.
os.environ["HF_HUB_OFFLINE"] = "1"
# A script that starts the suite with `&` lets it ignore SIGINT, and so would the tests' programs.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests, and only those")


def pytest_collection_modifyitems(config, items):
    """Without --slow the quick tests run, with it the slow ones: each test once."""
    slow = config.getoption("--slow")
    chosen = [item for item in items if ("slow" in item.keywords) == slow]
    named = [item for item in items if item not in chosen]
    if any("::" in argument for argument in config.args):  # asked for by name: it runs anyhow
        return
    config.hook.pytest_deselected(items=named)
    items[:] = chosen


def run_main(main, name, arguments):
    """(exit status, stdout, stderr) of a program's main(), in this process."""
    from program import cli  # here: the project is on the path only since the lines above
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = cli.exit_status(main)
            except cli.Stopped as stopped:
                status = stopped.status
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def python():
    """python("budget.py", "--json") -> its CompletedProcess: returncode, stdout, stderr. It fails
    after two minutes."""
    def run(*arguments, **options):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.run([sys.executable, *arguments], cwd=ROOT, text=True, timeout=120,
                              **pipes)
    return run


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes a second, and most tests of a report read only text."""
    from reporting import report  # here, as above
    for name in ("draw_forest", "draw_scores", "draw_bill"):
        monkeypatch.setattr(report, name, lambda *_: None)
