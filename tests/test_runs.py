"""runs.py: a file is whole or absent, damage is noticed, a folder has one process at a time."""
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import runs
from cli import UserError


def test_tensors_come_back_as_they_were_and_the_library_reads_the_file(tmp_path):
    tensors = {"b": torch.randn(3, 5), "a": torch.tensor(7), "empty": torch.zeros(0, 4), "d": torch.randn(2, dtype=torch.float64)}
    runs.save_tensors(tmp_path / "x.safetensors", tensors, step=3)
    ours, metadata = runs.load_tensors(tmp_path / "x.safetensors")
    theirs = load_file(tmp_path / "x.safetensors")  # the safetensors library's own reader
    assert metadata["format"] == "pt" and metadata["step"] == "3"
    for name, tensor in tensors.items():
        assert torch.equal(ours[name], tensor) and torch.equal(theirs[name], tensor)


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    tensors = {name: torch.arange(10.0) for name in "zyxw"}
    runs.save_tensors(tmp_path / "1", tensors)
    runs.save_tensors(tmp_path / "2", dict(reversed(tensors.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_any_flipped_byte_of_a_tensor_file_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    runs.save_tensors(path, {"w": torch.randn(4, 4), "n": torch.tensor(3)}, step=1)
    good = path.read_bytes()
    wanted, _ = runs.load_tensors(path)
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x11]) + good[place + 1:])
        try:
            tensors, metadata = runs.load_tensors(path)
        except UserError:
            continue
        # A flip that goes unnoticed may only be one that changes nothing that is read: in the names of format and checksum.
        assert metadata["step"] == "1"
        assert tensors.keys() == wanted.keys() and all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_a_file_cut_short_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    runs.save_tensors(path, {"w": torch.randn(64)})
    for length in (0, 5, 20, 200, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(UserError, match="damaged"):
            runs.load_tensors(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    runs.write_file(path, "old")

    def fail(temporary):
        temporary.write_text("half of the n")
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError):
        runs.replace(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


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


def test_a_folder_in_the_place_of_a_file_is_said(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        runs.load_tensors(tmp_path)


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


@pytest.mark.parametrize("old, new", [('"loss": 2.5', '"loss": 2.4'), ('"seed": 1', '"seed": 2'), ("{", "["), ('"checksum": "', '"checksum": "0')])
def test_a_changed_digit_in_a_json_file_is_noticed(tmp_path, old, new):
    path = tmp_path / "record.json"
    runs.write_json(path, {"loss": 2.5, "settings": {"seed": 1}})
    assert runs.read_json(path) == {"loss": 2.5, "settings": {"seed": 1}}
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match="is damaged"):
        runs.read_json(path)


def test_a_run_under_way_gets_its_damaged_record_back_from_a_checkpoint(tmp_path):
    with runs.Run(tmp_path / "run", {"seed": 1}) as run:
        run.write_record(micro_batch=7)
        run.save_checkpoint(2, {"w": torch.zeros(1)})
    (tmp_path / "run" / "run.json").write_text("{")
    with runs.Run(tmp_path / "run", {"seed": 1}) as run:
        assert run.record == {"finished": False, "settings": {"seed": 1}, "micro_batch": 7}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_what_the_run_left_is_not_used(tmp_path, name):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_text(file)
    runs.write_json(tmp_path / "run.json", {"files": {file: runs.file_sha256(tmp_path / file) for file in ("config.json", "model.safetensors")}})
    assert runs.fetch(tmp_path, ["config.json", "model.safetensors"]) == tmp_path
    (tmp_path / name).write_text("another")
    with pytest.raises(UserError, match=f"{name} is damaged, or was edited"):
        runs.fetch(tmp_path, ["config.json", "model.safetensors"])


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo, lambda path: path.mkdir(), lambda path: (path.touch(), os.truncate(path, 2 ** 40))])
def test_a_file_without_an_end_is_not_read(tmp_path, make):
    make(tmp_path / "config.json")
    with pytest.raises(UserError, match="is not a file|is too large"):
        runs.read_text(tmp_path / "config.json")
    if not (tmp_path / "config.json").is_file():
        with pytest.raises(UserError, match="is not a file"):
            runs.fetch(tmp_path, ["config.json"])


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


def test_a_home_that_is_not_known_is_said():
    with pytest.raises(UserError, match="the home folder that ~ stands for"):
        runs.path_of("~nobody-has-this-name/x")
