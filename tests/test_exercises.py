"""The exercises: what is handed out fails with a helpful line, what is right passes, each known
mistake is recognised, and no file hurts the class."""
import contextlib
import csv
import random
import subprocess
import sys
from statistics import stdev
from types import SimpleNamespace

import check
import judge
import pytest
import torch
from answers import EXERCISES
from children import ROOT
from torch.nn import functional

import budget
import data
import distill
import train
from model import Bert, BertConfig

MISTAKES = [(number, mistake) for number, exercise in EXERCISES.items()
            for mistake in exercise.mistakes]


def known_mistakes():
    """A test of each mistake. One in fifteen is quick, and the others run with --slow."""
    for i, (number, mistake) in enumerate(MISTAKES):
        marks = [] if i % 15 == 0 else [pytest.mark.slow]
        yield pytest.param(number, mistake, marks=marks, id=f"{number}: {mistake.name}")


@pytest.mark.parametrize("number", EXERCISES)
def test_an_exercise_as_handed_out_says_what_to_write(number):
    exercise = EXERCISES[number]
    path = ROOT / "exercises" / exercise.file
    problem, share = judge.diagnose(exercise, judge.load(path, exercise.function), path)
    wanted = f"nothing is written: write {exercise.function} in exercises/{exercise.file}"
    assert problem == wanted and share == 0


@pytest.mark.parametrize("number, mistake", list(known_mistakes()))
def test_a_known_mistake_is_recognised_by_name(number, mistake):
    problem, share = judge.diagnose(EXERCISES[number], mistake.function)
    if number == 3:  # its check knows properties, not mistakes
        assert mistake.name in problem
    else:
        assert problem.startswith(mistake.name), problem
    assert mistake.advice in problem
    assert share < 1 or "Its gradient is right in every case" in problem


@pytest.mark.parametrize("number", [number for number in EXERCISES if EXERCISES[number].pairs])
def test_two_mistakes_at_once_are_recognised(number):
    pair = random.Random(number).choice(EXERCISES[number].pairs)
    problem, _ = judge.diagnose(EXERCISES[number], pair.function)
    assert "None of the" not in problem, pair.name


def test_each_exercise_knows_at_least_three_mistakes_and_the_projects_own_answer_is_none():
    for exercise in EXERCISES.values():
        assert len(exercise.mistakes) >= 3
        assert judge.diagnose(exercise, exercise.right) == (None, 1.0)
    assert len(MISTAKES) == 402


def test_the_projects_own_tests_that_the_exercises_name_are_there():
    for exercise in EXERCISES.values():
        for test in exercise.tests:
            file, name = test.split("::")
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


def test_a_wrong_shape_is_told_by_its_names():
    def each_position(z, y):
        return functional.cross_entropy(z.float(), y, reduction="none")
    problem, _ = judge.diagnose(EXERCISES[4], each_position)
    assert "= (N)" in problem and "mean over them" in problem

    def each_word(s, t, temperature=1.0):
        return s * t
    problem, _ = judge.diagnose(EXERCISES[5], each_word)
    assert "= (N, V)" in problem
    problem, _ = judge.diagnose(EXERCISES[5], lambda *_: None)
    assert "returns nothing" in problem


@pytest.mark.parametrize("number", [4, 5, 6, 7])
def test_a_loss_from_which_nothing_is_learned_is_told(number):
    right = EXERCISES[number].right
    detached, as_float = lambda *a: right(*a).detach(), lambda *a: right(*a).item()
    for wrong in (detached, torch.no_grad()(right), as_float):
        problem, _ = judge.diagnose(EXERCISES[number], wrong)
        assert problem.startswith("no gradient flows")


def test_a_student_whose_gradient_is_partly_lost_is_told():
    kd_loss = EXERCISES[5].right

    def through_numpy(s, t, temperature=1.0):
        return kd_loss(s, t, temperature) + 0 * float(s.float().numpy().sum())
    problem, _ = judge.diagnose(EXERCISES[5], through_numpy)
    assert problem.startswith("it raises RuntimeError where the student's tensors want a gradient")

    def another_gradient(s, t, temperature=1.0):
        return kd_loss(s, t, temperature).detach() + s.sum() - s.sum().detach()
    problem, _ = judge.diagnose(EXERCISES[5], another_gradient)
    assert problem.startswith("the number is right, and its gradient is not")


