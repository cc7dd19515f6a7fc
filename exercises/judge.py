"""Judges one file of one exercise. check.py starts it in a process of its own and reads its result.

    python exercises/judge.py 5 exercises/5_kd.py result.json
    python exercises/judge.py 5 exercises/5_kd.py --train --flops 1e11 ...

The first form tries the student's function on the cases of answers/, which know the classic
mistakes, and then runs the project's own tests with it in the place of the project's function. The
second form is train.py with the student's function in it, or with the project's where the file is
called `-`.
"""
import copy
import importlib.util
import inspect
import json
import math
import operator
import os
import resource
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # PYTHONSAFEPATH leaves it out
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from plumbing import cli

import torch
from answers import EXERCISES

import train

TESTS = Path(__file__).resolve().parent.parent / "tests"
MEMORY = 4 * 2 ** 30  # bytes that a student's function may take


class Unanswered(Exception):
    """There is nothing that can be judged; the message says why."""


# --------------------------------------------------------------------------------------------------
# A student's function, and what it raises


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


def in_words(failure, path, when):
    """An exception in one line, with its place in the student's file."""
    if isinstance(failure, NotImplementedError):
        return f"nothing is written: {failure}"
    if isinstance(failure, SystemExit):
        return f"it ends the program (sys.exit) {when}: a function returns its answer"
    if isinstance(failure, MemoryError) or "allocate memory" in str(failure):
        return f"it takes more than {MEMORY / 2 ** 30:.0f} GiB of memory {when}"
    frames = traceback.extract_tb(failure.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    place = f", in line {lines[-1]}" if lines else ""
    return f"it raises {type(failure).__name__} {when}{place}: {cli.one_line(failure)}"


def answers_of(function, cases):
    """A function's answers to all cases. Where it raises an exception, that is the answer."""
    answers = []
    for _, arguments in cases:
        try:
            answers.append(function(*copy.deepcopy(arguments)))
        except BaseException as failure:
            answers.append(failure)
            if isinstance(failure, (NotImplementedError, SystemExit, MemoryError)):
                break  # the other cases would end in the same way
    return answers


# --------------------------------------------------------------------------------------------------
# Numbers


def numbers(answer):
    """An answer as a flat list of numbers, or None where it is none."""
    if isinstance(answer, torch.Tensor):
        return [answer.detach().double().item()] if answer.dim() == 0 else None
    if isinstance(answer, (tuple, list)):
        parts = [numbers(part) for part in answer]
        return None if None in parts else [value for part in parts for value in part]
    try:
        return [operator.index(answer)]  # a whole number, also numpy's
    except TypeError:
        pass
    try:
        return [float(answer)]
    except (TypeError, ValueError):
        return None


def equal(a, b, tolerance=1e-6):
    """Compares two lists of numbers: whole numbers exactly, others within a relative tolerance."""
    return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b))


def same(x, y, tolerance):
    if isinstance(x, int) and isinstance(y, int):
        return x == y
    try:
        both_nan = x != x and y != y
        return both_nan or math.isclose(x, y, rel_tol=tolerance, abs_tol=1e-7)
    except OverflowError:  # a whole number beyond all floats
        return False


def spell(value):
    """A number, or a list of them, in few digits."""
    if isinstance(value, list):
        return f"[{', '.join(map(spell, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(spell, value))})"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if abs(value) < 10 ** 30 else "a number of more than 30 digits"


def spell_answer(values, parts):
    """An answer's numbers, with their names where they have some."""
    if not parts:
        return ", ".join(map(spell, values))
    return ", ".join(f"{part} {spell(value)}" for part, value in zip(parts, values))


# --------------------------------------------------------------------------------------------------
# What may be wrong with an answer, apart from its numbers


def form(answer, wanted, sizes):
    """What is wrong with the form of an answer, or None. `sizes` names the sizes of its shape."""
    if answer is None:
        return "it returns nothing: every way through the function should end in `return ...`"
    if isinstance(answer, torch.Tensor) and answer.dim():
        return wrong_shape(answer.shape, sizes)
    got = numbers(answer)
    if got is None:
        needed = "a number" if len(wanted) == 1 else f"a tuple of {len(wanted)} numbers"
        return f"wrong form: it returns a {type(answer).__name__}, and {needed} is wanted"
    if len(got) != len(wanted):
        return f"wrong form: {len(got)} numbers instead of {len(wanted)}"
    return None


