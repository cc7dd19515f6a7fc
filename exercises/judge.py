"""Judges one file of one exercise, in a process of its own: `check.py` starts it, and reads what it wrote.

    python exercises/judge.py 5 exercises/5_kd.py result.json
    python exercises/judge.py 5 exercises/5_kd.py --train runs/mine --flops 1e11 ...      train.py, with the student's function in it

First the cases of answers.py, which know the classic mistakes; then the project's own tests with the student's function in the place of the project's.
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

from plumbing import cli

import torch

import train

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "exercises"), str(ROOT / "tests")]
MEMORY = 4 * 2 ** 30


class Unanswered(Exception):
    """What there is cannot be judged, and why."""


def load(path, name):
    """The function `name` of a student's file."""
    spec = importlib.util.spec_from_file_location("submission", path)
    module = sys.modules["submission"] = importlib.util.module_from_spec(spec)  # where dataclasses look for their module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as failure:
        raise Unanswered(f"Python cannot read it: line {failure.lineno}: {failure.msg}") from None
    except BaseException as failure:
        raise Unanswered(raised(failure, path, "while it was read")) from None
    function = getattr(module, name, None)
    if not callable(function):
        raise Unanswered(f"there is no function {name} in it: keep the name of the one that was handed out")
    return function


def raised(failure, path, when):
    """An exception in a line, with the place in the student's file."""
    if isinstance(failure, NotImplementedError):
        return f"nothing is written: {failure}"
    if isinstance(failure, SystemExit):
        return f"it ends the program (sys.exit) {when}: a function returns its answer"
    if isinstance(failure, MemoryError) or "allocate memory" in str(failure):
        return f"it takes more than {MEMORY / 2 ** 30:.0f} GiB of memory {when}"
    lines = [frame.lineno for frame in traceback.extract_tb(failure.__traceback__) if frame.filename == str(path)]
    words = " ".join(str(failure).split())[:200]
    return f"it raises {type(failure).__name__} {when}{f', in line {lines[-1]}' if lines else ''}: {words}"


def numbers(answer):
    """An answer as a flat list of numbers, or None where it is none."""
    if isinstance(answer, torch.Tensor):
        return answer.detach().double().flatten().tolist() if answer.dim() == 0 else None
    if isinstance(answer, (tuple, list)):
        parts = [numbers(part) for part in answer]
        return None if None in parts else [value for part in parts for value in part]
    try:
        return [operator.index(answer)]  # whole, numpy's among them
    except TypeError:
        pass
    try:
        return [float(answer)]
    except (TypeError, ValueError):
        return None


def equal(a, b, digits=1e-6):
    """Whole numbers exactly; others to six digits, and NaN is NaN."""
    def same(x, y):
        if isinstance(x, int) and isinstance(y, int):
            return x == y
        try:
            return math.isclose(x, y, rel_tol=digits, abs_tol=1e-7) or x != x and y != y
        except OverflowError:  # a whole number beyond all floats
            return False
    return len(a) == len(b) and all(map(same, a, b))


def spell(value):
    """A number, or a list of them, as short as it can be told from its neighbours."""
    if isinstance(value, (list, tuple)):
        opening, closing = "[]" if isinstance(value, list) else "()"
        return f"{opening}{', '.join(map(spell, value))}{closing}"
    return f"{value:.6g}" if isinstance(value, float) else str(value) if abs(value) < 10 ** 30 else "a number of more than 30 digits"


def spell_answer(values, parts):
    return ", ".join(f"{part} {spell(value)}" for part, value in zip(parts, values)) if parts else ", ".join(map(spell, values))


def form(answer, wanted, sizes):
    """What is wrong with the form of an answer, with the names of its sizes; or None."""
    if answer is None:
        return "it returns nothing: every way through the function should end in `return ...`"
    if isinstance(answer, torch.Tensor) and answer.dim():
        names = {size: name for name, size in reversed(sizes.items())}
        shape = ", ".join(names.get(n, str(n)) for n in answer.shape)
        advice = {"N": "a number for each position: take the mean over them", "V": "a number for each word",
                  "N, V": "a number for each position and word: sum over the words, then the mean over the positions"}.get(shape, "sum and average until one number is left")
        return f"wrong shape: {tuple(answer.shape)} = ({shape}), and a scalar is wanted; {advice}"
    n, got = len(wanted), numbers(answer)
    if got is None:
        return f"wrong form: it returns a {type(answer).__name__}, and {'a number' if n == 1 else f'a tuple of {n} numbers'} is wanted"
    return f"wrong form: {len(got)} numbers instead of {n}" if len(got) != n else None


