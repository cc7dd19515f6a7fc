"""tools/bench.py: it compares like with like. No speed is asserted: a busy machine would decide."""
import json

from program.cli import UserError
from running import machine

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

    size = budget.size("2x64h2")
    teacher = None if strategy == "scratch" else budget.size("4x64h2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        ours, flops = bench.our_step(strategy, size, teacher, 3, "fp32", CPU, V=50, T=16)
        ours()
        bench.their_step(strategy, size, teacher, 3, "fp32", CPU, V=50, T=16)()
    # MiniLM's loss does not reach the last layer's feed-forward.
    assert len(moved) == 2 and min(moved) > 15
    lesson = distill.lesson(strategy, size, teacher)
    assert flops == budget.step_flops(size, 50, 16, 3, lesson, teacher)


def test_turns_alternate_and_the_warm_up_does_not_count():
    called = []
    works = {"ours": lambda: called.append("ours"), "theirs": lambda: called.append("theirs")}
    seconds = bench.interleaved(works, rounds=3)
    assert called == ["ours", "theirs"] * 4 and seconds.keys() == {"ours", "theirs"}
    machine.keep_memory()


def test_a_ratio_is_their_time_by_ours():
    assert bench.row("x", 2.0, 3.0, 1.4)["ratio"] == 1.5
    assert "1.50x (wanted 1.4)" in bench.line_of(bench.row("x", 2.0, 3.0, 1.4))


def test_a_batch_for_transformers_is_padded_to_its_longest_row():
    rows = [{"input_ids": [2, 9, 3], "token_type_ids": [0, 0, 1], "labels": 1},
            {"input_ids": [2, 3], "token_type_ids": [0, 0], "labels": 0}]
    batch = bench.padded(rows)
    assert batch["input_ids"].tolist() == [[2, 9, 3], [2, 3, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [1, 0]


@pytest.mark.slow  # 24 starts of programs
def test_json_is_for_machines(python):
    done = python("-m", "tools.bench", "--rows", "start", "--rounds", "1", "--json")
    rows = json.loads(done.stdout)["rows"]
    programs = [row["name"].split()[1] for row in rows]
    assert programs == ["train.py", "glue.py", "compare.py", "budget.py"]
    assert all(row["ours"] > 0 for row in rows)


def test_an_unknown_row_is_one_line(python):
    done = python("-m", "tools.bench", "--rows", "speed")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: --rows: 'speed' is none of mlm,")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_said():
    with pytest.raises(UserError, match="no CUDA GPU"):
        list(bench.gpu(bench.arguments(["--gpu"])))
