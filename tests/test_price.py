"""price.py: what stands around a budget costs what torch counts, and a comparison's time is that of
its cells, one beside the other."""
from plumbing import gluefiles
from plumbing.gluefiles import Task
from program.machine import Session

import pytest
import torch
from test_budget import counted

import budget
import distill
import glue
import train
from measure import metrics
from model import Bert, BertConfig
from reporting import cells, price
from reporting import options as comparison
from reporting.price import Prices, Work
from train import Learner
from world import tasks as world_tasks
from world.source import StorySource

SIZE, V, T = budget.size("2x64"), 50, 12


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """The folder of a student that nobody trained."""
    folder = tmp_path_factory.mktemp("student")
    Bert(BertConfig.of(SIZE, vocab_size=V)).save_pretrained(folder)
    return folder


def fine_tuning(student, pool):
    """A step-by-step fine-tuning of 20 texts of T tokens, two epochs, and its scoring of 9."""
    sizes = {"train": 20, "dev": 9}
    parts = {part: [("a", None, i % 3) for i in range(n)] for part, n in sizes.items()}
    task = Task("made-up", parts, ("a", "b", "c"), (metrics.accuracy,), ("dev",))
    encoded = {part: [(list(range(5, 5 + T)), [0] * T)] * n for part, n in sizes.items()}
    setting = glue.Setting(student, torch.device("cpu"), "fp32", pool)
    cell = {"lr": 1e-4, "batch_size": 16, "epochs": 2, "seed": 0}
    return lambda: glue.fine_tune(task, encoded, cell, setting)("dev")


LENGTHS = {"train": (20, T), "dev": (9, T)}


def test_a_fine_tuning_costs_what_torch_counts(student):
    estimate = price.fine_tuning_flops(SIZE, LENGTHS, outputs=3, epochs=2)
    assert estimate == counted(fine_tuning(student, "cls"))


def test_the_mean_over_tokens_costs_one_product_more_which_is_left_out(student):
    # Of [CLS], which no loss reads: forward alone, in each epoch and in scoring.
    estimate = price.fine_tuning_flops(SIZE, LENGTHS, outputs=3, epochs=2)
    left_out = (2 * 20 + 9) * 2 * SIZE.h ** 2
    assert estimate + left_out == counted(fine_tuning(student, "mean"))
    assert left_out < 0.01 * estimate


@pytest.mark.parametrize("strategy", ["scratch", "kd"])
def test_a_validation_costs_what_torch_counts(strategy):
    teacher_size, sequences = budget.size("3x64"), 7
    lesson = distill.lesson(strategy, SIZE, teacher_size)
    teacher = Bert(BertConfig.of(teacher_size, vocab_size=V))
    learner = Learner(Bert(BertConfig.of(SIZE, vocab_size=V)), lesson, teacher)
    blocks = torch.randint(5, V, (sequences, T))
    positions = (torch.arange(sequences)[:, None] * T + torch.tensor([2, 7])).flatten()
    batch = blocks, blocks, positions, blocks.flatten()[positions]
    with Session("cpu", "fp32") as session:
        flops = counted(lambda: learner.validate(batch, session))
    assert flops == price.validation_flops(SIZE, V, T, sequences, lesson, teacher_size)


def test_the_words_of_the_embedded_tasks_are_their_tokens():
    tokenizer = StorySource().tokenizer(None)
    for name in gluefiles.EMBEDDED:
        examples = world_tasks.examples(name, "dev")[:60]
        encoded, _ = glue.encode(examples, tokenizer, 128)
        assert [price.tokens_of(example, 1.0) for example in examples] == [
            len(ids) for ids, _ in encoded]


def test_long_texts_are_cut_and_of_a_large_part_a_sample_is_read():
    # Short and long texts take turns: 12 tokens, and 502 that are cut to 100.
    words = [("w " * 10, None, 0), ("w " * 500, None, 0)]
    task = Task("t", {"train": words * 4000, "dev": words[:1]}, ("a", "b"), (), ("dev",))
    lengths = price.lengths_of(task, longest=100)
    assert lengths["dev"] == (1, 12) and lengths["train"][0] == 8000
    assert lengths["train"][1] == pytest.approx(56, abs=5)  # its standard error is 1.3


