"""runfolder.py: one process at a time works in a folder, a step is counted once, and a checkpoint
is given up only where it is damaged."""
import os
import shutil
import subprocess
import sys
import zipfile

from files import wordpiece
from program.cli import UserError
from running import runfolder
from running.runfolder import Run

import pytest
import torch
from conftest import ROOT
from tokenizers import normalizers

STATE = {"w": torch.zeros(1)}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def begin(folder, settings, *steps, **fields):
    """Leaves a run that was begun, with its run.json and a checkpoint after each of the steps."""
    with Run(folder, settings) as run:
        run.write_record(**fields)
        for step in steps:
            run.log(step=step)
            run.save_checkpoint(step, {"w": torch.full((8,), float(step))})


def names(paths):
    return sorted(path.name for path in paths)


# --------------------------------------------------------------------------------------------------
# Settings

OLD = {"seed": 0, "flops_budget": 10 ** 10, "text_sha256": "a", "words_sha256": "a", "data": ["a"],
       "tokenizer": "t", "teacher_sha256": "a", "start_sha256": "a"}


@pytest.mark.parametrize("new, message", [
    ({"seed": 1}, r"\(seed was 0 and is now 1\): give the same settings to continue it, or anot"),
    ({"dropout": 0.1}, "dropout was None and is now 0.1"),
    ({"text_sha256": "b", "seed": 1}, "seed was 0 and is now 1; its text, .* changed"),
    ({"words_sha256": "b"}, "its tokenizer's words changed"),
    ({"teacher_sha256": "b"}, "its teacher's weights changed"),
    ({"start_sha256": None}, r"the weights that it begins with \(--start-from\) changed"),
    ({"flops_budget": 10 ** 11}, "learning rate falls to zero .* --start-from .* another --out"),
    # The same text at another place is the same run, also beside what finished runs of 2026 say.
    ({"data": ["/b/a"], "tokenizer": "./t", "text_column": "x", "charged": "both"}, None)])
def test_other_settings_are_refused_and_named(folder, new, message):
    begin(folder, OLD, 10)
    if message is None:
        with Run(folder, {**OLD, **new}) as run:
            assert run.load_checkpoint()["step"] == 10
        return
    with pytest.raises(UserError, match=message):
        Run(folder, {**OLD, **new}).__enter__()
    assert names(runfolder.checkpoints(folder)) == ["checkpoint-000000000010.pt"]


def test_tokenizers_that_differ_in_a_word_or_in_how_they_spell_have_other_fingerprints():
    words = {piece: i for i, piece in enumerate([*wordpiece.SPECIAL, "a", "b"])}
    first = wordpiece.wordpiece(words)
    swapped = wordpiece.wordpiece({**words, "[MASK]": words["b"], "b": words["[MASK]"]})
    cased = wordpiece.wordpiece(words)
    cased.normalizer = normalizers.BertNormalizer(lowercase=False)
    assert len({runfolder.words_sha256(tokenizer) for tokenizer in (first, swapped, cased)}) == 3
    again = wordpiece.wordpiece(dict(reversed(words.items())))
    assert runfolder.words_sha256(again) == runfolder.words_sha256(first)