def test_a_gradient_is_looked_at_in_every_case():
    def converted_without_a_gradient(s, t, temperature=1.0):
        with torch.no_grad():
            s = distill.to_fp32(s)  # a copy where s is bf16, and s itself elsewhere
        return EXERCISES[5].right(s, t, temperature)
    problem, _ = judge.diagnose(EXERCISES[5], converted_without_a_gradient)
    assert problem.startswith('no gradient flows in the case "scores in bf16')


@pytest.mark.parametrize("in_fp32", [True, False])
def test_kl_divs_gradient_is_right_and_its_number_is_not(in_fp32):
    # KL is the cross-entropy less the teacher's entropy, which no weight of the student changes.
    def kl(s, t, temperature=1.0):
        s, t = (distill.to_fp32(x) if in_fp32 else x for x in (s, t))
        return temperature ** 2 * functional.kl_div(
            (s / temperature).log_softmax(1), (t / temperature).softmax(1), reduction="batchmean")
    problem, share = judge.diagnose(EXERCISES[5], kl)
    assert problem.startswith("The loss is KL instead of cross-entropy.")
    assert "teacher's entropy" in problem and "Its gradient is right in every case" in problem
    assert ("also computes in bf16" in problem) == (not in_fp32)
    assert share == 1  # 8 of 10 points, since something is wrong all the same


def test_a_gradient_that_is_wrong_gets_no_points_for_the_gradient():
    def doubled_kl(s, t, temperature=1.0):
        return 2 * functional.kl_div(s.float().log_softmax(1), t.float().softmax(1),
                                     reduction="batchmean")
    problem, share = judge.diagnose(EXERCISES[5], doubled_kl)
    assert share == 0 and "gradient is right" not in problem


# What students write of their own accord, and the beginning of what they should be told. It comes
# from their own code, and not from the check's.
def log_softmax(z, t=1.0):
    return functional.log_softmax(distill.to_fp32(z) / t, 1)


def soft(z, t=1.0):
    return functional.softmax(distill.to_fp32(z) / t, 1)


WRITTEN = [
    (4, lambda z, y: functional.cross_entropy(z, y),
     "The loss is NaN where there is nothing to guess."),
    (5, lambda s, q, t=1.0: functional.cross_entropy(distill.to_fp32(s) / t, q.argmax(1)) * t ** 2,
     "The teacher's favourite word (argmax) is taken for a label."),
    (5, lambda s, q, t=1.0: functional.cross_entropy(distill.to_fp32(s), q.argmax(1)),
     "There are two mistakes. The teacher's favourite word (argmax) is taken for a label. The "
     "temperature is ignored."),
    (5, lambda s, q, t=1.0: -t ** 2 * (soft(q, t) * (log_softmax(s) / t)).sum(1).mean(),
     "The student's temperature is applied after log_softmax."),
    (5, lambda s, q, t=1.0: functional.mse_loss(soft(s, t), soft(q, t)) * t ** 2,
     "The loss is the MSE of the probabilities."),
    (5, lambda s, q, t=1.0: functional.mse_loss(soft(s, t), soft(q, t)),
     "There are two mistakes. The loss is the MSE of the probabilities. The factor t^2 is "
     "missing."),
    (5, lambda s, q, t=1.0: t ** 2 * functional.kl_div(log_softmax(s, t), soft(q, t),
                                                       reduction="sum"),
     "There are two mistakes. The loss is the sum over the positions. The loss is KL instead of"),
    (8, lambda a, b, curve, C: (
        sum(a) / len(a) - sum(b) / len(b),
        1.96 * stdev(x - y for x, y in zip(a, b)) / len(a) ** 0.5,
        EXERCISES[8].right(a, b, curve, C)[2] * C),
     "There are two mistakes. The factor is the normal distribution's 1.96. The third number is ")]


@pytest.mark.parametrize("number, function, words", WRITTEN)
def test_what_students_write_is_told_what_is_wrong_with_it(number, function, words):
    problem, _ = judge.diagnose(EXERCISES[number], function)
    assert problem.startswith(words), problem