def test_the_time_of_many_cells_is_that_of_the_job_that_ends_last():
    assert price.makespan([3, 2, 2], jobs=1) == 7
    assert price.makespan([3, 2, 2], jobs=2) == 4   # 3 | 2 2
    assert price.makespan([2, 2, 3], jobs=2) == 5   # 2 3 | 2
    assert price.makespan([3, 2, 2], jobs=9) == 3
    assert price.makespan([], jobs=2) == 0


def test_fine_tuning_runs_at_60_percent_of_the_speed_and_a_start_takes_as_long_at_any():
    work = Work(pretraining=100, validation=20, fine_tuning=30, starts=2)
    assert price.seconds(work, rate=10) == pytest.approx((100 + 20 + 50) / 10 + 2 * price.START)


# --------------------------------------------------------------------------------------------------
# The cells of a comparison

def compared(*words):
    """(args, all tasks, their Prices, {strategy: its cell, seed 0}) of a comparison."""
    args = comparison.compare([*words])
    tasks = cells.tasks_of(args)
    teacher, teacher_cell = cells.teacher_of(args)
    students = cells.grid(args, teacher, args.rates)
    named = {cell.strategy: cell for cell in reversed(students)}
    named |= {"teacher": teacher_cell, "scores": cells.scores_of_teacher(args, teacher)}
    return args, tasks, Prices(args, tasks), named


def test_every_setting_and_seed_of_each_task_is_counted():
    args, tasks, prices, named = compared("--glue-grid", "paper", "--glue-seeds", "3")
    asked = glue.read_settings(named["kd"].commands[1][1:])
    wanted = glue.cells_of(asked, tasks, args.model.h, "", "fp32", "cpu")
    assert len(wanted) == 2 * 4 * 2 * 3  # tasks, rates, batch sizes, seeds
    lengths = {task.name: price.lengths_of(task, 128) for task in tasks}
    for cell, size in (("kd", args.model), ("scores", args.teacher_model)):
        by_hand = sum(price.fine_tuning_flops(size, lengths[task.name], 2, one["epochs"])
                      for task, one in wanted)
        assert prices.work(named[cell]).fine_tuning == by_hand


def test_a_student_has_two_programs_and_a_teacher_is_not_taught():
    args, _, prices, named = compared("--strategies", "scratch,kd,kd-copied")
    assert prices.work(named["kd"]).starts == 2 and prices.work(named["scores"]).starts == 1
    teacher, scratch, kd = (prices.work(named[name]) for name in ("teacher", "scratch", "kd"))
    assert (teacher.starts, teacher.fine_tuning) == (1, 0)
    assert teacher.pretraining == args.teacher_flops and kd.pretraining == named["kd"].flops
    # A KD student's validation asks the teacher, too, who alone costs what his own does.
    assert kd.validation == scratch.validation + teacher.validation
    assert prices.work(named["kd-copied"]).validation == kd.validation


def test_without_the_tasks_there_is_no_fine_tuning_to_count():
    args, _, prices, named = compared()
    assert prices.work(named["kd"]).fine_tuning > 0
    assert Prices(args, None).work(named["kd"]).fine_tuning == 0


def test_the_phases_of_a_comparison_wait_for_each_other(monkeypatch):
    _, _, prices, _ = compared()
    monkeypatch.setattr(prices, "work", lambda cell: Work(pretraining=cell))
    # The first alone at 10 FLOP/s; then three beside each other at 5 FLOP/s.
    assert prices.seconds_on_cores([[100], [30, 20, 20]], rate=10, cores=2) == 10 + 8


def test_the_vocabulary_is_the_teachers(tmp_path):
    (tmp_path / "config.json").write_text('{"vocab_size": 77}')
    args, _, prices, _ = compared("--teacher-model", "4x128")
    training = train.read_settings(["--flops", "1e12"])
    assert prices.vocabulary(training) == StorySource().tokenizer(None).get_vocab_size()
    args.teacher = str(tmp_path)
    assert prices.vocabulary(training) == 77
