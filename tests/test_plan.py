"""What a comparison would do and cost, in words."""

import pytest

from reporting import cells, plan
from reporting import options as comparison


def plan_of(*words):
    """The plan of a comparison as it is printed, line by line."""
    args = comparison.compare(["--strategies", "scratch,kd", "--budgets", "1e12", "--seeds", "2",
                            "--unique-tokens", "inf", *words])
    teacher, _ = cells.teacher_of(args)
    return plan.describe(args, cells.grid(args, teacher, args.rates)).splitlines()


def line_of(plan, label):
    """The plan's line that begins with a label, without it."""
    return next(line for line in plan if line.startswith(label)).removeprefix(label).strip()


def test_the_grid_is_named_value_by_value():
    words = plan_of("--budgets", "1e12,3e12", "--unique-tokens", "inf,1e4")
    assert words[0] == "16 students: 2 strategies x 2 budgets x 2 data settings x 2 seeds"
    assert line_of(words, "grid") == ("scratch, kd; 1.00e12 and 3.00e12 FLOPs; unlimited data and "
                                      "10,000 distinct tokens")
    assert line_of(words, "student") == (
        "BERT 2x128 (2 layers, 128 wide), trained on stories, then fine-tuned on acceptability and "
        "paraphrase, once each")


def test_a_student_is_fine_tuned_in_every_setting_of_the_grid():
    # The paper's: 4 rates x 2 batch sizes, here with 3 seeds each.
    words = plan_of("--glue-grid", "paper", "--glue-seeds", "3", "--tasks", "all")
    assert line_of(words, "student").endswith("fine-tuned on all its tasks, 24 times each")


def test_the_cost_of_a_grid_includes_a_teacher_that_is_trained():
    words = plan_of("--teacher-flops", "1e14")
    assert line_of(words, "teacher").endswith("which is trained first, with 1.00e14 FLOPs")
    # 2 strategies x 2 seeds x 1e12, and 1e14 for the teacher
    assert line_of(words, "cost") == ("1.04e14 FLOPs of pretraining, 1.00e14 of them the teacher's "
                                      "training")


def test_the_training_of_a_teacher_that_exists_is_not_counted():
    words = plan_of("--teacher", "a/teacher", "--head-teacher", "a/head")
    assert line_of(words, "teacher").startswith(
        "a/teacher, a BERT 4x128 (4 layers, 128 wide), and for predictions (kd) a/head; ")
    assert line_of(words, "cost").startswith("4.00e12 FLOPs of pretraining, the teacher's passes")


def test_a_teacher_with_a_head_is_named_where_a_strategy_reads_predictions():
    words = plan_of("--teacher", "a/teacher", "--head-teacher", "a/head", "--strategies",
                    "scratch,tinybert")
    assert line_of(words, "teacher") == (
        "a/teacher, a BERT 4x128 (4 layers, 128 wide), whose own training is not counted here")


def test_the_cost_of_a_grid_includes_fine_tuning_and_every_program():
    words = "\n".join(plan_of())
    # 4 students of two programs, the teacher, and its scores
    assert "of fine-tuning, at" in words and "each of 10 programs" in words
    assert "not counted" not in words and "not included" not in words


def test_the_cost_of_a_grid_includes_the_rates_that_are_tried():
    # 2 strategies x 3 rates, of which the best two are students of the grid
    words = plan_of("--lr-grid", "1e-3,2e-3,4e-3")
    assert line_of(words, "cost").startswith("1.80e13 FLOPs")
    assert any("each of 18 programs" in line for line in words)


@pytest.mark.parametrize("data", ["a/folder/that/is/not/here", "nyu-mll/glue"])
def test_fine_tuning_that_cannot_be_counted_is_not_counted_in_silence(data, capsys):
    words = plan_of("--glue-data", data, "--tasks", "rte")
    assert any(line.endswith("fine-tuning is not counted: the tasks are not here")
               for line in words)
    assert line_of(words, "time").endswith(", fine-tuning not included")
    args = comparison.compare(["--glue-data", data, "--tasks", "rte"])
    teacher, teacher_cell = cells.teacher_of(args)
    cells.print_list(args, teacher_cell, cells.grid(args, teacher, args.rates))
    first, *students = capsys.readouterr().out.splitlines()
    assert not first.endswith("and fine-tuning")  # a teacher that is trained has none in its line
    assert len(students) == 12 and all(line.endswith("on two cores, and fine-tuning")
                                       for line in students)


def test_a_task_that_is_not_there_is_named(tmp_path):
    words = plan_of("--glue-data", str(tmp_path), "--tasks", "rte")
    assert any("is not counted: RTE: " in line for line in words)


def test_teachers_text_and_tasks_that_are_not_on_this_disk_are_named(tmp_path):
    teacher, text = tmp_path / "teacher", tmp_path / "books"
    words = ["--teacher", f"{teacher}", "--head-teacher", "a/head", "--data", f"{text}"]
    head = "a/head (teacher with a head)"
    assert line_of(plan_of(*words), "not here") == f"{teacher} (teacher), {head}, {text} (text)"
    teacher.mkdir()
    assert line_of(plan_of(*words), "not here") == f"{head}, {text} (text)"
    two = plan_of("--data", f"{text} {tmp_path}", "--teacher", f"{teacher}")
    assert line_of(two, "not here") == f"{text} (text)"  # of two texts
    assert not any(line.startswith("not here") for line in plan_of())