def test_an_unknown_mistake_is_told_with_the_cases_in_which_it_shows():
    kd_loss, mlm_loss = EXERCISES[5].right, EXERCISES[4].right
    problem, _ = judge.diagnose(EXERCISES[5], lambda s, q, t=1.0: (
        kd_loss(s, q, t) * (1.5 if len(s) == 1 else 1)))
    assert problem.startswith('In the case "batch of one" (N = 1, V = 2) it gives')
    assert 'Of 7 cases 1 is wrong: "batch of one". None of the' in problem
    problem, _ = judge.diagnose(EXERCISES[5], lambda s, q, t=1.0: kd_loss(s, q, min(t, 3.0)))
    assert 'Of 7 cases 1 is wrong: "temperature 4".' in problem
    problem, _ = judge.diagnose(EXERCISES[4], lambda z, y: mlm_loss(z, y) + 9 * (y < 0).all())
    assert problem.startswith('In the case "no position has a label" (N = 3, V = 4) it gives 9')
    problem, _ = judge.diagnose(EXERCISES[4], lambda z, y: mlm_loss(z, y) + 9)
    assert "All 6 cases are wrong." in problem


def test_an_exception_or_a_wrong_form_is_told_with_its_case():
    mlm_loss, mask_tokens = EXERCISES[4].right, EXERCISES[3].right
    problem, _ = judge.diagnose(EXERCISES[4], lambda z, y: (
        mlm_loss(z, y) if (y >= 0).any() else None))
    assert "returns nothing" in problem and '(in the case "no position has a label"' in problem
    problem, share = judge.diagnose(EXERCISES[3], lambda blocks, rng, words: (
        mask_tokens(blocks, rng, words) if blocks.shape[1] != 30 else 1 / 0))
    assert 'ZeroDivisionError in the case "blocks of 30 tokens' in problem and share == 3 / 4


def test_cases_have_names_of_their_own():
    for exercise in EXERCISES.values():
        names = [case.name for case in exercise.cases()]
        assert all(names) and len(set(names)) == len(names)


def cast(value, change):
    """A case's argument, with `change` applied to the tensors of floats in it."""
    if isinstance(value, (list, tuple)):
        return type(value)(cast(part, change) for part in value)
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return change(value) if is_float else value


@pytest.mark.parametrize("number", [4, 5, 6, 7])
def test_float64_stays_and_bf16_does_not(number):
    right = EXERCISES[number].right

    def in_fp32(*arguments):
        return right(*cast(arguments, torch.Tensor.float))
    problem, _ = judge.diagnose(EXERCISES[number], in_fp32)
    assert problem.startswith("float64 cut to fp32")

    def bf16_stays(*arguments):
        answer = right(*arguments)
        return answer.bfloat16() if "bfloat16" in repr(arguments) else answer
    problem, _ = judge.diagnose(EXERCISES[number], bf16_stays)
    assert problem.startswith("computed in bf16")


def test_whole_numbers_are_wanted_where_floats_lose_digits():
    block_flops, plan = EXERCISES[1].right, EXERCISES[2].right
    problem, _ = judge.diagnose(EXERCISES[1], lambda *a: float(block_flops(*a)))
    assert problem.startswith("right, but as floats")
    problem, _ = judge.diagnose(EXERCISES[2], lambda *a: plan(*a)[:2] + (10 ** 400,))
    assert ("steps 10, tokens a number of more than 30 digits, and "
            "FLOPs of a step 100, steps 10, tokens 80 is right") in problem


def test_an_overflow_does_not_hide_the_mistake_beside_it():
    def kl(s, t, temperature=1.0):  # and 0 log 0 where the teacher is sure
        P = (t.double() / temperature).softmax(1)
        log_Q = (s.double() / temperature).log_softmax(1)
        return temperature ** 2 * (P * (P.log() - log_Q)).sum(1).mean()
    problem, _ = judge.diagnose(EXERCISES[5], kl)
    assert problem.startswith("The loss is KL instead of cross-entropy.")


