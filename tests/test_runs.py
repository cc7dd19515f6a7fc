"""runs.py: one process at a time works in a folder, a step is counted once, and a checkpoint is
given up only where it is damaged."""
import json
import os
import shutil
import subprocess
import sys

from plumbing import wordpiece
from plumbing.cli import UserError
from program import runfolder

import pytest
import torch
from conftest import ROOT
from tokenizers import normalizers
from torch import nn

# --------------------------------------------------------------------------------------------------
# Settings


def test_other_settings_are_refused_and_named(tmp_path):
    with runfolder.Run(tmp_path / "run", {"lr": 0.1, "seed": 0}) as run:
        run.write_record()
    with pytest.raises(UserError, match=r"lr was 0.1 and is now 0.2"):
        with runfolder.Run(tmp_path / "run", {"lr": 0.2, "seed": 0}):
            pass


@pytest.mark.parametrize("new, message", [
    ({"text_sha256": "b"}, "a run on another text"),
    ({"teacher_sha256": "b"}, "the student of another teacher"),
    ({"teacher_sha256": "b", "teacher_model": "4x128"}, "the student of another teacher"),
    ({"text_sha256": "b", "seed": 1}, "seed was 0 and is now 1; text_sha256 was a and is now b"),
    ({"words_sha256": "b"}, "a run with another tokenizer"),
    ({"dropout": 0.1}, "dropout was None and is now 0.1")])
def test_the_error_says_what_differs(new, message):
    old = {"seed": 0, "text_sha256": "a", "words_sha256": "a", "teacher_sha256": "a",
           "teacher_model": "2x128"}
    with pytest.raises(UserError, match=message):
        runfolder.check_same_settings("runs/x", old, {**old, **new})
    runfolder.check_same_settings("runs/x", old, dict(old))


@pytest.mark.parametrize("more", [{}, {"model": "4x128", "lr": 0.2, "initializer_range": 0.1}])
def test_a_larger_budget_is_told_why_the_run_cannot_go_on_and_what_can(tmp_path, more):
    old = {"flops_budget": 10 ** 10, "model": "2x128", "lr": 0.1, "initializer_range": 0.2}
    with runfolder.Run(tmp_path / "run", old) as run:
        run.write_record()
    new = {**old, "flops_budget": 3 * 10 ** 10, **more}
    with pytest.raises(UserError, match="cannot go on to 3.00e10: finish it with its own --flops"):
        runfolder.Run(tmp_path / "run", new).__enter__()
    with runfolder.Run(tmp_path / "run", old) as run:
        run.write_record(finished=True)
    with pytest.raises(UserError, match=f"learning rate .* --start-from {tmp_path}/run and anothe"):
        runfolder.Run(tmp_path / "run", new).__enter__()
    # A smaller budget, or another setting beside it, is no longer run.
    for other in ({"flops_budget": 10 ** 9}, {"seed": 1}):
        with pytest.raises(UserError, match="give the same settings"):
            runfolder.Run(tmp_path / "run", {**new, **other}).__enter__()


def test_a_run_with_another_start_is_another_run():
    # Without its start, a run has another tokenizer's name, and a size that its budget chooses.
    plain = {"seed": 0, "tokenizer": "made from the text", "model": "2x64h2"}
    started = {"seed": 0, "tokenizer": "the start's", "model": "2x64"}
    first, second = ({**started, "start_sha256": letter} for letter in "ab")
    for old, new in ((plain, first), (first, second), (second, plain)):
        with pytest.raises(UserError, match="began with other weights"):
            runfolder.check_same_settings("runs/x", old, new)
        runfolder.check_same_settings("runs/x", old, dict(old))


def test_the_same_text_at_another_place_is_the_same_run(tmp_path, capsys):
    old = {"text_sha256": "a", "data": ["a.txt"], "tokenizer": "teacher", "text_column": None}
    new = {"text_sha256": "a", "data": ["/b/a.txt"], "tokenizer": "./teacher", "text_column": "x"}
    with runfolder.Run(tmp_path / "run", old) as run:
        run.write_record()
        run.save_checkpoint(10, {"w": torch.zeros(1)})
    with runfolder.Run(tmp_path / "run", new) as run:
        assert run.load_checkpoint()[0] == 10
    with pytest.raises(UserError, match="data was .*a.txt.* and is now .*text_sha256 was a"):
        runfolder.check_same_settings("runs/x", old, {**new, "text_sha256": "b"})


def test_tokenizers_that_differ_in_a_word_or_in_how_they_spell_have_other_fingerprints():
    words = {piece: i for i, piece in enumerate([*wordpiece.SPECIAL, "a", "b"])}
    first = wordpiece.wordpiece(words)
    swapped = wordpiece.wordpiece({**words, "[MASK]": words["b"], "b": words["[MASK]"]})
    cased = wordpiece.wordpiece(words)
    cased.normalizer = normalizers.BertNormalizer(lowercase=False)
    assert len({runfolder.words_sha256(tokenizer) for tokenizer in (first, swapped, cased)}) == 3
    assert runfolder.words_sha256(wordpiece.wordpiece(dict(reversed(words.items())))) == \
        runfolder.words_sha256(first)


