"""disk.py: a file is whole or absent, and of what cannot be read one hears what to do."""
import errno
import hashlib
import os
from types import SimpleNamespace

from files import disk
from program.cli import UserError

import pytest
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import errors

LATIN_1 = os.fsdecode(b"caf\xe9")  # a name that is not UTF-8, as in an archive of another system


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    disk.write_file(path, "old")

    def fail(temporary):
        temporary.write_text("half of the n")
        assert disk.leftovers("file").fullmatch(temporary.name)  # known by its name, if it stays
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError):
        disk.replace(path, fail)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_text_and_json_keep_a_name_that_is_not_utf_8(tmp_path):
    folder = tmp_path / LATIN_1
    disk.make_folder(folder)
    disk.write_file(folder / "README.md", f"trained on {LATIN_1}.txt, r\u00e9sum\u00e9\n")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == "trained on caf\\udce9.txt, r\u00e9sum\u00e9\n"
    disk.write_json(folder / "run.json", {"data": LATIN_1, "loss": 2.5})
    assert disk.read_json(folder / "run.json") == {"data": LATIN_1, "loss": 2.5}


@pytest.mark.parametrize("contents", [b"", b"{", b"[1]", b"null", b"[" * 10 ** 5, b"\0" * 9,
                                      b'{"a": "\xe9"}'])
def test_what_is_no_json_object_is_damaged(tmp_path, contents):
    assert disk.optional_json(tmp_path / "run.json") == {}
    (tmp_path / "run.json").write_bytes(contents)
    with pytest.raises(disk.Damaged, match="run.json is damaged: it is not"):
        disk.optional_json(tmp_path / "run.json")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 9\n"


@pytest.mark.parametrize("make, message", [
    (lambda path: path.symlink_to("/dev/zero"), "not a file"), (os.mkfifo, "not a file"),
    (os.mkdir, "not a file"), (lambda path: path.write_text(POINTER), ".*run `git lfs pull` in")])
def test_what_is_no_file_or_the_pointer_to_one_is_not_read(tmp_path, make, message):
    make(tmp_path / "config.json")
    with pytest.raises(UserError, match=f"config.json is {message}"):
        disk.read_text(tmp_path / "config.json")
    with pytest.raises(UserError, match=f"config.json is {message}"):
        disk.fetch(tmp_path, ["config.json"])


def test_a_file_that_changes_is_hashed_again_and_one_that_keeps_size_and_time_is_not(tmp_path):
    path = tmp_path / "x"
    for contents, time, expected in [(b"abc", 100, b"abc"), (b"abd", 100, b"abc"),
                                     (b"abd", 200, b"abd"), (b"abcd", 200, b"abcd"),
                                     (b"abce", None, b"abce"), (b"abcf", None, b"abcf")]:
        path.write_bytes(contents)
        if time:  # else it was written just now, perhaps twice within a tick of the clock
            os.utime(path, (time, time))
        assert disk.file_sha256(path, path) == hashlib.sha256(expected * 2).hexdigest()


def test_a_file_that_is_not_what_the_run_left_is_not_used(tmp_path):
    config, weights = names = ["config.json", "model.safetensors"]
    for file in names:
        (tmp_path / file).write_text(file)
    sums = {file: hashlib.sha256(file.encode()).hexdigest() for file in names}
    disk.write_json(tmp_path / "run.json", {"files": sums})
    assert disk.fetch(tmp_path, names) == tmp_path
    for change in (lambda path: path.write_text("another"), os.unlink):
        change(tmp_path / weights)
        with pytest.raises(disk.Damaged, match=f"{weights} is missing, is damaged, .*; remove "):
            disk.fetch(tmp_path, names)
    assert disk.fetch(tmp_path, [config]) == tmp_path  # who does not use it is not disturbed
    disk.write_json(tmp_path / "run.json", {"files": names})
    with pytest.raises(disk.Damaged, match="its entry `files` is not an object"):
        disk.fetch(tmp_path, names)


@pytest.mark.parametrize("name, message", [
    ("no/such/folder", "is no folder, and is no hub id"), ("a b", "is no hub id"),
    (__file__, "is no folder"), ("", "an empty name"), ("~nobody-has-this-name/x", "unknown home")])
def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        disk.fetch(name, ["config.json"])


@pytest.mark.parametrize("variables, folder", [
    ({"XDG_CACHE_HOME": "{}/cache"}, "cache/isoflop"), ({"HOME": "{}"}, ".cache/isoflop"),
    ({"ISOFLOP_CACHE": "{}/mine", "XDG_CACHE_HOME": "{}/cache"}, "mine"),
    ({"ISOFLOP_CACHE": "{}/file"}, None), ({"XDG_CACHE_HOME": "{}/file"}, None),
    ({"HOME": "/proc/no-such-home"}, None), ({"ISOFLOP_CACHE": "~nobody-has-this-name/x"}, None)])
