"""tools/bench.py: it compares like with like. No speed is asserted: a busy machine would decide."""
from running import machine

import pytest
import torch

import budget
import distill
from tools import bench

CPU = torch.device("cpu")


@pytest.mark.parametrize("strategy, teacher", [("scratch", None), ("kd", "4x64h2")])
def test_both_sides_make_a_whole_step(strategy, teacher, monkeypatch):
    """Each side moves all of its student's weights, and none of its teacher's."""
    moved, real = [], torch.optim.AdamW.step

    def step_and_count(self, *args, **kwargs):
        weights = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in weights]
        real(self, *args, **kwargs)
        moved.append(sum(not torch.equal(a, b) for a, b in zip(before, weights)))

    monkeypatch.setattr(torch.optim.AdamW, "step", step_and_count)
    step = bench.Step("2x64h2", teacher, B=3, V=50, T=16)
    ours, flops = bench.our_step(step, CPU, "fp32")
    ours()
    bench.their_step(step, CPU, "fp32")()
    assert len(moved) == 2 and min(moved) > 15
    size, teacher_size = (name and budget.size(name) for name in (step.size, teacher))
    lesson = distill.lesson(strategy, size, teacher_size)
    assert flops == budget.step_flops(size, 50, 16, 3, lesson, teacher_size)


def test_turns_alternate_and_the_warm_up_does_not_count():
    called = []
    works = {"ours": lambda: called.append("ours"), "theirs": lambda: called.append("theirs")}
    seconds = bench.interleaved(works, rounds=3)
    assert called == ["ours", "theirs"] * 4 and seconds.keys() == {"ours", "theirs"}
    machine.keep_memory()


def test_a_batch_for_transformers_is_padded_to_its_longest_row():
    batch = bench.padded([(([2, 9, 3], [0, 0, 1]), 1), (([2, 3], [0, 0]), 0)])
    assert batch["input_ids"].tolist() == [[2, 9, 3], [2, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("row, message", [
    ("speed", "argument --rows: invalid choice: 'speed'"), pytest.param(
        "gpu", "torch finds no CUDA GPU",
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"))])
def test_a_row_that_cannot_be_measured_is_one_line(python, row, message):
    done = python("-m", "tools.bench", "--rows", row)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and message in done.stderr
