"""runs.py: a folder has one process at a time, a step is counted once, nothing is given up for less than damage."""
import json
import os
import subprocess
import sys

from plumbing import runs
from plumbing.cli import UserError

import pytest
import torch


def test_other_settings_are_refused_and_named(tmp_path):
    with runs.Run(tmp_path / "run", {"lr": 0.1, "seed": 0}):
        pass
    with pytest.raises(UserError, match=r"lr was 0.1 and is now 0.2"):
        with runs.Run(tmp_path / "run", {"lr": 0.2, "seed": 0}):
            pass


def test_a_second_process_in_the_same_folder_is_refused_until_the_first_is_dead(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", "import runs, sys, time\nwith runs.Run(sys.argv[1], {}):\n"
                               " print('held', flush=True)\n time.sleep(60)", str(tmp_path / "run")],
                              stdout=subprocess.PIPE, text=True, cwd=os.path.dirname(runs.__file__))
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another process"):
        runs.Run(tmp_path / "run", {}).__enter__()
    holder.kill()  # SIGKILL: it has no chance to tidy up, and the lock must not stay
    holder.wait()
    with runs.Run(tmp_path / "run", {}):
        pass


def test_a_folder_with_other_files_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / ".precious.tmp").write_text("more")
    with pytest.raises(UserError, match="thesis.tex"):
        runs.Run(tmp_path, {}).__enter__()
    assert sorted(os.listdir(tmp_path)) == [".precious.tmp", "thesis.tex"]  # nothing is gone, and nothing came


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, capsys):
    with runs.Run(tmp_path / "run", {}) as run:
        for step in (10, 20, 30):
            run.save_checkpoint(step, {"w": torch.full((8,), float(step))})
        assert [path.name for path in run.checkpoints()] == ["checkpoint-000000000030.safetensors", "checkpoint-000000000020.safetensors"]
        newest = run.checkpoints()[0]
        newest.write_bytes(newest.read_bytes()[:-7] + b"\0" * 7)
        step, tensors = run.load_checkpoint()
        assert step == 20 and torch.equal(tensors["w"], torch.full((8,), 20.0))
        assert "damaged" in capsys.readouterr().out


def test_the_log_is_rewound_to_the_checkpoint_whatever_became_of_it(tmp_path):
    with runs.Run(tmp_path / "run", {}) as run:
        for step in (1, 2, 3):
            run.log(step=step, loss=1.0)
            if step == 2:
                run.save_checkpoint(2, {"w": torch.zeros(1)})
    path = tmp_path / "run" / "log.jsonl"
    whole = path.read_text()
    for damaged in (whole, whole + '{"step": 4, "lo', whole.replace("1.0", "1.5"), "", "\0" * 100):
        path.write_text(damaged)
        with runs.Run(tmp_path / "run", {}) as run:
            run.load_checkpoint()
            run.rewind_log()
            assert run.read_log() == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 1.0}]


def test_a_run_under_way_gets_its_damaged_record_back_from_a_checkpoint(tmp_path):
    with runs.Run(tmp_path / "run", {"seed": 1}) as run:
        run.write_record(micro_batch=7)
        run.save_checkpoint(2, {"w": torch.zeros(1)})
    (tmp_path / "run" / "run.json").write_text("{")
    with runs.Run(tmp_path / "run", {"seed": 1}) as run:
        assert run.record == {"finished": False, "settings": {"seed": 1}, "micro_batch": 7}


def test_a_damaged_record_is_one_clear_line(tmp_path):
    (tmp_path / "run").mkdir()
    for text in ("", "{", "[1]", "null", '{"settings": 3}', json.dumps({"finished": True})):
        (tmp_path / "run" / "run.json").write_text(text)
        with pytest.raises(UserError, match="run.json is damaged"):
            runs.Run(tmp_path / "run", {}).__enter__()


def test_a_checkpoint_that_cannot_be_read_is_not_given_up(tmp_path):
    # Too little memory is no damage: the same command continues when there is more.
    with runs.Run(tmp_path / "run", {}) as run:
        run.save_checkpoint(10, {"w": torch.zeros(50_000_000)})
    done = subprocess.run([sys.executable, "-c", """
import resource, runs, safetensors, sys, torch
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 50_000_000,) * 2)
with runs.Run(sys.argv[1], {}) as run:
    run.load_checkpoint()
""", str(tmp_path / "run")], capture_output=True, text=True, cwd=os.path.dirname(runs.__file__))
    assert done.returncode != 0 and "memory" in done.stderr.lower()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint*")] == ["checkpoint-000000000010.safetensors"]


def test_a_checkpoint_of_another_run_is_set_aside(tmp_path, capsys):
    with runs.Run(tmp_path / "run", {"lr": 0.1}) as run:
        run.save_checkpoint(10, {"w": torch.zeros(1)})
        run.settings = {"lr": 0.2}
        assert run.load_checkpoint() == (0, None)
        assert "of a run with other settings" in capsys.readouterr().out and list(run.folder.glob("*.bad"))


def test_nothing_is_written_into_a_folder_that_was_made_again(tmp_path):
    import shutil
    with runs.Run(tmp_path / "run", {}) as old:
        shutil.rmtree(tmp_path / "run")
        with runs.Run(tmp_path / "run", {}) as new:
            with pytest.raises(UserError, match="removed or replaced"):
                old.save_checkpoint(10, {"w": torch.zeros(1)})
            assert new.checkpoints() == []


@pytest.mark.parametrize("loss", ["damaged", "missing"])
def test_run_json_comes_back_from_the_checkpoint(tmp_path, capsys, loss):
    with runs.Run(tmp_path / "run", {"lr": 0.1}) as run:
        run.write_record(processes=3)
        run.save_checkpoint(10, {"w": torch.zeros(1)})
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace("3", "4")) if loss == "damaged" else path.unlink()
    with runs.Run(tmp_path / "run", {"lr": 0.1}) as run:
        assert run.record["processes"] == 3 and f"run.json is {loss}: taken from the checkpoint" in capsys.readouterr().out
    path.unlink()
    with pytest.raises(UserError, match="lr was 0.1 and is now 0.2"):
        runs.Run(tmp_path / "run", {"lr": 0.2}).__enter__()
    assert (tmp_path / "run" / "checkpoint-000000000010.safetensors").exists()


def test_a_users_own_file_is_no_checkpoint(tmp_path):
    with runs.Run(tmp_path / "run", {}) as run:
        for name in ("checkpoint-best.safetensors", "checkpoint-last.safetensors"):
            (run.folder / name).write_text("mine")
        for step in (1, 2, 3):
            run.save_checkpoint(step, {"w": torch.zeros(1)})
        assert run.load_checkpoint()[0] == 3
        run.remove_checkpoints()
        assert sorted(path.name for path in run.folder.glob("checkpoint*")) == ["checkpoint-best.safetensors", "checkpoint-last.safetensors"]