def test_a_second_process_in_the_same_folder_is_refused_until_the_first_is_dead(folder):
    text = ("import sys, time\nfrom running import runfolder\n"
            "with runfolder.Run(sys.argv[1], {}):\n    print('locked', flush=True); time.sleep(60)")
    holder = subprocess.Popen([sys.executable, "-c", text, str(folder)], cwd=ROOT, text=True,
                              stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process is working in .*: wait for it, or"):
            Run(folder, {}).__enter__()
        holder.kill()  # SIGKILL: it cannot tidy up, and yet the lock must not stay
    with Run(folder, {}):
        pass


def test_only_what_a_killed_run_left_is_removed_and_other_files_are_not_taken_for_a_run(tmp_path):
    for name in (".run.json.123.tmp", ".checkpoint-000000000010.pt.123.tmp"):
        (tmp_path / name).write_text("{")
    with Run(tmp_path, {}):
        assert os.listdir(tmp_path) == ["lock"]
    (tmp_path / ".precious.tmp").write_text("years of work")
    with pytest.raises(UserError, match="precious.tmp"):
        Run(tmp_path, {}).__enter__()
    assert names(tmp_path.iterdir()) == [".precious.tmp", "lock"]  # none gone, none new


def test_a_run_that_fails_before_its_first_step_leaves_no_settings_behind(folder):
    with pytest.raises(MemoryError), Run(folder, {"batch_size": 32}):
        raise MemoryError  # the error asks for a smaller batch, and the same folder takes it
    with Run(folder, {"batch_size": 16}) as run:
        assert not run.finished


def test_nothing_is_written_into_a_folder_that_was_made_again(folder):
    with Run(folder, {}) as old:
        shutil.rmtree(folder)
        with Run(folder, {}):
            with pytest.raises(UserError, match="removed or replaced"):
                old.save_checkpoint(10, STATE)
            assert runfolder.checkpoints(folder) == []




@pytest.mark.parametrize("text", ["", "{", "[1]", '{"settings": 3}'])
def test_a_damaged_record_is_one_clear_line(folder, text):
    folder.mkdir()
    (folder / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json is damaged"):
        Run(folder, {}).__enter__()


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{"), os.unlink])
def test_a_damaged_or_missing_record_is_that_of_the_newest_checkpoint(folder, spoil):
    begin(folder, {"lr": 0.1}, 2, micro_batch=7)
    spoil(folder / "run.json")
    with Run(folder, {"lr": 0.1}) as run:
        assert run.record == {"finished": False, "settings": {"lr": 0.1}, "micro_batch": 7}
    with pytest.raises(UserError, match="lr was 0.1 and is now 0.2"):
        Run(folder, {"lr": 0.2}).__enter__()


def test_a_damaged_checkpoint_falls_back_to_the_one_before(folder, capsys):
    begin(folder, {}, 10, 20, 30)
    assert names(runfolder.checkpoints(folder)) == ["checkpoint-000000000020.pt",
                                                    "checkpoint-000000000030.pt"]
    newest = runfolder.checkpoints(folder)[0]
    newest.write_bytes(newest.read_bytes()[:-7])
    with Run(folder, {}) as run:
        state = run.load_checkpoint()
        assert state["step"] == 20 and torch.equal(state["w"], torch.full((8,), 20.0))
        assert "000030.pt is damaged: set aside" in capsys.readouterr().out
        runfolder.checkpoints(folder)[0].write_bytes(b"")
        assert run.load_checkpoint() is None
        (folder / "checkpoint-best.pt").write_text("mine")
        run.remove_checkpoints()
    assert names(folder.iterdir()) == ["checkpoint-best.pt", "lock", "log.jsonl", "run.json"]


def test_any_flipped_byte_of_a_checkpoint_changes_nothing_or_is_noticed(tmp_path):
    path, state = tmp_path / "x.pt", {"step": 3, "log": "a\n", "w": torch.arange(9.0)}
    runfolder.write_state(path, state)
    good, noticed = path.read_bytes(), 0
    for place in range(0, len(good), 5):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x11]) + good[place + 1:])
        read = runfolder.read_checkpoint(path)
        noticed += read is None
        assert read is None or str(read) == str(state)  # the archive has bytes that say nothing
    assert noticed > 100
    for length in (0, 5, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        assert runfolder.read_checkpoint(path) is None
    with zipfile.ZipFile(path, "w") as archive:  # more than numbers
        archive.writestr("x/data.pkl", b"cos\nsystem\n(S'touch x'\ntR.")
    assert runfolder.read_checkpoint(path) is None and not (ROOT / "x").exists()




def test_a_checkpoint_of_another_run_is_set_aside(folder, capsys):
    with Run(folder, {"lr": 0.1}) as run:
        run.save_checkpoint(10, STATE)
        run.settings = {"lr": 0.2}
        assert run.load_checkpoint() is None
        assert "pt is of a run with other settings: set aside" in capsys.readouterr().out


@pytest.mark.parametrize("failure", [RuntimeError("DefaultCPUAllocator: can't allocate memory"),
                                     PermissionError(13, "denied")])
def test_a_checkpoint_that_cannot_be_read_is_not_given_up(folder, monkeypatch, failure):
    # Too little memory is not damage: the same command continues when there is more.
    begin(folder, {}, 10)
    monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(failure))
    with Run(folder, {}) as run, pytest.raises(type(failure)):
        run.load_checkpoint()
    assert names(runfolder.checkpoints(folder)) == ["checkpoint-000000000010.pt"]
def test_a_disk_that_takes_no_more_is_told_in_its_own_words(folder, python):
    done = python("-c", """
import resource, signal, sys
from running import runfolder
import torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
with runfolder.Run(sys.argv[1], {}) as run:
    run.save_checkpoint(1, {"w": torch.zeros(9000)})""", str(folder))
    assert done.stderr.endswith("OSError: [Errno 27] File too large\n")
    assert names(folder.iterdir()) == ["lock"]


def test_the_log_is_rewound_to_the_checkpoint_whatever_became_of_it(folder):
    begin(folder, {}, 1, 2)
    whole = (folder / "log.jsonl").read_text() + '{"step": 3}\n'
    for text in (whole, whole + '{"step": 4, "lo', whole.replace("2", "5"), "", "\0" * 100):
        (folder / "log.jsonl").write_text(text)
        with Run(folder, {}) as run:
            run.load_checkpoint()
            run.rewind_log()
            assert run.read_log() == [{"step": 1}, {"step": 2}]
