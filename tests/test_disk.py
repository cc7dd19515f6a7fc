"""disk.py: a file is whole or absent, and of what cannot be read one hears what to do."""
import errno
import hashlib
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

from files import disk
from program.cli import UserError

import pytest
import safetensors.torch
import torch
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import errors

LATIN_1 = os.fsdecode(b"caf\xe9")  # a name that is not UTF-8, as in an archive of another system


@pytest.fixture(params=["plain", LATIN_1])
def folder(request, tmp_path):
    """A folder, also one whose name is not UTF-8."""
    (tmp_path / request.param).mkdir()
    return tmp_path / request.param


# --------------------------------------------------------------------------------------------------
# Writing and reading


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    disk.write_file(path, "old")

    def fail(temporary):
        temporary.write_text("half of the n")
        assert disk.leftovers("file").fullmatch(temporary.name)  # known by its name, if it stays
        assert not disk.leftovers("other").fullmatch(temporary.name)
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError):
        disk.replace(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_tensors_come_back_as_they_were_and_the_same_tensors_are_the_same_bytes(folder):
    draw = torch.Generator().manual_seed(0)
    tensors = {"b": torch.randn(3, 5, generator=draw).T, "a": torch.tensor(7),
               "empty": torch.zeros(0, 4),
               "d": torch.randn(2, dtype=torch.float64, generator=draw)}
    disk.save_tensors(folder / "1", tensors)
    disk.save_tensors(folder / "2", dict(reversed(tensors.items())))
    assert (folder / "1").read_bytes() == (folder / "2").read_bytes()
    theirs = safetensors.torch.load((folder / "1").read_bytes())
    for read in (disk.load_tensors(folder / "1"), theirs):
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("failure", [
    None, OSError("No such device (os error 19)"),  # as the library says it, and as torch does
    RuntimeError("unable to mmap 64 bytes from file </x>: No such device (19)")])
def test_tensors_that_cannot_be_mapped_are_read_and_a_cut_is_noticed(tmp_path, monkeypatch,
                                                                      failure):
    path = tmp_path / "x"
    disk.save_tensors(path, {"a": torch.arange(5.0)})

    def refused(*_, **__):
        raise failure
    if failure:
        monkeypatch.setattr(safetensors.torch, "load_file", refused)
    assert torch.equal(disk.load_tensors(path)["a"], torch.arange(5.0))
    whole = path.read_bytes()
    for contents in (b"", whole[:5], whole[:20], whole[:-1], b"\x11" + whole[1:]):
        path.write_bytes(contents)
        with pytest.raises(disk.Damaged, match="x is damaged: "):
            disk.load_tensors(path)


def test_a_text_and_json_keep_a_name_that_is_not_utf_8(folder):
    disk.write_file(folder / "README.md", f"trained on {LATIN_1}.txt, r\u00e9sum\u00e9\n")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == "trained on caf\\udce9.txt, r\u00e9sum\u00e9\n"
    disk.write_json(folder / "run.json", {"data": LATIN_1, "loss": 2.5})
    assert disk.read_json(folder / "run.json") == {"data": LATIN_1, "loss": 2.5}
    assert json.loads((folder / "run.json").read_text()) == {"data": LATIN_1, "loss": 2.5}


@pytest.mark.parametrize("contents", [b"", b"{", b"[1]", b"null", b"[" * 10 ** 5, b"\0" * 9,
                                      b'{"a": "\xe9"}'])
def test_what_is_no_json_object_is_damaged(tmp_path, contents):
    assert disk.optional_json(tmp_path / "run.json") == {}
    (tmp_path / "run.json").write_bytes(contents)
    with pytest.raises(disk.Damaged, match="run.json is damaged: it is not"):
        disk.optional_json(tmp_path / "run.json")


def make_device(path):
    path.symlink_to("/dev/zero")


def make_huge_file(path):
    path.touch()
    os.truncate(path, 2 ** 40)


@pytest.mark.parametrize("make, message", [
    (make_device, "is not a file"), (os.mkfifo, "is not a file"), (os.mkdir, "is not a file"),
    (make_huge_file, "is too large")])
def test_a_file_without_an_end_is_not_read(tmp_path, make, message):
    path = tmp_path / "config.json"
    make(path)
    with pytest.raises(UserError, match=message):
        disk.read_text(path)
    if make is not make_huge_file:
        for read in (disk.load_tensors, lambda path: disk.fetch(path.parent, [path.name])):
            with pytest.raises(UserError, match=message):
                read(path)


# --------------------------------------------------------------------------------------------------
# What a run left


def test_the_sha256_of_several_files_is_that_of_their_contents_in_a_row(tmp_path):
    (tmp_path / "1").write_bytes(b"iso")
    (tmp_path / "2").write_bytes(b"flop")
    sha256 = disk.file_sha256(tmp_path / "1", tmp_path / "2")
    assert sha256 == hashlib.sha256(b"isoflop").hexdigest()


def test_a_file_that_changes_is_hashed_again_and_one_that_keeps_size_and_time_is_not(tmp_path):
    path = tmp_path / "x"
    for contents, time, expected in [(b"abc", 100, b"abc"), (b"abd", 100, b"abc"),
                                     (b"abd", 200, b"abd"), (b"abcd", 200, b"abcd"),
                                     (b"abce", None, b"abce"), (b"abcf", None, b"abcf")]:
        path.write_bytes(contents)
        if time:  # else it was written just now, perhaps twice within a tick of the clock
            os.utime(path, (time, time))
        assert disk.file_sha256(path) == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("name, advice", [
    ("config.json", "remove .*, and run the command that made it again"),
    ("model.safetensors", "remove .*, and run the command that made it again"),
    ("log.jsonl", "the model itself is whole")])
def test_a_file_that_is_not_what_the_run_left_is_not_used(tmp_path, name, advice):
    names, sums = ["config.json", "model.safetensors", "log.jsonl"], {}
    for file in names:
        (tmp_path / file).write_text(file)
        sums[file] = hashlib.sha256(file.encode()).hexdigest()
    disk.write_json(tmp_path / "run.json", {"files": sums})
    assert disk.fetch(tmp_path, names) == tmp_path
    (tmp_path / name).write_text("another")
    with pytest.raises(disk.Damaged, match=f"{name} is damaged, or was edited: .*; {advice}"):
        disk.fetch(tmp_path, names)
    (tmp_path / name).unlink()
    with pytest.raises(disk.Damaged, match=f"{name} is missing.*; {advice}"):
        disk.fetch(tmp_path, names)
    others = [file for file in names if file != name]
    assert disk.fetch(tmp_path, others) == tmp_path  # who does not use it is not disturbed


# --------------------------------------------------------------------------------------------------
# Folders


@pytest.mark.parametrize("name, message", [
    ("no/such/folder", "does not exist, and is no hub id"), ("a b", "is no hub id"),
    (__file__, "is a file, not a folder"), ("", "an empty name"),
    ("~nobody-has-this-name/x", "the home folder that ~ stands for")])
def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        disk.fetch(name, ["config.json"])


@pytest.fixture
def no_cache(monkeypatch):
    for name in ("ISOFLOP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_cache_is_where_the_environment_says(no_cache, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert disk.cache_folder() == tmp_path / "cache" / "isoflop"
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path / "mine"))
    assert disk.cache_folder() == tmp_path / "mine" and (tmp_path / "mine").is_dir()


