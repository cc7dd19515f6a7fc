"""TUTORIAL.md: every command in it runs, and prints the numbers that stand below it."""
import os
import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT

BLOCK = re.compile(r"```(bash|python)\n(.*?)```\n```text\n(.*?)```", re.S)
TUTORIAL = (ROOT / "TUTORIAL.md").read_text(encoding="utf-8")
STEPS = BLOCK.findall(TUTORIAL)


def takes_longer(kind, command):
    """These train, and need the runs of those before them, or wait for torch to be imported."""
    return kind == "python" or command.startswith(("python train.py", "python glue.py"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One working folder for all commands: the tutorial's runs lie in it."""
    return tmp_path_factory.mktemp("tutorial")


def check(line, output):
    """A line of the tutorial is printed. Spaces may differ, `~3.1` stands for a number within 5%,
    and all else is exact."""
    words = re.sub(r"\s+", " ", line.strip())
    pattern = re.escape(re.sub(r"~[\d.]*\d", "NUMBER", words)).replace(r"\ ", " ")
    match = re.search(pattern.replace("NUMBER", r"([\d.]*\d)"), output)
    assert match, f"not printed: {line}\n{output[-3000:]}"
    for wanted, got in zip(re.findall(r"~([\d.]*\d)", words), match.groups()):
        assert abs(float(got) - float(wanted)) <= 0.05 * float(wanted), f"{line}: {got}"


def command_line(kind, command):
    """What runs a block of the tutorial. Its working folder is not the project's, so a program has
    its full path, and a module is found by PYTHONPATH."""
    if kind == "python":
        return [sys.executable, "-c", command]
    python, program, *options = shlex.split(command)
    assert python == "python"
    if program != "-m":
        program = str(ROOT / program)
    return [sys.executable, program, *options]


@pytest.mark.parametrize("stop", [
    pytest.param(stop, marks=[pytest.mark.slow] * takes_longer(kind, command))
    for stop, (kind, command, _) in enumerate(STEPS)])
def test_the_tutorials_commands_print_what_it_says(folder, stop):
    kind, command, lines = STEPS[stop]
    environment = {"PYTHONPATH": str(ROOT), "ISOFLOP_CACHE": str(folder / "cache")}
    done = subprocess.run(command_line(kind, command), cwd=folder, capture_output=True, text=True,
                          timeout=7200, env={**os.environ, **environment})
    output = re.sub(r"\s+", " ", done.stdout + done.stderr.split("\r")[-1])
    assert done.returncode == (2 if "error:" in lines else 0), done.stderr[-2000:]
    for line in lines.strip().splitlines():
        check(line, output)


def test_every_block_of_the_tutorial_is_run():
    assert len(STEPS) == TUTORIAL.count("```bash\n") + TUTORIAL.count("```python\n") == 14
    stops = re.findall(r"^## ", TUTORIAL, re.M)
    assert TUTORIAL.count("<details>") == TUTORIAL.count("</details>") == 12 == len(stops)


def test_a_number_that_is_wrong_is_noticed():
    check("loss ~3.1, unigram 4.026", "the loss 3.2, unigram 4.026, more")
    for wrong in ("loss 3.3, unigram 4.026", "loss 3.2, unigram 4.027"):
        with pytest.raises(AssertionError):
            check("loss ~3.1, unigram 4.026", wrong)
