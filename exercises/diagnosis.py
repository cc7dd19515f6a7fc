"""What is wrong with a student's function: its numbers, their form, their gradients, and the known
mistake that it makes."""
import copy
import inspect
import math
import operator
import traceback

from program import cli

import torch

BF16_DIGITS = 0.02  # relative: what computing in bf16 may change


def in_words(failure, path, when):
    """An exception in one line, with its place in the student's file."""
    if isinstance(failure, NotImplementedError):
        return f"nothing is written: {failure}"
    if isinstance(failure, SystemExit):
        return f"it ends the program (sys.exit) {when}: a function returns its answer"
    frames = traceback.extract_tb(failure.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    place = f", in line {lines[-1]}" if lines else ""
    return f"it raises {type(failure).__name__} {when}{place}: {cli.one_line(failure)}"


def answers_of(function, cases):
    """A function's answers to all cases. Where it raises an exception, that is the answer."""
    answers = []
    for case in cases:
        try:
            answers.append(function(*copy.deepcopy(case.arguments)))
        except BaseException as failure:
            answers.append(failure)
            if isinstance(failure, (NotImplementedError, SystemExit)):
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


def is_finite(values):
    """Whether no value is inf or NaN. Whole numbers may be larger than a float."""
    return all(isinstance(x, int) or math.isfinite(x) for x in values)


def has_bf16(arguments):
    """Whether a tensor of bf16 is among the arguments, or in their lists."""
    if isinstance(arguments, (list, tuple)):
        return any(map(has_bf16, arguments))
    return isinstance(arguments, torch.Tensor) and arguments.dtype == torch.bfloat16


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


def spell_case(exercise, case):
    """A case's name, with its sizes, or with its arguments where it has no sizes."""
    if exercise.judge:
        return f'the case "{case.name}"'
    parameters = inspect.signature(exercise.right).parameters
    values = case.sizes or dict(zip(parameters, case.arguments))
    sizes = ", ".join(f"{name} = {spell(value)}" for name, value in values.items())
    return f'the case "{case.name}" ({sizes})'


# --------------------------------------------------------------------------------------------------
# What may be wrong with an answer, apart from its numbers


def form(exercise, answer, wanted, sizes):
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
        names = f" ({', '.join(exercise.parts)})" if exercise.parts else ""
        return f"wrong form: {len(got)} numbers instead of {len(wanted)}{names}"
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


# --------------------------------------------------------------------------------------------------
# Gradients


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


def alike(got, correct):
    """Whether two gradients agree, to the digits of their type."""
    for own, right in zip(got, correct):
        rtol, atol = 1e-5, 1e-8
        if right.dtype == torch.bfloat16:  # 8 binary digits, of the largest entry
            rtol, atol = BF16_DIGITS, BF16_DIGITS * right.abs().max().item()
        if not torch.allclose(own, right, rtol=rtol, atol=atol):
            return False
    return True


def gradient(exercise, function, case, path=""):
    """What is wrong with the gradient of an answer, as the end of a sentence about its number, or
    None."""
    where = spell_case(exercise, case)
    correct = gradients(exercise.right, case.arguments, exercise.learns)
    try:
        got = gradients(function, case.arguments, exercise.learns)
    except BaseException as failure:
        return in_words(failure, path, "where the student's tensors want a gradient, as in "
                        f"training, in {where}")
    if got is None:
        if not any(slope.any() for slope in correct):
            return None  # a constant is as good where nothing is to be learned
        return (f"no gradient flows in {where}: the number is right, but nothing can be learned "
                "from it. Return a tensor, without no_grad, detach or item")
    if alike(got, correct):
        return None
    if not all(slope.isfinite().all() for slope in got):
        return (f"the number is right, and its gradient is not: it is inf or NaN in {where}. A "
                "step that the result does not need (exp, log, a division) overflows")
    return ("the number is right, and its gradient is not: a part of the student's side is cut "
            f"off (detach, no_grad, or through numpy) in {where}")


def trains_alike(exercise, function, case, answer):
    """Whether the gradient is right in a case, though the number may not be."""
    learns = isinstance(answer, torch.Tensor) and is_finite(numbers(answer))
    return bool(exercise.learns) and learns and gradient(exercise, function, case) is None


# --------------------------------------------------------------------------------------------------
# The diagnosis

ONLY_THE_NUMBER = ("Its gradient is right in every case, so a training goes the same way: only the "
                   "number is another one. Most of the points are given for that.")


def diagnose(exercise, function, path=""):
    """(what is wrong or None, the share of the cases that are right).

    Of a loss a case counts as right, too, if only the gradient is: a training goes the same way."""
    if exercise.judge:
        return diagnose_random(exercise, function, path)
    cases = exercise.cases()
    correct = [exercise.right(*copy.deepcopy(case.arguments)) for case in cases]
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
        if exercise.learns and not problem:
            slopes = (gradient(exercise, function, case, path) for case in cases)
            problem = next(filter(None, slopes), None)
        return problem, 0.9 if problem else 1.0
    counts = [is_right or trains_alike(exercise, function, case, answer)
              for is_right, case, answer in zip(right, cases, answers)]
    remark = f" {ONLY_THE_NUMBER}" if all(counts) else ""
    return (wrong_numbers(exercise, cases, answers, wanted, right, remark),
            sum(counts) / len(cases))


def diagnose_random(exercise, function, path):
    """`diagnose`, for answers of which only the properties can be judged."""
    problems = []
    for case in exercise.cases():
        where = spell_case(exercise, case)
        try:
            problem = exercise.judge(function, *case.arguments)
            problems.append(f"{problem} (In {where}.)" if problem else None)
        except BaseException as failure:
            problems.append(in_words(failure, path, f"in {where}"))
            if isinstance(failure, (NotImplementedError, SystemExit)):
                return problems[-1], 0.0
    first = next(filter(None, problems), None)
    return first, problems.count(None) / len(problems)


def no_numbers(exercise, case, answer, wanted, path):
    """Why an answer has no numbers to compare, or None."""
    where = spell_case(exercise, case)
    if isinstance(answer, BaseException):
        problem = in_words(answer, path, f"in {where}")
        hints = [f". {hint}" for words, hint in exercise.hints.items() if words in problem]
        return problem + "".join(hints[:1])
    problem = form(exercise, answer, wanted, case.sizes)
    return f"{problem} (in {where})" if problem else None


def wrong_numbers(exercise, cases, answers, wanted, right, remark):
    """What is wrong with numbers: the first case that is wrong, and the mistake that gives them.
    Where no mistake does, it is the cases that are wrong. `remark` is what is right."""
    got = [numbers(answer) for answer in answers]
    rounded = [has_bf16(case.arguments) and equal(own, correct, BF16_DIGITS)
               for case, own, correct in zip(cases, got, wanted)]
    wrong = [i for i in range(len(cases)) if not right[i] and not rounded[i]]
    first = wrong[0] if wrong else right.index(False)
    example = (f"In {spell_case(exercise, cases[first])} it gives "
               f"{spell_answer(got[first], exercise.parts)}, and "
               f"{spell_answer(wanted[first], exercise.parts)} is right.")
    if not wrong:
        return (f"computed in bf16. {example} bf16 has 8 binary digits: turn such tensors into "
                "fp32 first.")
    mistake = known_mistake(exercise, cases, got)
    if mistake:
        return f"{mistake.name} {example} {mistake.advice}".strip() + remark
    return (f"{example} {wrong_cases(cases, wrong)} None of the "
            f"{len(exercise.mistakes)} mistakes that this check knows gives your numbers.{remark}")


def wrong_cases(cases, wrong):
    """The cases number `wrong` by their names, which may say what they have in common."""
    if len(wrong) == len(cases):
        return f"All {len(cases)} cases are wrong."
    names = ", ".join(f'"{cases[i].name}"' for i in wrong)
    verb = "is" if len(wrong) == 1 else "are"
    return f"Of {len(cases)} cases {len(wrong)} {verb} wrong: {names}."


# --------------------------------------------------------------------------------------------------
# Known mistakes


def known_mistake(exercise, cases, got):
    """The first mistake that gives the student's numbers in most cases, and in more than one, or
    None.

    It must give them in all cases in which they are finite: an inf or a NaN may come from another
    place than the mistake."""
    best, most = None, 1
    for mistake in exercise.mistakes:
        agrees = [gives(mistake, case, own) for case, own in zip(cases, got)]
        if sum(agrees) > most and all(
                agree or not is_finite(own) for agree, own in zip(agrees, got)):
            best, most = mistake, sum(agrees)
    return best


def gives(mistake, case, own):
    """Whether a mistake gives the student's own numbers in a case."""
    try:
        values = numbers(mistake.function(*case.arguments))
    except Exception:  # a mistake that cannot be made with these sizes
        return False
    return equal(values, own, BF16_DIGITS if has_bf16(case.arguments) else 1e-4)