def precision(answer, correct):
    """What is wrong with the type of an answer whose numbers are right; or None."""
    whole = [isinstance(x, int) for x in numbers(correct)]
    if any(wanted and not isinstance(x, int) for wanted, x in zip(whole, numbers(answer))):
        return "right, but as floats, which lose digits above 2^53: whole numbers are wanted, so divide with //"
    if not isinstance(answer, torch.Tensor) or answer.dtype == correct.dtype:
        return None
    if answer.dtype == torch.float64:
        return "the answer is float64 where the tensors are not: compute in fp32 there"
    if answer.dtype == torch.float32:
        return "float64 cut to fp32: turn bf16 into fp32, but leave float64 as it is; the project's tests compare twelve digits"
    return f"the answer is {str(answer.dtype).removeprefix('torch.')}: compute in fp32 where the tensors are bf16, and leave the answer in it"


def slopes(function, arguments, learns):
    """The answer's gradients by the student's tensors, which stand in the arguments number `learns`; None where it has none."""
    arguments, tensors = list(copy.deepcopy(arguments)), []
    for i in learns:
        parts = arguments[i] if isinstance(arguments[i], (list, tuple)) else [arguments[i]]
        tensors += [part.requires_grad_(True) for part in parts]
    answer = function(*arguments)
    if not isinstance(answer, torch.Tensor) or not answer.requires_grad:
        return None
    return [torch.zeros_like(x) if g is None else g for x, g in zip(tensors, torch.autograd.grad(answer, tensors, allow_unused=True))]


def gradient(exercise, function, arguments, path):
    """What is wrong with the gradient of an answer that is right; or None."""
    if not exercise.learns:
        return None
    right = slopes(exercise.right, arguments, exercise.learns)
    try:
        found = slopes(function, arguments, exercise.learns)
    except BaseException as failure:
        return raised(failure, path, "where the student's tensors want a gradient, as in training")
    if found is None:
        return "no gradient flows: the number is right, but nothing can be learned from it. Return a tensor, without no_grad, detach or item"
    if not all(torch.allclose(f, r, rtol=1e-5, atol=1e-8) for f, r in zip(found, right)):
        return "the number is right, and its gradient is not: a part of the student's side is cut off (detach, no_grad, or through numpy)"


def answers_of(function, cases):
    """A function's answers to all cases; an exception becomes one."""
    answers = []
    for _, arguments in cases:
        try:
            answers.append(function(*copy.deepcopy(arguments)))
        except BaseException as failure:
            answers.append(failure)
            if isinstance(failure, (NotImplementedError, SystemExit, MemoryError)):
                break  # it will not do better
    return answers


