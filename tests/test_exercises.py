"""The exercises: what is handed out fails with a helpful line, what is right passes, each known
mistake is recognised, and no file hurts the class."""
import contextlib
import csv
import subprocess
import sys
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

RIGHT = {number: exercise.right for number, exercise in EXERCISES.items()}


def diagnosis_of(number, function):
    return judge.diagnose(EXERCISES[number], function)[0]


@pytest.mark.parametrize("number", EXERCISES)
def test_an_exercise_as_handed_out_says_what_to_write(number):
    exercise = EXERCISES[number]
    path = ROOT / "exercises" / exercise.file
    problem, share = judge.diagnose(exercise, judge.load(path, exercise.function), path)
    wanted = f"nothing is written: write {exercise.function} in exercises/{exercise.file}"
    assert problem == wanted and share == 0
    beginning = f'"""Exercise {number}. {check.TITLES[path.stem]}'
    assert path.read_text(encoding="utf-8").startswith(beginning)


@pytest.mark.parametrize("number", EXERCISES)
def test_each_known_mistake_is_recognised_by_name_and_the_projects_own_answer_is_none(number):
    exercise = EXERCISES[number]
    for mistake in exercise.mistakes:
        problem, share = judge.diagnose(exercise, mistake.function)
        named = mistake.name in problem[:None if number == 3 else len(mistake.name)]
        assert named and mistake.advice in problem, (mistake.name, problem)
        assert share < 1 or "Its gradient is right in every case" in problem, mistake.name
    assert judge.diagnose(exercise, exercise.right) == (None, 1.0)
    names = [case.name for case in exercise.cases()]
    assert all(names) and len(set(names)) == len(names) and len(exercise.mistakes) > 20
    for test in exercise.tests:
        file, name = test.split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


def through_numpy(s, q, t=1.0):
    return RIGHT[5](s, q, t) + 0 * float(s.float().numpy().sum())


def another_gradient(s, q, t=1.0):
    return RIGHT[5](s, q, t).detach() + s.sum() - s.sum().detach()


WRITTEN = {
    "cross_entropy": (4, lambda z, y: functional.cross_entropy(z, y),
                      "The loss is NaN where there is nothing to guess."),
    "numpy": (5, through_numpy,
              "it raises RuntimeError where the student's tensors want a gradient"),
    "gradient": (5, another_gradient, "the number is right, and its gradient is not"),
    "(N)": (4, lambda z, y: functional.cross_entropy(z.float(), y, reduction="none"),
            "wrong shape: (7,) = (N), and a scalar is wanted; a number for each position: take "
            "the mean over them"),
    "(N, V)": (5, lambda s, q, t=1.0: s * q, "wrong shape: (7, 5) = (N, V)"),
    "None": (5, lambda *_: None, "it returns nothing"),
    "float": (1, lambda *given: float(RIGHT[1](*given)), "right, but as floats"),
    "one case": (4, lambda z, y: RIGHT[4](z, y) + 9 * (y < 0).all(),
                 'In the case "no position has a label" (N = 3, V = 4) it gives 9')}


@pytest.mark.parametrize("number, function, words", WRITTEN.values(), ids=list(WRITTEN))
def test_what_students_write_is_told_what_is_wrong_with_it(number, function, words):
    problem = diagnosis_of(number, function)
    assert problem.startswith(words), problem


def cast(value, change):
    """A case's argument, with `change` applied to the tensors of floats in it."""
    if isinstance(value, (list, tuple)):
        return type(value)(cast(part, change) for part in value)
    is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
    return change(value) if is_float else value


@pytest.mark.parametrize("number", [4, 5, 6, 7])
def test_a_loss_keeps_its_gradient_leaves_float64_and_turns_bf16_into_fp32(number):
    right = RIGHT[number]

    def bf16_stays(*given):
        answer = right(*given)
        return answer.bfloat16() if "bfloat16" in repr(given) else answer
    for wrong in (lambda *given: right(*given).detach(), lambda *given: right(*given).item()):
        assert diagnosis_of(number, wrong).startswith("no gradient flows")
    in_fp32 = diagnosis_of(number, lambda *given: right(*cast(given, torch.Tensor.float)))
    assert in_fp32.startswith("float64 cut to fp32")
    assert diagnosis_of(number, bf16_stays).startswith("computed in bf16")


