"""disk.py: a file is whole or absent, and damage is noticed."""
import os

from plumbing import disk
from plumbing.cli import UserError

import pytest
import torch
from safetensors.torch import load_file


def test_tensors_come_back_as_they_were_and_the_library_reads_the_file(tmp_path):
    tensors = {"b": torch.randn(3, 5), "a": torch.tensor(7), "empty": torch.zeros(0, 4), "d": torch.randn(2, dtype=torch.float64)}
    disk.save_tensors(tmp_path / "x.safetensors", tensors, step=3)
    ours, metadata = disk.load_tensors(tmp_path / "x.safetensors")
    theirs = load_file(tmp_path / "x.safetensors")  # the safetensors library's own reader
    assert metadata["format"] == "pt" and metadata["step"] == "3"
    for name, tensor in tensors.items():
        assert torch.equal(ours[name], tensor) and torch.equal(theirs[name], tensor)


def test_the_same_tensors_are_the_same_bytes(tmp_path):
    tensors = {name: torch.arange(10.0) for name in "zyxw"}
    disk.save_tensors(tmp_path / "1", tensors)
    disk.save_tensors(tmp_path / "2", dict(reversed(tensors.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_any_flipped_byte_of_a_tensor_file_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    disk.save_tensors(path, {"w": torch.randn(4, 4), "n": torch.tensor(3)}, step=1)
    good = path.read_bytes()
    wanted, _ = disk.load_tensors(path)
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x11]) + good[place + 1:])
        try:
            tensors, metadata = disk.load_tensors(path)
        except UserError:
            continue
        # A flip that goes unnoticed may only be one that changes nothing that is read: in the names of format and checksum.
        assert metadata["step"] == "1"
        assert tensors.keys() == wanted.keys() and all(torch.equal(tensors[name], wanted[name]) for name in wanted)


def test_a_file_cut_short_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    disk.save_tensors(path, {"w": torch.randn(64)})
    for length in (0, 5, 20, 200, path.stat().st_size - 1):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(UserError, match="damaged"):
            disk.load_tensors(path)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    disk.write_file(path, "old")

    def fail(temporary):
        temporary.write_text("half of the n")
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError):
        disk.replace(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_place_of_a_file_is_said(tmp_path):
    with pytest.raises(UserError, match="is not a file"):
        disk.load_tensors(tmp_path)


@pytest.mark.parametrize("old, new", [('"loss": 2.5', '"loss": 2.4'), ('"seed": 1', '"seed": 2'), ("{", "["), ('"checksum": "', '"checksum": "0')])
def test_a_changed_digit_in_a_json_file_is_noticed(tmp_path, old, new):
    path = tmp_path / "record.json"
    disk.write_json(path, {"loss": 2.5, "settings": {"seed": 1}})
    assert disk.read_json(path) == {"loss": 2.5, "settings": {"seed": 1}}
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match="is damaged"):
        disk.read_json(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_what_the_run_left_is_not_used(tmp_path, name):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_text(file)
    disk.write_json(tmp_path / "run.json", {"files": {file: disk.file_sha256(tmp_path / file) for file in ("config.json", "model.safetensors")}})
    assert disk.fetch(tmp_path, ["config.json", "model.safetensors"]) == tmp_path
    (tmp_path / name).write_text("another")
    with pytest.raises(UserError, match=f"{name} is damaged, or was edited"):
        disk.fetch(tmp_path, ["config.json", "model.safetensors"])


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo, lambda path: path.mkdir(), lambda path: (path.touch(), os.truncate(path, 2 ** 40))])
def test_a_file_without_an_end_is_not_read(tmp_path, make):
    make(tmp_path / "config.json")
    with pytest.raises(UserError, match="is not a file|is too large"):
        disk.read_text(tmp_path / "config.json")
    if not (tmp_path / "config.json").is_file():
        with pytest.raises(UserError, match="is not a file"):
            disk.fetch(tmp_path, ["config.json"])


def test_a_home_that_is_not_known_is_said():
    with pytest.raises(UserError, match="the home folder that ~ stands for"):
        disk.path_of("~nobody-has-this-name/x")
