"""exercises/: what is handed out fails with a helpful line, what is right passes, each classic mistake is recognised, and no file hurts the class."""
import csv
import subprocess
import sys

import pytest
from children import ROOT

import budget
import distill
from model import Bert, BertConfig

sys.path.insert(0, str(ROOT / "exercises"))
import check  # noqa: E402
import judge  # noqa: E402
from answers import EXERCISES  # noqa: E402


@pytest.mark.parametrize("number", EXERCISES)
def test_an_exercise_as_handed_out_says_what_to_write(number):
    exercise = EXERCISES[number]
    path = ROOT / "exercises" / exercise.file
    problem, share = judge.diagnose(exercise, judge.load(path, exercise.function), path)
    assert problem == f"nothing is written: write {exercise.function} in exercises/{exercise.file}" and share == 0


@pytest.mark.parametrize("number, mistake", [(number, mistake) for number, exercise in EXERCISES.items() for mistake in exercise.mistakes], ids=lambda value: value[0] if isinstance(value, tuple) else str(value))
def test_a_classic_mistake_is_recognised_by_name(number, mistake):
    name, function, advice = mistake
    problem, share = judge.diagnose(EXERCISES[number], function)
    assert name in problem if number == 3 else problem.startswith(name), problem  # exercise 3 knows properties, not mistakes
    assert share < 1 and advice in problem


def test_each_exercise_knows_at_least_three_mistakes_and_the_projects_own_answer_is_none():
    for exercise in EXERCISES.values():
        assert len(exercise.mistakes) >= 3
        assert judge.diagnose(exercise, exercise.right) == (None, 1.0)


def test_a_wrong_shape_is_told_by_its_names():
    import torch
    problem, _ = judge.diagnose(EXERCISES[4], lambda z, y: torch.nn.functional.cross_entropy(z.float(), y, reduction="none"))
    assert "= (N)" in problem and "mean over them" in problem
    problem, _ = judge.diagnose(EXERCISES[5], lambda s, t, temperature=1.0: s * t)
    assert "= (N, V)" in problem
    assert "returns nothing" in judge.diagnose(EXERCISES[5], lambda *_: None)[0]


def test_a_loss_from_which_nothing_is_learned_is_told():
    import torch
    for number in (4, 5, 6, 7):
        right = EXERCISES[number].right
        with_no_grad = torch.no_grad()(right)
        for wrong in (lambda *a: right(*a).detach(), lambda *a: with_no_grad(*a), lambda *a: right(*a).item()):
            assert judge.diagnose(EXERCISES[number], wrong)[0].startswith("no gradient flows")
    kd = EXERCISES[5].right
    through_numpy = judge.diagnose(EXERCISES[5], lambda s, t, temperature=1.0: kd(s, t, temperature) + 0 * float(s.float().numpy().sum()))
    assert through_numpy[0].startswith("it raises RuntimeError where the student's tensors want a gradient")
    cut = judge.diagnose(EXERCISES[5], lambda s, t, temperature=1.0: kd(s, t, temperature).detach() + s.sum() - s.sum().detach())
    assert cut[0].startswith("the number is right, and its gradient is not")


@pytest.mark.parametrize("number", [4, 5, 6, 7])
def test_float64_stays_and_bf16_does_not(number):
    import torch

    def cast(value, change):
        return type(value)(cast(part, change) for part in value) if isinstance(value, (list, tuple)) else change(value) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
    right = EXERCISES[number].right
    problem, _ = judge.diagnose(EXERCISES[number], lambda *a: right(*cast(a, torch.Tensor.float)))
    assert problem.startswith("float64 cut to fp32")
    problem, _ = judge.diagnose(EXERCISES[number], lambda *a: right(*a).bfloat16() if "bfloat16" in repr(a) else right(*a))
    assert problem.startswith("computed in bf16")


def test_whole_numbers_are_wanted_where_floats_lose_digits():
    right = EXERCISES[1].right
    assert judge.diagnose(EXERCISES[1], lambda *a: float(right(*a)))[0].startswith("right, but as floats")
    problem, _ = judge.diagnose(EXERCISES[2], lambda *a: EXERCISES[2].right(*a)[:2] + (10 ** 400,))
    assert "steps 10, tokens a number of more than 30 digits, and FLOPs of a step 100, steps 10, tokens 80 is right" in problem


def test_an_overflow_does_not_hide_the_mistake_beside_it():
    # KL instead of cross-entropy, and 0 log 0 where the teacher is sure
    problem, _ = judge.diagnose(EXERCISES[5], lambda s, t, temperature=1.0: temperature ** 2 * (
        (p := (t.double() / temperature).softmax(1)) * (p.log() - (s.double() / temperature).log_softmax(1))).sum(1).mean())
    assert problem.startswith("KL instead of cross-entropy")