@pytest.mark.parametrize("variable, folder", [
    ("ISOFLOP_CACHE", "FILE"), ("ISOFLOP_CACHE", "FILE/cache"), ("XDG_CACHE_HOME", "FILE"),
    ("HOME", "FILE"), ("HOME", "/proc/no-such-home")])
def test_a_cache_that_cannot_be_made_says_which_variable_to_set(no_cache, monkeypatch, tmp_path,
                                                               variable, folder):
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, folder.replace("FILE", str(tmp_path / "file")))
    with pytest.raises(UserError, match="cannot be written .*: set ISOFLOP_CACHE to a folder"):
        disk.cache_folder()


def test_a_cache_without_a_home_folder_says_which_variable_to_set(no_cache, monkeypatch):
    def unknown(path):  # as in a container whose user has no entry in /etc/passwd
        raise RuntimeError("Could not determine home directory.")
    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(UserError, match="~/.cache/isoflop cannot be written .*: set ISOFLOP_CACHE"):
        disk.cache_folder()


def test_a_link_to_nowhere_becomes_a_link_to_a_folder(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "new" / "folder")
    disk.check_writable(tmp_path / "link" / "run")
    assert os.listdir(tmp_path) == ["link"]
    disk.make_folder(tmp_path / "link" / "run")
    assert (tmp_path / "new" / "folder" / "run").is_dir()


def test_a_link_to_itself_is_named_before_anything_is_made(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with pytest.raises(UserError, match="cannot be written: .*link is a link that leads to itself"):
        disk.check_writable(tmp_path / "link")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.EACCES])