def wrong_shape(shape, sizes):
    names = {size: name for name, size in reversed(sizes.items())}
    named = ", ".join(names.get(n, str(n)) for n in shape)
    advice = {"N": "a number for each position: take the mean over them",
              "V": "a number for each word",
              "N, V": "a number for each position and word: sum over the words, then take the mean "
                      "over the positions"}
    usual = "sum and average until one number is left"
    return (f"wrong shape: {tuple(shape)} = ({named}), and a scalar is wanted; "
            f"{advice.get(named, usual)}")


def precision(answer, correct):
    """What is wrong with the type of an answer whose numbers are right, or None."""
    for value, wanted in zip(numbers(answer), numbers(correct)):
        if isinstance(wanted, int) and not isinstance(value, int):
            return ("right, but as floats, which lose digits above 2^53: whole numbers are wanted, "
                    "so divide with //")
    if not isinstance(answer, torch.Tensor) or answer.dtype == correct.dtype:
        return None
    if answer.dtype == torch.float64:
        return "the answer is float64 where the tensors are not: compute in fp32 there"
    if answer.dtype == torch.float32:
        return ("float64 cut to fp32: turn bf16 into fp32, but leave float64 as it is; the "
                "project's tests compare twelve digits")
    return (f"the answer is {str(answer.dtype).removeprefix('torch.')}: compute in fp32 where the "
            "tensors are bf16, and leave the answer in it")


def gradients(function, arguments, learns):
    """The answer's gradients by the student's tensors, which are the arguments number `learns`.

    None where the answer has no gradient."""
    arguments, tensors = list(copy.deepcopy(arguments)), []
    for i in learns:
        is_list = isinstance(arguments[i], (list, tuple))
        tensors += arguments[i] if is_list else [arguments[i]]
    for tensor in tensors:
        tensor.requires_grad_(True)
    answer = function(*arguments)
    if not isinstance(answer, torch.Tensor) or not answer.requires_grad:
        return None
    slopes = torch.autograd.grad(answer, tensors, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(tensors, slopes)]


def gradient(exercise, function, arguments, path):
    """What is wrong with the gradient of an answer whose number is right, or None."""
    if not exercise.learns:
        return None
    correct = gradients(exercise.right, arguments, exercise.learns)
    try:
        got = gradients(function, arguments, exercise.learns)
    except BaseException as failure:
        return in_words(failure, path,
                        "where the student's tensors want a gradient, as in training")
    if got is None:
        return ("no gradient flows: the number is right, but nothing can be learned from it. "
                "Return a tensor, without no_grad, detach or item")
    if not all(torch.allclose(g, c, rtol=1e-5, atol=1e-8) for g, c in zip(got, correct)):
        return ("the number is right, and its gradient is not: a part of the student's side is cut "
                "off (detach, no_grad, or through numpy)")
    return None


# --------------------------------------------------------------------------------------------------
# The diagnosis


def diagnose(exercise, function, path=""):
    """(what is wrong or None, the share of the cases that are right)."""
    if exercise.judge:
        try:
            problem = exercise.judge(function)
        except BaseException as failure:
            problem = in_words(failure, path, "when it is called")
        return problem, float(problem is None)
    cases = exercise.cases()
    correct = [exercise.right(*copy.deepcopy(arguments)) for _, arguments in cases]
    wanted = [numbers(answer) for answer in correct]
    answers = answers_of(function, cases)
    right = []  # of each case, whether its numbers are right
    for case, answer, numbers_wanted in zip(cases, answers, wanted):
        problem = no_numbers(exercise, case, answer, numbers_wanted, path)
        if problem:
            nothing = isinstance(answer, (NotImplementedError, SystemExit))
            return problem, 0.0 if nothing else sum(right) / len(cases)
        right.append(equal(numbers(answer), numbers_wanted))
    if all(right):
        problem = next(filter(None, map(precision, answers, correct)), None)
        problem = problem or gradient(exercise, function, cases[0][1], path)
        return problem, 0.9 if problem else 1.0
    got = [numbers(answer) for answer in answers]
    return wrong_numbers(exercise, cases, got, wanted, right), sum(right) / len(cases)