def test_in_the_loop_the_student_maps_tinyberts_layers(tmp_path):
    # A student that takes the teacher's first layers must not train like the project.
    import torch
    before = dict(distill.STRATEGIES)
    torch.manual_seed(0)
    small, large = budget.size("1x64"), budget.size("2x64")
    outs = [Bert(BertConfig.of(size, vocab_size=50, max_position_embeddings=16)).eval() for size in (small, large)]
    losses = []
    try:
        for student in (EXERCISES[6].right, dict((name, wrong) for name, wrong, _ in EXERCISES[6].mistakes)["the teacher's first layers"]):
            distill.STRATEGIES.update(before)
            EXERCISES[6].install_loop(student)
            lesson = distill.lesson("tinybert", small, large)
            s, t = (bert(torch.arange(32).reshape(2, 16), reads=reads) for bert, reads in zip(outs, (lesson.student, lesson.teacher)))
            losses.append(lesson.terms(s, t, None, lambda x: x)["tinybert"].item())
        distill.STRATEGIES.update(before)
        lesson = distill.lesson("tinybert", small, large)
        s, t = (bert(torch.arange(32).reshape(2, 16), reads=reads) for bert, reads in zip(outs, (lesson.student, lesson.teacher)))
        assert losses[0] == pytest.approx(lesson.terms(s, t, None, lambda x: x)["tinybert"].item()) and abs(losses[1] - losses[0]) > 1e-3
    finally:
        distill.STRATEGIES.update(before)


# What a class may hand in, and what the check should say of it
SUBMISSIONS = {
    1: ("def block_flops(*a):\n    return block_flops(*a)\n", "RecursionError"),
    2: ("def plan(*_):\n    return bytearray(6 * 2 ** 30)\n", "of memory"),
    3: ("def mask_tokens(:\n", "line 1: invalid syntax"),
    4: ("import sys\ndef mlm_loss(*_):\n    sys.exit(0)\n", "sys.exit"),
    5: ("import os\ndef kd_loss(*_):\n    os._exit(0)\n", "without an answer"),
    6: ("import urllib.request\nurllib.request.urlopen('http://example.com')\n", "not allowed in an exercise"),
    7: ("print('x' * 10 ** 7)\ndef minilm_loss(*_):\n    return 1 / 0\n", "ZeroDivisionError in the case B = 2, T = 5, h = 6, h' = 15, R = 3, in line 3"),
    8: ("def another_name():\n    pass\n", "no function isoflop")}


def test_grading_survives_whatever_a_class_hands_in_and_the_projects_own_functions_get_all_points(tmp_path):
    for student in ("right", "strange", "absent"):
        (tmp_path / "class" / student).mkdir(parents=True)
    for number, exercise in EXERCISES.items():
        (tmp_path / "class" / "right" / exercise.file).write_text(f"from answers import EXERCISES\n{exercise.function} = EXERCISES[{number}].right\n")
        (tmp_path / "class" / "strange" / exercise.file).write_text(SUBMISSIONS[number][0])
    done = subprocess.run([sys.executable, str(ROOT / "exercises" / "check.py"), "--grade", "class", "--seconds", "60"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = {(row["student"], int(row["exercise"])): row for row in csv.DictReader((tmp_path / "grades.csv").open())}
    for number in EXERCISES:
        assert rows["right", number]["points"] == "10", rows["right", number]
        assert "of the project's own tests pass" in rows["right", number]["diagnosis"]
        assert rows["strange", number]["points"] == "0" and SUBMISSIONS[number][1] in rows["strange", number]["diagnosis"], rows["strange", number]
        assert rows["absent", number]["diagnosis"] == "not handed in"


def test_an_endless_loop_ends_with_its_time(tmp_path):
    (tmp_path / "loop.py").write_text("while True:\n    pass\n")
    assert check.judge(1, tmp_path / "loop.py", 5) == {"passed": False, "points": 0, "diagnosis": "no answer within 5 s: an endless loop?"} and not check.RUNNING


def test_training_with_the_students_function_shows_both_curves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "TRAIN", [*check.TRAIN, "--flops", "2e9"])
    for body, status, words in (("distill.mlm_loss(logits, labels)", 0, "the same curve"), ("2 * distill.mlm_loss(logits, labels)", 1, "not the same curve")):
        (tmp_path / "mine.py").write_text(f"import distill\nreal = distill.mlm_loss\ndef mlm_loss(logits, labels):\n    return {body.replace('distill.mlm_loss', 'real')}\n")
        with pytest.raises(SystemExit) as end:
            check.train(4, tmp_path / "mine.py")
        said = capsys.readouterr().out
        assert end.value.code == status and words in said
    pictures = list((tmp_path / "runs" / "exercises").glob("4-*.png"))
    assert len(pictures) == 2 and all(picture.stat().st_size > 5000 for picture in pictures)


def test_the_exit_status_says_whether_all_is_right(tmp_path, python):
    done = python("exercises/check.py", "4")
    assert done.returncode == 1 and "not yet: nothing is written" in done.stdout
    for arguments, message in ((["9"], "there is no exercise 9"), ([], "say which exercise"), (["1", "--train"], "3 to 7 do"), (["--grade", str(tmp_path / "none")], "no such folder"), (["1", "--file", "none.py"], "no such file")):
        done = python("exercises/check.py", *arguments)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_titles_are_those_of_the_files():
    for number, path in check.FILES.items():
        assert path.read_text(encoding="utf-8").startswith(f'"""Exercise {number}. {check.TITLES[path.stem]}')


def test_the_worksheets_table_is_the_formulas():
    student, teacher = budget.size("2x128"), budget.size("4x128")
    page = (ROOT / "exercises" / "teacher_cost.md").read_text(encoding="utf-8")
    scratch = None
    for strategy in ("scratch", "kd", "tinybert"):
        lesson = distill.lesson(strategy, student, teacher)
        step = budget.step_flops(student, 201, 32, 32, lesson, teacher)
        bought = budget.plan(10 ** 12, step, 32, 32)
        scratch = scratch or bought.tokens
        assert f"| {strategy} | {step:,} | {bought.steps} | {bought.tokens:,} | {100 * bought.tokens / scratch:.0f}% |" in page
