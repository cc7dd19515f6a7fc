"""The benchmark compares like with like. No speed is asserted here: a busy machine would decide."""
import json

from plumbing import hardware

import pytest
import torch

import budget
import distill
from tools import bench

CPU = torch.device("cpu")


@pytest.mark.parametrize("strategy", ["scratch", "kd", "tinybert", "minilm"])
def test_both_sides_make_a_whole_step(strategy):
    """Each side moves its student's weights, and none moves its teacher's."""
    moved = []
    real = torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        before = [p.detach().clone() for group in self.param_groups for p in group["params"]]
        real(self, *args, **kwargs)
        after = [p for group in self.param_groups for p in group["params"]]
        moved.append(sum(not torch.equal(a, b) for a, b in zip(before, after)))
    size, teacher = budget.size("2x64h2"), None if strategy == "scratch" else budget.size("4x64h2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        ours, flops = bench.our_step(strategy, size, teacher, 3, "fp32", CPU, V=50, T=16)
        ours()
        bench.their_step(strategy, size, teacher, 3, "fp32", CPU, V=50, T=16)()
    assert len(moved) == 2 and min(moved) > 15  # minilm does not reach the last layer's feed-forward
    assert flops == budget.step_flops(size, 50, 16, 3, distill.lesson(strategy, size, teacher), teacher)


def test_turns_alternate_and_the_warm_up_does_not_count():
    called = []
    found = bench.interleaved({"ours": lambda: called.append("ours"), "theirs": lambda: called.append("theirs")}, rounds=3)
    assert called == ["ours", "theirs"] * 4 and found.keys() == {"ours", "theirs"}
    hardware.keep_memory()


def test_a_ratio_is_their_time_by_ours():
    assert bench.row("x", 2.0, 3.0, 1.4)["ratio"] == 1.5
    assert "1.50x (wanted 1.4)" in bench.line_of(bench.row("x", 2.0, 3.0, 1.4))


def test_json_is_for_machines(python):
    found = json.loads(python("bench.py", "--rows", "start", "--rounds", "1", "--json").stdout)
    assert [row["name"].split()[1] for row in found["rows"]] == ["train.py", "glue.py", "compare.py", "budget.py"]
    assert all(row["ours"] > 0 for row in found["rows"])


def test_an_unknown_row_and_a_missing_gpu_are_one_line(python):
    for options, words in ((["--rows", "speed"], "is none of"), *([(["--gpu"], "no CUDA GPU")] if not torch.cuda.is_available() else [])):
        result = python("bench.py", *options)
        assert result.returncode == 2 and words in result.stderr and "Traceback" not in result.stderr
