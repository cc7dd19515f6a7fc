"""TUTORIAL.md: every command in it runs, and prints the numbers that stand below it."""
import os
import re
import shlex
import subprocess
import sys

import pytest
from children import ROOT

BLOCK = re.compile(r"```(bash|python)\n(.*?)```\n```text\n(.*?)```", re.S)
STEPS = BLOCK.findall((ROOT / "TUTORIAL.md").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tutorial")


def check(line, output):
    """A line of the tutorial is printed: spaces are any, `~3.1` is a number within 15%, the rest is exact."""
    words = re.sub(r"\s+", " ", line.strip())
    pattern = re.sub(r"~[\d.]*\d", "NUMBER", words)
    found = re.search(re.escape(pattern).replace(r"\ ", " ").replace("NUMBER", r"([\d.]*\d)"), output)
    assert found, f"not printed: {line}\n{output[-3000:]}"
    for wanted, got in zip(re.findall(r"~([\d.]*\d)", words), found.groups()):
        assert abs(float(got) - float(wanted)) <= 0.15 * float(wanted), f"{line}: {got}"


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_the_tutorials_commands_print_what_it_says(folder, number):
    kind, command, lines = STEPS[number]
    if kind == "bash":
        words = shlex.split(command)
        assert words[0] == "python"
        line = [sys.executable, str(ROOT / words[1]), *words[2:]]
    else:
        line = [sys.executable, "-c", command]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "ISOFLOP_CACHE": str(folder / "cache")})
    output = re.sub(r"\s+", " ", done.stdout + done.stderr.split("\r")[-1])
    assert done.returncode == (2 if "error:" in lines else 0), done.stderr[-2000:]
    for line in lines.strip().splitlines():
        check(line, output)


def test_every_block_of_the_tutorial_is_run():
    text = (ROOT / "TUTORIAL.md").read_text(encoding="utf-8")
    assert len(STEPS) == text.count("```bash\n") + text.count("```python\n") == 13
    assert text.count("<details>") == text.count("</details>") == 12 == len(re.findall(r"^## ", text, re.M))


def test_a_number_that_is_wrong_is_noticed():
    check("loss ~3.1, unigram 4.026", "the loss 3.3, unigram 4.026, more")
    for wrong in ("loss 3.9, unigram 4.026", "loss 3.3, unigram 4.027"):
        with pytest.raises(AssertionError):
            check("loss ~3.1, unigram 4.026", wrong)