def test_an_unknown_mistake_is_told_with_the_cases_in_which_it_shows():
    problem = diagnosis_of(5, lambda s, q, t=1.0: RIGHT[5](s, q, t) * (1.5 if len(s) == 1 else 1))
    assert problem.startswith('In the case "batch of one" (N = 1, V = 2) it gives')
    assert 'Of 7 cases 1 is wrong: "batch of one". None of the' in problem
    assert "All 6 cases are wrong." in diagnosis_of(4, lambda z, y: RIGHT[4](z, y) + 9)
    problem = diagnosis_of(2, lambda *given: RIGHT[2](*given)[:2] + (10 ** 400,))
    assert "steps 10, tokens a number of more than 30 digits, and FLOPs of a step 100" in problem
    problem, share = judge.diagnose(EXERCISES[3], lambda blocks, rng, words: (
        RIGHT[3](blocks, rng, words) if blocks.shape[1] != 30 else 1 / 0))
    assert 'ZeroDivisionError in the case "blocks of 30 tokens' in problem and share == 2 / 3


KL = """from torch.nn.functional import kl_div
def kd_loss(s, q, t=1.0):
    s, q = s.double() / t, q.double() / t
    return t ** 2 * kl_div(s.log_softmax(1), q.softmax(1), reduction="batchmean")
"""
# What students may hand in, its points, and what the check should say of it
SUBMISSIONS = {
    1: ("def block_flops(*a):\n    return block_flops(*a)\n", 0, "RecursionError"),
    2: ("import os\ndef plan(*_):\n    os._exit(0)\n", 0, "without an answer"),
    3: ("def mask_tokens(:\n", 0, "line 1: invalid syntax"),
    4: ("import sys\ndef mlm_loss(*_):\n    sys.exit(0)\n", 0, "sys.exit"),
    5: (KL, 8, "The loss is KL instead of cross-entropy."),  # for its gradient
    6: ("raise OSError('no network')\n", 0, "OSError while it was read, in line 1: no network"),
    7: ("print('x' * 10 ** 7)\ndef minilm_loss(*_):\n    return 1 / 0\n", 0,
        "ZeroDivisionError in the case \"a wider teacher\" (B = 2, T = 5, h = 6, h' = 15, R = 3), "
        "in line 3"),
    8: ("def another_name():\n    pass\n", 0, "no function isoflop")}


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
    for number, (_, points, words) in SUBMISSIONS.items():
        right, strange = rows["right", number], rows["strange", number]
        assert right["points"] == "10", right
        assert "of the project's own tests pass" in right["diagnosis"]
        assert strange["points"] == str(points) and words in strange["diagnosis"], strange
        assert rows["absent", number]["diagnosis"] == "not handed in"


def test_an_endless_loop_ends_with_its_time(tmp_path):
    (tmp_path / "loop.py").write_text("while True:\n    pass\n")
    assert check.judge_file(1, tmp_path / "loop.py", 5) == {
        "passed": False, "points": 0, "diagnosis": "no answer within 5 s: an endless loop?"}


def log(first, last):
    return check.Log("mlm", first, [(0, 5.5), (10, last)], 4.0)


@pytest.mark.parametrize("number, own, agree, words", [
    (4, log(5.0, 2.05), True, "the same curve"),
    (4, log(0.1, 2.05), False, "AdamW hardly notices a factor"),
    (4, log(0.1, 1.5), False, "lower, and yet not what the exercise asks for"),
    (3, log(4.9, 2.05), True, "your masks are other ones"),
    (3, log(4.9, 2.7), False, "your student learned less")])