def test_in_the_loop_the_student_maps_tinyberts_layers(monkeypatch):
    monkeypatch.setattr(distill, "tinybert_loss", distill.tinybert_loss)
    monkeypatch.setitem(distill.STRATEGIES, "tinybert", distill.tinybert)
    torch.manual_seed(0)
    small, large = budget.size("1x64"), budget.size("2x64")
    student, teacher = (
        Bert(BertConfig.of(size, vocab_size=50, max_position_embeddings=16)).eval()
        for size in (small, large))
    blocks = torch.arange(32).reshape(2, 16)

    def loss():
        lesson = distill.lesson("tinybert", small, large)
        s, t = student(blocks, reads=lesson.student), teacher(blocks, reads=lesson.teacher)
        return lesson.terms(s, t, None, lambda x: x)["tinybert"].item()

    exercise = EXERCISES[6]
    name = "All layers learn from the teacher's first layers."
    wrong = next(mistake for mistake in exercise.mistakes if mistake.name == name)
    of_project = loss()
    exercise.install_loop(exercise.right)
    assert loss() == pytest.approx(of_project)
    exercise.install_loop(wrong.function)
    assert abs(loss() - of_project) > 1e-3


# --------------------------------------------------------------------------------------------------
# A class

# What students may hand in, and what the check should say of it
SUBMISSIONS = {
    1: ("def block_flops(*a):\n    return block_flops(*a)\n", "RecursionError"),
    2: ("def plan(*_):\n    return bytearray(6 * 2 ** 30)\n", "of memory"),
    3: ("def mask_tokens(:\n", "line 1: invalid syntax"),
    4: ("import sys\ndef mlm_loss(*_):\n    sys.exit(0)\n", "sys.exit"),
    5: ("import os\ndef kd_loss(*_):\n    os._exit(0)\n", "without an answer"),
    6: ("import urllib.request\nurllib.request.urlopen('http://example.com')\n",
        "not allowed in an exercise"),
    7: ("print('x' * 10 ** 7)\ndef minilm_loss(*_):\n    return 1 / 0\n",
        "ZeroDivisionError in the case \"a wider teacher\" (B = 2, T = 5, h = 6, h' = 15, R = 3), "
        "in line 3"),
    8: ("def another_name():\n    pass\n", "no function isoflop")}


@pytest.mark.slow
def test_grading_survives_whatever_a_class_hands_in_and_the_projects_own_functions_get_all_points(
        tmp_path):
    for student in ("right", "strange", "absent"):
        (tmp_path / "class" / student).mkdir(parents=True)
    for number, exercise in EXERCISES.items():
        (tmp_path / "class" / "right" / exercise.file).write_text(
            "from answers import EXERCISES\n"
            f"{exercise.function} = EXERCISES[{number}].right\n")
        (tmp_path / "class" / "strange" / exercise.file).write_text(SUBMISSIONS[number][0])
    command = [sys.executable, str(ROOT / "exercises" / "check.py"), "--grade", "class",
               "--seconds", "600"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "grades.csv").open() as file:
        rows = {(row["student"], int(row["exercise"])): row for row in csv.DictReader(file)}
    for number, (_, words) in SUBMISSIONS.items():
        right, strange = rows["right", number], rows["strange", number]
        assert right["points"] == "10", right
        assert "of the project's own tests pass" in right["diagnosis"]
        assert strange["points"] == "0" and words in strange["diagnosis"], strange
        assert rows["absent", number]["diagnosis"] == "not handed in"


@pytest.mark.slow
@pytest.mark.parametrize("loss, words, points", [
    ("-(P * log_Q).sum(1).mean()", "The factor t^2 is missing.", 4),  # 4 of 7 cases are right
    ("t ** 2 * kl_div(log_Q, P, reduction='batchmean')", "The loss is KL instead", 8),
    ("kl_div(log_Q, P, reduction='batchmean')", "There are two mistakes.", 4),
    ("t ** 2 * kl_div(log_Q, P)", "The loss is torch's kl_div with its default mean.", 0)])
