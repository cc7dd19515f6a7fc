"""before_torch.py: --help, mistakes and signals are answered while torch is not imported yet."""
import os
import signal

import pytest

PROGRAMS = ["train.py", "glue.py", "compare.py"]

# Python imports this file at its start. It sends the process a signal when the module MODULE is
# about to be imported, at the same point each time.
SENDS_A_SIGNAL = """
import os, sys

class SendsASignal:
    def find_spec(name, path=None, target=None):
        if name == os.environ["MODULE"]:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.meta_path.insert(0, SendsASignal)
"""


@pytest.fixture
def python_without_torch(python, tmp_path):
    """Runs a program for which `import torch` ends in exit status 99."""
    (tmp_path / "torch.py").write_text("import os\nos._exit(99)\n")

    def run(*arguments):
        return python(*arguments, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    return run


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_is_printed_without_importing_torch(python_without_torch, program):
    done = python_without_torch(program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {program}") and "--out" in done.stdout


@pytest.mark.parametrize("program", [*PROGRAMS, "budget.py"])
def test_a_program_starts_where_python_leaves_its_folder_out_of_the_path(python, program):
    done = python(program, "--help", env={**os.environ, "PYTHONSAFEPATH": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {program}")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_mistyped_option_is_named_without_importing_torch(python_without_torch, program):
    done = python_without_torch(program, "--ouut", "x")
    assert done.returncode == 2 and done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: there is no option --ouut: did you mean --out?")


def test_a_good_command_line_goes_on_to_torch(python_without_torch):
    assert python_without_torch("train.py", "--flops", "1e13").returncode == 99


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", ["plumbing.options", "budget", "torch"])
def test_a_signal_during_the_imports_ends_a_program_quietly(python, tmp_path, module, signum):
    # SIGHUP is set to its default, since the tests themselves may run under nohup.
    default = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    (tmp_path / "sitecustomize.py").write_text(default + SENDS_A_SIGNAL)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "MODULE": module,
                   "SIGNAL": str(int(signum))}
    done = python("train.py", "--flops", "1e13", "--out", str(tmp_path / "run"), env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signum, "", "")
    assert not (tmp_path / "run").exists()


def test_where_another_program_runs_nothing_happens(python):
    # Neither its command line nor its signals are touched.
    text = """
import signal
before = signal.getsignal(signal.SIGTERM)
from plumbing import before_torch
print(before_torch.running_program(), signal.getsignal(signal.SIGTERM) == before)
"""
    done = python("-c", text, "--nonsense")
    assert (done.returncode, done.stdout) == (0, "None True\n")