def test_a_folder_that_cannot_be_synced_is_no_failure_and_a_file_is(tmp_path, monkeypatch, number):
    def fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if os.path.isdir(path) == refuses_folders:
            raise OSError(number, os.strerror(number))
    monkeypatch.setattr(os, "fsync", fsync)
    refuses_folders = True
    disk.make_folder(tmp_path / "a" / "b")
    disk.write_file(tmp_path / "a" / "b" / "file", "text")
    assert (tmp_path / "a" / "b" / "file").read_text() == "text"
    refuses_folders = False
    with pytest.raises(OSError):
        disk.write_file(tmp_path / "a" / "b" / "other", "text")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_what_to_do(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))
    monkeypatch.setattr(disk.fcntl, "flock", flock)
    with pytest.raises(UserError, match=f"^{tmp_path} lies .* local disk, .*--out.*ISOFLOP_CACHE"):
        with disk.locked(tmp_path / "lock", "does the same"):
            pass


# --------------------------------------------------------------------------------------------------
# Two users, one cache


@pytest.mark.parametrize("refused", [
    os.O_CREAT,              # Linux in a folder like /tmp, for another user's file
    os.O_CREAT | os.O_RDWR,  # where another user's file is read-only, too
])
def test_the_lock_file_of_another_user_is_locked(tmp_path, monkeypatch, refused):
    (tmp_path / "lock").touch()
    system_open, opened = os.open, []

    def another_users(path, flags, *mode):
        if flags & refused:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        opened.append(flags)
        return system_open(path, flags, *mode)
    monkeypatch.setattr(os, "open", another_users)
    with disk.locked(tmp_path / "lock", "does the same"):
        monkeypatch.undo()
        with pytest.raises(BlockingIOError):
            disk.locked(tmp_path / "lock")
    assert opened


def test_a_lock_file_is_made_for_whomever_the_umask_lets_in(tmp_path):
    before = os.umask(0o002)
    try:
        with disk.locked(tmp_path / "lock", "does the same"):
            assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o664
    finally:
        os.umask(before)


@pytest.mark.parametrize("name, is_told", [
    ("{cache}/tokens/x.bin", True), ("x.bin", True), ("/elsewhere/x.bin", False)])
def test_what_another_user_made_in_the_cache_is_told_with_the_variable(tmp_path, monkeypatch, name,
                                                                       is_told):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    name = name.format(cache=tmp_path)
    expected = UserError if is_told else PermissionError
    with pytest.raises(expected) as raised, disk.sharing_cache():
        raise PermissionError(errno.EPERM, "Operation not permitted", name)
    assert ("set ISOFLOP_CACHE" in str(raised.value)) == is_told and name in str(raised.value)


# --------------------------------------------------------------------------------------------------
# The hub


def answer(kind, status):
    """An exception of the hub's client."""
    response = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind("the hub says no", response=response)


def caused(failure, cause):
    failure.__cause__ = cause
    return failure


def hidden(failure, context):
    """As after `raise failure from None`, with which the library `datasets` hides a cause."""
    failure.__context__, failure.__suppress_context__ = context, True
    return failure


GATED, MISSING, HTTP = (errors.GatedRepoError, errors.RepositoryNotFoundError,
                        errors.HfHubHTTPError)
# Before its version 1 the client had one kind for what is neither at the hub nor on the disk.
NO_FILE = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)
NOT_HERE = errors.LocalEntryNotFoundError("not on the disk")


@pytest.mark.parametrize("failure, advice", [
    (answer(GATED, 401), "accept its conditions .*`hf auth login`, or HF_TOKEN"),
    (answer(GATED, 403), "accept its conditions"),
    (hidden(DatasetNotFoundError("no"), answer(GATED, 403)), "accept its conditions"),
    (DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), "accept its conditions"),
    (answer(HTTP, 403), "accept its conditions"),
    (answer(HTTP, 429), "busy: try again later"),
    (caused(errors.LocalEntryNotFoundError("x"), answer(HTTP, 503)), "busy: try again later"),
    (answer(MISSING, 401), "^check the name, .* private"),  # which the hub does not tell apart
    (answer(MISSING, 404), "^check the name, "),
    (DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub"), "^check the name, "),
    (ConnectionError("Couldn't reach 'a/b' on the Hub"), "^check the name and the network$"),
    (NOT_HERE, "^check the name and the network$"),
    # The client looked for a README.md that is not there, and went on.
    (hidden(ValueError("BuilderConfig not found"), answer(NO_FILE, 404)),
     "^check the name and the network$"),
    (OSError(errno.ENOSPC, "No space left on device"), "^No space left .* make room .*HF_HOME"),
    (PermissionError(errno.EACCES, "Permission denied", "/hf/x"), "^Permission denied: /hf/x")])
def test_the_hubs_refusal_is_told_with_what_to_do_about_it(failure, advice):
    assert re.search(advice, disk.hub_advice(failure))


def test_a_gated_model_is_told_so(monkeypatch):
    def snapshot_download(*_, **__):
        raise answer(GATED, 403)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match="GatedRepoError.*: it is gated: accept its conditions"):
        disk.fetch("some/model", ["config.json"])