def no_numbers(exercise, case, answer, wanted, path):
    """Why an answer has no numbers to compare, or None."""
    sizes, _ = case
    if not isinstance(answer, BaseException):
        return form(answer, wanted, sizes)
    problem = in_words(answer, path, f"in the case {spell_case(exercise, case)}")
    hints = [f". {hint}" for words, hint in exercise.hints.items() if words in problem]
    return problem + "".join(hints[:1])


def spell_case(exercise, case):
    """The sizes of a case, or its arguments where it has no sizes."""
    sizes, arguments = case
    values = sizes or dict(zip(inspect.signature(exercise.right).parameters, arguments))
    return ", ".join(f"{name} = {spell(value)}" for name, value in values.items())


def wrong_numbers(exercise, cases, got, wanted, right):
    """What is wrong with numbers: the first case that is wrong, and the mistake that gives them."""
    first = right.index(False)
    example = (f"In the case {spell_case(exercise, cases[first])} it gives "
               f"{spell_answer(got[first], exercise.parts)}, and "
               f"{spell_answer(wanted[first], exercise.parts)} is right.")
    wrong = [arguments for (_, arguments), is_right in zip(cases, right) if not is_right]
    if all(map(has_bf16, wrong)):
        return (f"computed in bf16. {example} bf16 has 8 binary digits: turn such tensors into "
                "fp32 first")
    mistake = known_mistake(exercise, cases, got)
    if mistake:
        return f"{mistake.name} {example} {mistake.advice}".strip()
    return (f"{example} None of the {len(exercise.mistakes)} mistakes that this check knows gives "
            "your numbers.")


def has_bf16(arguments):
    """Whether a tensor of bf16 is among the arguments, or in their lists."""
    if isinstance(arguments, (list, tuple)):
        return any(map(has_bf16, arguments))
    return isinstance(arguments, torch.Tensor) and arguments.dtype == torch.bfloat16


def known_mistake(exercise, cases, got):
    """The first mistake that gives the student's numbers in all cases, or None.

    An inf or a NaN of the student's may come from another place than the mistake. So cases with
    them are passed over, if no mistake has them, too."""
    comparisons = []
    for mistake in exercise.mistakes:
        answers = [numbers(answer) for answer in answers_of(mistake.function, cases)]
        agrees = [answer is not None and equal(answer, student, 1e-4)
                  for answer, student in zip(answers, got)]
        comparisons.append((mistake, agrees))
    for mistake, agrees in comparisons:
        if all(agrees):
            return mistake
    for mistake, agrees in comparisons:
        explained = [agree or not is_finite(student) for agree, student in zip(agrees, got)]
        if all(explained) and sum(agrees) > 1:
            return mistake
    return None


def is_finite(values):
    """Whether no value is inf or NaN. Whole numbers may be larger than a float."""
    return all(isinstance(x, int) or math.isfinite(x) for x in values)


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

FORBIDDEN = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg",
             "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
             "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty"}


def forbid(event, _):
    """An audit hook that closes the usual ways to the network and to other programs."""
    if event in FORBIDDEN:
        raise PermissionError(f"not allowed in an exercise: {event}")


def limit():
    """No file may grow beyond 100 MB. On Linux the process gets MEMORY more than it has now."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 ** 8, 10 ** 8))
    if sys.platform == "linux":  # which says how much the libraries took
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def judge(exercise, path):
    """{"passed", "share" of the cases that are right, "diagnosis"} of a student's file."""
    result = {"passed": False, "share": 0.0}
    try:
        # The tests need it, and its import starts programs, which are forbidden from here on.
        import transformers  # noqa: F401
        limit()
        sys.addaudithook(forbid)
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
            install = exercise.install_loop or exercise.install
            install(load(path, exercise.function))
        sys.argv = ["train.py", *sys.argv[4:]]
        cli.program(train.main)
    Path(mode).write_text(json.dumps(judge(exercise, path)))


if __name__ == "__main__":
    main()