def diagnose(exercise, function, path=""):
    """(what is wrong or None, share of the cases that are right)."""
    if exercise.judge:
        try:
            found = exercise.judge(function)
        except BaseException as failure:
            found = raised(failure, path, "when it is called")
        return found, float(found is None)
    cases = exercise.cases()
    correct_answers = [exercise.right(*copy.deepcopy(arguments)) for _, arguments in cases]
    wanted = [numbers(answer) for answer in correct_answers]
    found, right, first, answers = [], 0, None, answers_of(function, cases)
    for (sizes, arguments), answer, correct in zip(cases, answers, wanted):
        named = sizes or dict(zip(inspect.signature(exercise.right).parameters, arguments))
        spelled = ", ".join(f"{name} = {spell(value)}" for name, value in named.items())
        if isinstance(answer, BaseException):
            problem = raised(answer, path, f"in the case {spelled}")
            problem += next((f". {hint}" for word, hint in exercise.hints.items() if word in problem), "")
            if isinstance(answer, (NotImplementedError, SystemExit)):
                return problem, 0.0
        else:
            problem = form(answer, correct, sizes)
        if problem:
            return problem, right / len(cases)
        got = numbers(answer)
        found.append(got)
        right += equal(got, correct)
        if not equal(got, correct) and first is None:
            first = f"In the case {spelled} it gives {spell_answer(got, exercise.parts)}, and {spell_answer(correct, exercise.parts)} is right"
    if first is None:
        problems = [precision(answer, correct) for answer, correct in zip(answers, correct_answers)]
        problem = next((problem for problem in problems if problem), None) or gradient(exercise, function, cases[0][1], path)
        return problem, 0.9 if problem else 1.0
    wrong = [arguments for (_, arguments), got, correct in zip(cases, found, wanted) if not equal(got, correct)]
    if all("bfloat16" in repr(arguments) for arguments in wrong):
        return f"computed in bf16. {first}. bf16 has 8 binary digits: turn such tensors into fp32 first", right / len(cases)
    # A student's inf and NaN may come from another place than the mistake: where no mistake has them, too, they are passed over.
    known = [(name, advice, [numbers(answer) for answer in answers_of(mistake, cases)]) for name, mistake, advice in exercise.mistakes]
    for passed_over in (False, True):
        for name, advice, theirs in known:
            same = [answer is not None and equal(answer, got, 1e-4) for answer, got in zip(theirs, found)]
            if all(alike or passed_over and not all(isinstance(x, int) or math.isfinite(x) for x in got) for alike, got in zip(same, found)) and sum(same) > 1:
                return f"{name}. {first}. Reread: {advice}", right / len(cases)
    return f"{first}. None of the {len(exercise.mistakes)} mistakes that this check knows gives your numbers", right / len(cases)


def run_tests(exercise):
    """The project's tests of the exercise -> (their number, what fails or None)."""
    import pytest

    class Reports:
        def __init__(self):
            self.passed, self.failed = 0, []

        def pytest_runtest_logreport(self, report):
            self.passed += report.when == "call" and report.passed
            if report.failed:
                name = report.nodeid.split("::")[1].split("[")[0].removeprefix("test_").replace("_", " ")
                self.failed.append(f"{name} ({' '.join(str(getattr(report.longrepr, 'reprcrash', None) and report.longrepr.reprcrash.message).split())[:150]})")
    reports = Reports()
    pytest.main(["-q", "-x", "-p", "no:cacheprovider", *(f"{ROOT}/tests/{test}" for test in exercise.tests)], plugins=[reports])
    if not reports.passed and not reports.failed:
        return 0, "the project's tests did not run: pip install -r requirements-dev.txt"
    return reports.passed, f"the project's own test fails: {reports.failed[0]}" if reports.failed else None


FORBIDDEN = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr",
             "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork", "os.forkpty"}


def forbid(event, _):
    """None of the usual ways to the network and to other programs."""
    if event in FORBIDDEN:
        raise PermissionError(f"not allowed in an exercise: {event}")


def limit():
    """No file of it grows beyond 100 MB; on Linux, which can say how much it has, it gets MEMORY more than the libraries took."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10 ** 8, 10 ** 8))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main():
    number, path, mode = int(sys.argv[1]), Path(sys.argv[2]).resolve(), sys.argv[3]
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    from answers import EXERCISES
    exercise = EXERCISES[number]
    if mode == "--train":
        if sys.argv[2] != "-":
            (exercise.install_loop or exercise.install)(load(path, exercise.function))
        sys.argv = ["train.py", *sys.argv[4:]]
        cli.program(train.main)
    result = {"passed": False, "share": 0.0}
    try:
        limit()
        sys.addaudithook(forbid)
        function = load(path, exercise.function)
        problem, result["share"] = diagnose(exercise, function, path)
        if problem is None:
            exercise.install(function)
            count, problem = run_tests(exercise)
            result |= {"passed": problem is None, "tests": count}
    except Unanswered as failure:
        problem = str(failure)
    except Exception as failure:
        problem = f"the check itself failed ({raised(failure, path, 'while it judged')}): this says nothing about the answer"
    result["diagnosis"] = problem or f"{result['tests']} of the project's own tests pass with it"
    Path(mode).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