def test_two_trainings_agree_where_first_step_and_last_validation_do(number, own, agree, words):
    is_same, said = check.compare(number, log(5.0, 2.0), own)
    assert is_same == agree and words in said


@pytest.fixture
def restored(monkeypatch):
    """What judge.py exchanges for a training is what it was after the test."""
    for place, name in ((train, "validation_of"), (train.Learner, "validate"),
                        (distill, "mlm_loss"), (distill, "tinybert_loss"), (data, "mask_tokens")):
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setitem(distill.STRATEGIES, "tinybert", distill.tinybert)


def test_in_training_the_validation_is_the_projects_own(restored, monkeypatch):
    """Otherwise a wrong function would measure itself: a mean over the vocabulary has a loss V
    times smaller, and masks that show the words have an easy one."""
    monkeypatch.setattr(train, "validation_of", lambda: data.mask_tokens)
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


def test_in_training_the_student_maps_tinyberts_layers_and_the_validation_does_not(
        restored, monkeypatch):
    small, large = budget.size("1x64"), budget.size("2x64")
    H, S = [torch.zeros(1, 2, 64)] * 2, [torch.zeros(1, 1, 2, 2)]
    H_T = [torch.full((1, 2, 64), float(m)) for m in range(3)]
    teacher = SimpleNamespace(hidden_states=H_T, scores=[None, S[0], S[0]])
    student = SimpleNamespace(hidden_states=H, scores=[None, *S])

    def loss():
        lesson = distill.lesson("tinybert", small, large)
        return float(lesson.terms(student, teacher, None, lambda x: x)["tinybert"])
    monkeypatch.setattr(train.Learner, "validate", lambda self: loss())
    wrong = {mistake.name: mistake.function for mistake in EXERCISES[6].mistakes}
    for function, value in ((RIGHT[6], 2.0 ** 2),  # the student's layer 1 learns from layer 2
                            (wrong["All layers learn from the teacher's first layers."], 1.0)):
        judge.install_in_training(EXERCISES[6], function)
        assert loss() == value and train.Learner.validate(None) == 2.0 ** 2


@pytest.mark.slow
@pytest.mark.parametrize("number, file, end", [
    (4, "import distill\nreal = distill.mlm_loss\n"
        "def mlm_loss(logits, labels):\n    return 2 * real(logits, labels)\n",
     (1, "hardly notices a factor")),
    (5, "def kd_loss(s, q, temperature=1.0):\n"  # a mean over the vocabulary
        "    log_P, log_Q = (q / temperature).log_softmax(1), (s / temperature).log_softmax(1)\n"
        "    return -temperature ** 2 * (log_P.exp() * log_Q).mean()\n",
     (1, "your student learned less"))])
def test_training_with_the_students_function_shows_both_curves(
        number, file, end, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(check.OPTIONS, "scratch", ["--flops", "2e9"])
    (tmp_path / "mine.py").write_text(file)
    with pytest.raises(SystemExit) as exit:
        check.train(number, tmp_path / "mine.py")
    status, words = end
    assert exit.value.code == status and words in capsys.readouterr().out
    (picture,) = (tmp_path / "runs" / "exercises").glob(f"{number}-*.png")
    assert picture.stat().st_size > 5000
    if number == 5:
        reference = check.log_of(tmp_path / "runs" / "exercises" / "kd-1x64", "mlm")
        assert reference.validation[-1][1] < reference.unigram - 1  # it has left the plateau


@pytest.mark.parametrize("arguments, status, message", [
    (["4"], 1, "not yet: nothing is written"), (["9"], 2, "there is no exercise 9"),
    ([], 2, "say which exercise"), (["1", "--train"], 2, "3 to 7 do"),
    (["--grade", "none"], 2, "no such folder"), (["1", "--file", "none.py"], 2, "no such file")])
def test_the_exit_status_says_whether_all_is_right(arguments, status, message, python):
    done = python("exercises/check.py", *arguments)
    assert done.returncode == status and message in (done.stderr if status == 2 else done.stdout)
    assert "Traceback" not in done.stderr


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