def test_a_run_of_an_earlier_version_does_not_say_its_words_and_goes_on():
    assert runfolder.differences({"seed": 0}, {"seed": 0, "words_sha256": "a"}) == set()


# --------------------------------------------------------------------------------------------------
# Whose folder it is


def test_a_second_process_in_the_same_folder_is_refused_until_the_first_is_dead(tmp_path):
    text = """
import sys, time
from program import runfolder
from plumbing import wordpiece
with runfolder.Run(sys.argv[1], {}):
    print("locked", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", text, str(tmp_path / "run")], cwd=ROOT,
                              stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process"):
            runfolder.Run(tmp_path / "run", {}).__enter__()
        holder.kill()  # SIGKILL: it cannot tidy up, and yet the lock must not stay
    with runfolder.Run(tmp_path / "run", {}):
        pass


def test_a_folder_with_other_files_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / ".precious.tmp").write_text("more")
    with pytest.raises(UserError, match="thesis.tex"):
        runfolder.Run(tmp_path, {}).__enter__()
    assert sorted(os.listdir(tmp_path)) == [".precious.tmp", "thesis.tex"]  # none gone, none new


def test_what_a_process_left_that_died_while_it_wrote_is_removed(tmp_path):
    (tmp_path / ".run.json.123.tmp").write_text("{")
    with runfolder.Run(tmp_path, {}):
        assert os.listdir(tmp_path) == ["lock"]


def test_a_run_that_fails_before_its_first_step_leaves_no_settings_behind(tmp_path):
    # Its error may ask for a smaller batch: the same folder takes it.
    with pytest.raises(MemoryError), runfolder.Run(tmp_path / "run", {"batch_size": 32}):
        raise MemoryError
    with runfolder.Run(tmp_path / "run", {"batch_size": 16}) as run:
        assert not run.finished and run.settings == {"batch_size": 16}


def test_nothing_is_written_into_a_folder_that_was_made_again(tmp_path):
    with runfolder.Run(tmp_path / "run", {}) as old:
        shutil.rmtree(tmp_path / "run")
        with runfolder.Run(tmp_path / "run", {}) as new:
            with pytest.raises(UserError, match="removed or replaced"):
                old.save_checkpoint(10, {"w": torch.zeros(1)})
            assert new.checkpoints() == []


def test_an_out_that_is_a_file_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written: .*file is a file"):
        runfolder.check_out(tmp_path / "file" / "run")
    runfolder.check_out(tmp_path / "new" / "run")
    assert os.listdir(tmp_path) == ["file"]


# --------------------------------------------------------------------------------------------------
# run.json


def test_a_damaged_record_is_one_clear_line(tmp_path):
    (tmp_path / "run").mkdir()
    for text in ("", "{", "[1]", "null", '{"settings": 3}', json.dumps({"finished": True})):
        (tmp_path / "run" / "run.json").write_text(text)
        with pytest.raises(UserError, match="run.json is damaged"):
            runfolder.Run(tmp_path / "run", {}).__enter__()


def test_a_run_under_way_gets_its_damaged_record_back_from_a_checkpoint(tmp_path):
    with runfolder.Run(tmp_path / "run", {"seed": 1}) as run:
        run.write_record(micro_batch=7)
        run.save_checkpoint(2, {"w": torch.zeros(1)})
    (tmp_path / "run" / "run.json").write_text("{")
    with runfolder.Run(tmp_path / "run", {"seed": 1}) as run:
        assert run.record == {"finished": False, "settings": {"seed": 1}, "micro_batch": 7}


@pytest.mark.parametrize("loss", ["damaged", "missing"])
def test_a_record_from_a_checkpoint_is_announced_and_its_settings_count(tmp_path, capsys, loss):
    with runfolder.Run(tmp_path / "run", {"lr": 0.1}) as run:
        run.write_record(processes=3)
        run.save_checkpoint(10, {"w": torch.zeros(1)})
    path = tmp_path / "run" / "run.json"
    if loss == "damaged":
        path.write_text(path.read_text().replace("3", "4"))
    else:
        path.unlink()
    with runfolder.Run(tmp_path / "run", {"lr": 0.1}) as run:
        assert run.record["processes"] == 3
        assert f"run.json is {loss}: taken from the checkpoint" in capsys.readouterr().out
    path.unlink()
    with pytest.raises(UserError, match="lr was 0.1 and is now 0.2"):
        runfolder.Run(tmp_path / "run", {"lr": 0.2}).__enter__()
    assert (tmp_path / "run" / "checkpoint-000000000010.safetensors").exists()


# --------------------------------------------------------------------------------------------------
# Checkpoints


def names(paths):
    return [path.name for path in paths]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    with runfolder.Run(tmp_path / "run", {}) as run:
        for step in (10, 20, 30):
            run.save_checkpoint(step, {"w": torch.full((8,), float(step))})
        assert names(run.checkpoints()) == ["checkpoint-000000000030.safetensors",
                                            "checkpoint-000000000020.safetensors"]
        newest = run.checkpoints()[0]
        newest.write_bytes(newest.read_bytes()[:-7] + b"\0" * 7)
        step, tensors = run.load_checkpoint()
        assert step == 20 and torch.equal(tensors["w"], torch.full((8,), 20.0))
        assert "damaged" in capsys.readouterr().out


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(tmp_path, capsys):
    with runfolder.Run(tmp_path / "run", {}) as run:
        run.save_checkpoint(10, {"w": torch.zeros(1)})
        run.checkpoints()[0].rename(run.folder / "checkpoint-000000000020.safetensors")
        assert run.load_checkpoint() == (0, None)
        assert "starting again from the first step" in capsys.readouterr().out


def test_a_checkpoint_of_another_run_is_set_aside(tmp_path, capsys):
    with runfolder.Run(tmp_path / "run", {"lr": 0.1}) as run:
        run.save_checkpoint(10, {"w": torch.zeros(1)})
        run.settings = {"lr": 0.2}
        assert run.load_checkpoint() == (0, None)
        assert "of a run with other settings" in capsys.readouterr().out
        assert names(run.folder.glob("*.bad")) == ["checkpoint-000000000010.safetensors.bad"]


def test_a_checkpoint_that_cannot_be_read_is_not_given_up(tmp_path):
    # Too little memory is not damage: the same command continues when there is more.
    with runfolder.Run(tmp_path / "run", {}) as run:
        run.save_checkpoint(10, {"w": torch.zeros(20_000_000)})
    text = """