def test_the_cache_is_where_the_environment_says_or_the_variable_is_named(monkeypatch, tmp_path,
                                                                          variables, folder):
    (tmp_path / "file").touch()
    for name in ("ISOFLOP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    if folder:
        assert disk.cache_folder() == tmp_path / folder and (tmp_path / folder).is_dir()
        return
    with pytest.raises(UserError, match="cannot be written .*: set ISOFLOP_CACHE to a folder"):
        disk.cache_folder()


def test_a_link_to_nowhere_becomes_a_link_to_a_folder_and_one_to_itself_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "new" / "folder")
    disk.check_writable(tmp_path / "link" / "run")
    assert os.listdir(tmp_path) == ["link"]
    disk.make_folder(tmp_path / "link" / "run")
    assert (tmp_path / "new" / "folder" / "run").is_dir()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(UserError, match="cannot be written: .*circle is a file or a broken link"):
        disk.check_writable(tmp_path / "circle")


def test_a_folder_that_cannot_be_synced_is_no_failure_and_a_file_is(tmp_path, monkeypatch):
    def fsync(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}") == refuses_folders:
            raise OSError(errno.EINVAL, "Invalid argument")
    monkeypatch.setattr(os, "fsync", fsync)
    refuses_folders = True
    disk.write_file(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
    refuses_folders = False
    with pytest.raises(OSError):
        disk.write_file(tmp_path / "other", "text")


def test_a_file_system_without_locks_is_named_with_what_to_do(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(disk.fcntl, "flock", flock)
    with pytest.raises(UserError, match=f"^{tmp_path} lies .* local disk, .*--out.*ISOFLOP_CACHE"):
        with disk.locked(tmp_path / "lock", "does the same"):
            pass


def test_a_lock_file_is_opened_in_the_way_that_another_users_file_allows(tmp_path, monkeypatch):
    path, modes = tmp_path / "lock", []
    for is_mine in (True, True, False):  # made, then not "made" again, then only read
        monkeypatch.setattr(os, "access", lambda *_, is_mine=is_mine: is_mine)
        with disk.locked(path, "does the same") as lock:
            modes.append(lock.mode)
            with pytest.raises(BlockingIOError):
                disk.locked(path)
    assert modes == ["ab", "rb+", "rb"]


def test_what_another_user_made_in_the_cache_is_told_with_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOFLOP_CACHE", str(tmp_path))
    for name in (f"{tmp_path}/tokens/x.bin", "x.bin"):
        with pytest.raises(UserError, match=f"{name}.* set ISOFLOP_CACHE"), disk.sharing_cache():
            raise PermissionError(errno.EPERM, "Operation not permitted", name)
    with pytest.raises(PermissionError), disk.sharing_cache():
        raise PermissionError(errno.EPERM, "Operation not permitted", "/elsewhere/x.bin")


def answer(kind, status):
    """An exception of the hub's client."""
    return kind("no", response=SimpleNamespace(status_code=status, headers={}, request=None))


def hidden(context, failure=DatasetNotFoundError):
    """As after `raise failure from None`, with which `datasets` hides a cause."""
    made = failure("no")
    made.__context__, made.__suppress_context__ = context, True
    return made


GATED, HTTP = errors.GatedRepoError, errors.HfHubHTTPError


@pytest.mark.parametrize("failure, advice", [
    (answer(GATED, 401), "accept its conditions .*`hf auth login`, or HF_TOKEN"),
    (hidden(answer(GATED, 403)), "accept its conditions"),
    (hidden(answer(HTTP, 403), ValueError), "accept its conditions"),
    (DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), "accept its conditions"),
    (answer(HTTP, 429), "busy: try again later"), (answer(HTTP, 503), "busy: try again later"),
    (answer(errors.RepositoryNotFoundError, 401), "check the name, .* private"),
    # The client looked for a README.md that is not there, and went on.
    (hidden(answer(errors.RemoteEntryNotFoundError, 404), ValueError), "check the name and the n"),
    (ConnectionError("Couldn't reach 'a/b' on the Hub"), "check the name and the network ")])
def test_the_hubs_refusal_is_told_with_what_to_do_about_it(monkeypatch, failure, advice):
    def snapshot_download(*_, **__):
        raise failure
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=f"of that id: .*{advice}"):
        disk.fetch("some/model", ["config.json"])