def test_a_wrong_file_gets_up_to_8_points_for_the_share_of_the_cases_that_are_right(
        loss, words, points, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch.nn.functional import kl_div\n"
        "def kd_loss(student_logits, teacher_logits, temperature=1.0):\n"
        "    z_S, z_T, t = student_logits.double(), teacher_logits.double(), temperature\n"
        "    P, log_Q = (z_T / t).softmax(1), (z_S / t).log_softmax(1)\n"
        f"    return {loss}\n")
    result = check.judge_file(5, tmp_path / "mine.py", 120)
    assert result["diagnosis"].startswith(words), result
    assert not result["passed"] and result["points"] == points


def test_an_endless_loop_ends_with_its_time(tmp_path):
    (tmp_path / "loop.py").write_text("while True:\n    pass\n")
    assert check.judge_file(1, tmp_path / "loop.py", 5) == {
        "passed": False, "points": 0, "diagnosis": "no answer within 5 s: an endless loop?"}
    assert not check.RUNNING


# --------------------------------------------------------------------------------------------------
# --train


def log(first, last):
    return check.Log("mlm", first, [(0, 5.5), (10, last)], 4.0)


@pytest.mark.parametrize("number, own, agree, words", [
    (4, log(5.0, 2.05), True, "the same curve"),
    (4, log(0.1, 2.05), False, "AdamW hardly notices a factor"),
    (4, log(0.1, 2.7), False, "your student learned less"),
    (4, log(5.0, 2.7), False, "your student learned less"),
    (4, log(0.1, 1.5), False, "lower, and yet not what the exercise asks for"),
    (3, log(4.9, 2.05), True, "your masks are other ones"),
    (3, log(4.9, 2.7), False, "your student learned less")])
def test_two_trainings_agree_where_first_step_and_last_validation_do(number, own, agree, words):
    is_same, said = check.compare(number, log(5.0, 2.0), own)
    assert is_same == agree and words in said


def test_every_strategy_that_is_trained_has_a_measure_that_its_runs_log():
    for strategy in check.STRATEGY.values():
        lesson = distill.lesson(strategy, budget.size("1x64"), budget.size("2x64"))
        measure = check.MEASURE[strategy]
        assert lesson.student.logits == (measure == "mlm") and measure in check.SPREAD


def test_in_training_the_validation_is_the_projects_own(monkeypatch):
    """Otherwise a wrong function would measure itself: a mean over the vocabulary has a loss V
    times smaller, and masks that show the words have an easy one."""
    monkeypatch.setattr(train, "validation_of", lambda: data.mask_tokens)
    monkeypatch.setattr(train.Learner, "validate", train.Learner.validate)
    monkeypatch.setattr(distill, "mlm_loss", distill.mlm_loss)
    monkeypatch.setattr(data, "mask_tokens", data.mask_tokens)
    torch.manual_seed(0)
    size, own_masks = budget.size("1x64"), data.mask_tokens
    bert = Bert(BertConfig.of(size, vocab_size=50, max_position_embeddings=16))
    learner = train.Learner(bert, distill.lesson("scratch", size))
    blocks, positions = torch.arange(32).reshape(2, 16), torch.tensor([3, 9, 20, 30])
    batch = blocks, blocks, positions, blocks.reshape(-1)[positions]
    processes = SimpleNamespace(rows=range, all_reduce_sum=lambda sums: None)
    session = SimpleNamespace(processes=processes, autocast=contextlib.nullcontext)

    right = learner.validate(batch, session)["mlm"]
    judge.install_in_training(EXERCISES[4], lambda z, y: 0 * z.sum() + 7)
    assert learner(*batch)["mlm"].item() == pytest.approx(7)
    assert learner.validate(batch, session)["mlm"] == right
    judge.install_in_training(EXERCISES[3], lambda *_: None)
    assert data.mask_tokens(1, 2, 3) is None and train.validation_of() is own_masks