import resource, sys
from program import runfolder
from plumbing import wordpiece
import safetensors, torch
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 20_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
with runfolder.Run(sys.argv[1], {}) as run:
    run.load_checkpoint()
"""
    done = subprocess.run([sys.executable, "-c", text, str(tmp_path / "run")], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode != 0 and "memory" in done.stderr.lower()
    left = names((tmp_path / "run").glob("checkpoint*"))
    assert left == ["checkpoint-000000000010.safetensors"]


def test_a_users_own_file_is_not_a_checkpoint(tmp_path):
    own = ["checkpoint-best.safetensors", "checkpoint-last.safetensors"]
    with runfolder.Run(tmp_path / "run", {}) as run:
        for name in own:
            (run.folder / name).write_text("mine")
        for step in (1, 2, 3):
            run.save_checkpoint(step, {"w": torch.zeros(1)})
        assert run.load_checkpoint()[0] == 3
        run.remove_checkpoints()
        assert sorted(names(run.folder.glob("checkpoint*"))) == own


class Small(nn.Module):
    """What `checkpoint` takes for a learner: a model, and a projection."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.model = nn.Linear(4, 4)
        self.projection = nn.Linear(4, 2, bias=False)

    def step(self, optimizer):
        optimizer.zero_grad()
        self.model(torch.ones(3, 4)).square().sum().backward()  # does not reach the projection
        optimizer.step()


def test_a_restored_learner_takes_the_same_next_step_bit_for_bit(tmp_path):
    learner = Small(seed=0)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.1)
    learner.step(optimizer)
    state = runfolder.checkpoint(learner, optimizer, 1.5, torch.tensor([2.0, 3.0]), 4)
    with runfolder.Run(tmp_path / "run", {}) as run:
        run.save_checkpoint(1, state)
        loaded = run.load_checkpoint()
    restored = Small(seed=1)
    its_optimizer = torch.optim.AdamW(restored.parameters(), lr=0.1)
    step, seconds, sums, logged = runfolder.restore(loaded, restored, its_optimizer)
    assert (step, seconds, sums.tolist(), logged) == (1, 1.5, [2.0, 3.0], 4)
    learner.step(optimizer)
    restored.step(its_optimizer)
    for p, q in zip(learner.parameters(), restored.parameters()):
        assert torch.equal(p, q)


def test_without_a_checkpoint_a_learner_stays_as_it_is():
    learner = Small(seed=0)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    optimizer = torch.optim.AdamW(learner.parameters())
    step, seconds, sums, logged = runfolder.restore((0, None), learner, optimizer)
    assert (step, seconds, sums.tolist(), logged) == (0, 0.0, [], 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())


# --------------------------------------------------------------------------------------------------
# The log


def test_the_log_is_rewound_to_the_checkpoint_whatever_became_of_it(tmp_path):
    with runfolder.Run(tmp_path / "run", {}) as run:
        for step in (1, 2, 3):
            run.log(step=step, loss=1.0)
            if step == 2:
                run.save_checkpoint(2, {"w": torch.zeros(1)})
    path = tmp_path / "run" / "log.jsonl"
    whole = path.read_text()
    torn = whole + '{"step": 4, "lo'
    for text in (whole, torn, whole.replace("1.0", "1.5"), "", "\0" * 100):
        path.write_text(text)
        with runfolder.Run(tmp_path / "run", {}) as run:
            run.load_checkpoint()
            run.rewind_log()
            assert run.read_log() == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}]
