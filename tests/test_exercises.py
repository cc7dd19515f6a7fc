"""exercises/: what is handed out fails with a helpful line, what is right passes, each classic mistake is recognised, and no file hurts the class."""
import csv
import subprocess
import sys

import pytest

from children import ROOT

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
    assert problem.startswith(name) or name in problem.split(":")[0] or name in problem, problem
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


# What a class may hand in, and what the check should say of it
SUBMISSIONS = {
    1: ("while True:\n    pass\n", "no answer within"),
    2: ("def plan(*_):\n    return bytearray(10 ** 13)\n", "of memory"),
    3: ("def mask_tokens(:\n", "line 1: invalid syntax"),
    4: ("import sys\ndef mlm_loss(*_):\n    sys.exit(0)\n", "sys.exit"),
    5: ("import os\ndef kd_loss(*_):\n    os._exit(0)\n", "without an answer"),
    6: ("import urllib.request\nurllib.request.urlopen('http://example.com')\n", "not allowed in an exercise"),
    7: ("print('x' * 10 ** 7)\ndef minilm_loss(*_):\n    return 1 / 0\n", "ZeroDivisionError in the case B = 1, T = 2, h = 4, h' = 4, R = 1, in line 3"),
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


def test_the_exit_status_says_whether_all_is_right(tmp_path, python):
    done = python("exercises/check.py", "4")
    assert done.returncode == 1 and "not yet: nothing is written" in done.stdout
    for arguments, message in ((["9"], "say which exercise"), (["1", "--train"], "3 to 7 do"), (["--grade", str(tmp_path / "none")], "no such folder"), (["1", "--file", "none.py"], "no such file")):
        done = python("exercises/check.py", *arguments)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_titles_are_those_of_the_files():
    assert check.title(5) == "Learning from all the teacher's opinions."
