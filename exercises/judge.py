"""Judges one file of one exercise. check.py starts it in a process of its own and reads its result.

    python exercises/judge.py 5 exercises/5_kd.py result.json
    python exercises/judge.py 5 exercises/5_kd.py --train --flops 1e11 ...

The first form tries the student's function on the cases of answers/, which know the classic
mistakes, and then runs the project's own tests with it in the place of the project's function. The
second form is train.py with the student's function in its training, or with the project's where the
file is called `-`.
"""
import functools
import importlib.util
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from program import cli

from answers import EXERCISES
from diagnosis import diagnose, in_words

import data
import distill
import train

TESTS = Path(__file__).resolve().parent.parent / "tests"


class Unanswered(Exception):
    """There is nothing that can be judged; the message says why."""


# --------------------------------------------------------------------------------------------------
# A student's function


def load(path, name):
    """The function `name` of a student's file. Raises Unanswered where there is none."""
    spec = importlib.util.spec_from_file_location("submission", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["submission"] = module  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
    except SyntaxError as failure:
        raise Unanswered(f"Python cannot read it: line {failure.lineno}: {failure.msg}") from None
    except BaseException as failure:
        raise Unanswered(in_words(failure, path, "while it was read")) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise Unanswered(f"there is no function {name} in it: keep the name of the one that was "
                         "handed out")
    return function


# --------------------------------------------------------------------------------------------------
# In training


def install_in_training(exercise, student):
    """Makes train.py train with a student's function. It still validates with the right one, so
    that two validation losses can be compared."""
    module = data if hasattr(data, exercise.function) else distill
    place = module, exercise.function, exercise.right
    train.validation_of = during(train.validation_of, *place)
    train.Learner.validate = during(train.Learner.validate, *place)
    install = exercise.install_loop or exercise.install
    install(student)


def during(function, module, name, value):
    """`function`, with module.name = value while it runs."""
    @functools.wraps(function)
    def call(*arguments, **options):
        before = getattr(module, name)
        setattr(module, name, value)
        try:
            return function(*arguments, **options)
        finally:
            setattr(module, name, before)
    return call


# --------------------------------------------------------------------------------------------------
# The project's own tests


class Reports:
    """A plugin of pytest that counts the tests that pass and describes those that fail."""

    def __init__(self):
        self.passed, self.failed = 0, []

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            self.passed += 1
        if report.failed:
            name = report.nodeid.split("::")[1].split("[")[0]
            crash = getattr(report.longrepr, "reprcrash", None)
            message = " ".join(str(crash and crash.message).split())[:150]
            self.failed.append(f"{name.removeprefix('test_').replace('_', ' ')} ({message})")


def run_tests(exercise):
    """Runs the project's tests of the exercise -> (how many pass, what fails or None)."""
    import pytest  # only here: --train needs no tests
    reports = Reports()
    tests = [f"{TESTS}/{test}" for test in exercise.tests]
    pytest.main(["-q", "-x", "-p", "no:cacheprovider", *tests], plugins=[reports])
    if reports.failed:
        return reports.passed, f"the project's own test fails: {reports.failed[0]}"
    if not reports.passed:
        return 0, "the project's tests did not run: pip install -r requirements-dev.txt"
    return reports.passed, None


# --------------------------------------------------------------------------------------------------
# The process


def judge(exercise, path):
    """{"passed", "share" of the cases that are right, "diagnosis"} of a student's file."""
    result = {"passed": False, "share": 0.0}
    try:
        function = load(path, exercise.function)
        problem, result["share"] = diagnose(exercise, function, path)
        if problem is None:
            exercise.install(function)
            count, problem = run_tests(exercise)
            result["passed"] = problem is None
    except Unanswered as failure:
        problem = str(failure)
    except Exception as failure:
        reason = in_words(failure, path, "while it judged")
        problem = f"the check itself failed ({reason}): this says nothing about the answer"
    result["diagnosis"] = problem or f"{count} of the project's own tests pass with it"
    return result


def main():
    number, file, mode = sys.argv[1:4]
    exercise, path = EXERCISES[int(number)], Path(file).resolve()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if mode == "--train":
        if file != "-":
            install_in_training(exercise, load(path, exercise.function))
        sys.argv = ["train.py", *sys.argv[4:]]
        cli.program(train.main)
    Path(mode).write_text(json.dumps(judge(exercise, path)))


if __name__ == "__main__":
    main()