def test_tinyberts_validation_is_the_projects_own_with_its_own_layers(monkeypatch):
    monkeypatch.setattr(distill, "tinybert_loss", distill.tinybert_loss)
    monkeypatch.setitem(distill.STRATEGIES, "tinybert", distill.tinybert)
    monkeypatch.setattr(train, "validation_of", train.validation_of)
    small, large = budget.size("1x64"), budget.size("2x64")
    H, S = [torch.zeros(1, 2, 64)] * 2, [torch.zeros(1, 1, 2, 2)]
    H_T = [torch.full((1, 2, 64), float(m)) for m in range(3)]
    teacher = SimpleNamespace(hidden_states=H_T, scores=[None, S[0], S[0]])
    student = SimpleNamespace(hidden_states=H, scores=[None, *S])

    def loss():
        lesson = distill.lesson("tinybert", small, large)
        return float(lesson.terms(student, teacher, None, lambda x: x)["tinybert"])
    monkeypatch.setattr(train.Learner, "validate", lambda self: loss())
    assert loss() == 2.0 ** 2  # the student's layer 1 learns from layer 2
    judge.install_in_training(EXERCISES[6], lambda *lists: len(lists[1]))
    assert loss() == 3 and train.Learner.validate(None) == 2.0 ** 2


@pytest.mark.slow
@pytest.mark.parametrize("factor, status, words", [(1, 0, "the same curve"),
                                                   (2, 1, "hardly notices a factor")])
def test_training_with_the_students_function_shows_both_curves(
        factor, status, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(check.OPTIONS, "scratch", ["--flops", "2e9"])
    (tmp_path / "mine.py").write_text(
        "import distill\nreal = distill.mlm_loss\n"
        f"def mlm_loss(logits, labels):\n    return {factor} * real(logits, labels)\n")
    with pytest.raises(SystemExit) as end:
        check.train(4, tmp_path / "mine.py")
    assert end.value.code == status and words in capsys.readouterr().out
    (picture,) = (tmp_path / "runs" / "exercises").glob("4-*.png")
    assert picture.stat().st_size > 5000


@pytest.mark.slow
def test_a_student_of_the_mean_over_the_vocabulary_learns_less_than_one_of_the_projects_loss(
        tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "def kd_loss(student_logits, teacher_logits, temperature=1.0):\n"
        "    z_S, z_T, t = student_logits, teacher_logits, temperature\n"
        "    return -t ** 2 * ((z_T / t).softmax(1) * (z_S / t).log_softmax(1)).mean()\n")
    with pytest.raises(SystemExit) as end:
        check.train(5, tmp_path / "mine.py")
    assert end.value.code == 1 and "your student learned less" in capsys.readouterr().out
    reference = check.log_of(tmp_path / "runs" / "exercises" / "kd-1x64", "mlm")
    assert reference.validation[-1][1] < reference.unigram - 1  # it has left the plateau


# --------------------------------------------------------------------------------------------------
# The command line


def test_the_exit_status_says_whether_all_is_right(python):
    done = python("exercises/check.py", "4")
    assert done.returncode == 1 and "not yet: nothing is written" in done.stdout


@pytest.mark.parametrize("arguments, message", [
    (["9"], "there is no exercise 9"), ([], "say which exercise"),
    (["1", "--train"], "3 to 7 do"), (["--grade", "none"], "no such folder"),
    (["1", "--file", "none.py"], "no such file")])
def test_a_command_that_cannot_be_done_is_one_line_and_status_2(arguments, message, python):
    done = python("exercises/check.py", *arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_titles_are_those_of_the_files():
    for number, path in check.FILES.items():
        beginning = f'"""Exercise {number}. {check.TITLES[path.stem]}'
        assert path.read_text(encoding="utf-8").startswith(beginning)


def test_the_worksheets_table_is_the_formulas():
    student, teacher = budget.size("2x128"), budget.size("4x128")
    page = (ROOT / "exercises" / "teacher_cost.md").read_text(encoding="utf-8")
    scratch = budget.plan(10 ** 12, budget.step_flops(student, 201, 32, 32), 32, 32)
    for strategy in ("scratch", "kd", "tinybert"):
        lesson = distill.lesson(strategy, student, teacher)
        step = budget.step_flops(student, 201, 32, 32, lesson, teacher)
        bought = budget.plan(10 ** 12, step, 32, 32)
        share = f"{100 * bought.tokens / scratch.tokens:.0f}%"
        row = f"| {strategy} | {step:,} | {bought.steps} | {bought.tokens:,} | {share} |"
        assert row in page
