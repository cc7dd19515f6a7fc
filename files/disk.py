"""Files that are whole or absent, and folders that several processes and users share.

A file is written under a temporary name beside its place, synced to the disk, and renamed
(`replace`). A finished run's `run.json` has the SHA-256 of its other files, which are compared
where they are read (`fetch`).
"""
import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import time
from pathlib import Path

from program import cli
from program.cli import UserError


class Damaged(UserError):
    """The file is not what was written: not merely unreadable now, and perhaps whole."""


def replace(path, write):
    """Calls write(temporary path) and renames the result to `path`. After a crash at any moment,
    `path` is the old file or the new one.

    The file is synced before the rename, which a power loss else leaves without its contents, and
    the folder after it, since it holds the name."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def leftovers(names):
    """The pattern of what a process leaves when it dies in `replace`. names: a pattern, too."""
    return re.compile(rf"\.({names})\.\d+\.tmp")


def sync(path):
    """Waits until a file or folder is on the disk. Some network file systems refuse it for folders,
    which they sync by themselves."""
    refusals = errno.EINVAL, errno.EBADF, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as failure:
        if failure.errno not in refusals or not os.path.isdir(path):
            raise


def make_folder(path):
    """Makes a folder and those above it. A folder's name is stored in the folder above it, which is
    synced, so that a power loss leaves both. A link's folder is made where it leads."""
    path = Path(os.path.realpath(path))
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def write_file(path, text):
    """Writes a text, whole or not at all. What is not UTF-8 in it, as the name of a file may be, is
    written as `\\udce9`."""
    contents = text.encode(errors="backslashreplace")
    replace(path, lambda temporary: temporary.write_bytes(contents))


def json_text(value):
    """A value as JSON, as it stands in our files."""
    return json.dumps(value, indent=2) + "\n"


def write_json(path, value):
    write_file(path, json_text(value))


def check_is_file(path):
    """Raises UserError where `path` is something else than a file, such as a device or a pipe that
    never ends, or the pointer that git-lfs leaves in a file's place until it is downloaded."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file")
    is_small = path.exists() and path.stat().st_size < 1000
    if is_small and path.read_bytes().startswith(b"version https://git-lfs."):
        raise UserError(f"{path} is a pointer of git-lfs, and the file itself was not downloaded: "
                        "run `git lfs pull` in its folder")


def read_text(path):
    """The text of a file. Raises UserError where it is not a plain file, Damaged where it is not
    UTF-8, and FileNotFoundError where there is none."""
    check_is_file(path)
    try:
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise Damaged(f"{path} is damaged: it is not UTF-8 text") from None


def read_json(path):
    """A JSON object from a file. Raises Damaged where the file holds anything else."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged: it is not a JSON object")
    value.pop("checksum", None)  # which runs had that were finished before December 2026
    return value


def optional_json(path):
    """The JSON object in a file, or {} where there is no such file."""
    return read_json(path) if path.exists() else {}


def file_sha256(*paths):
    """The SHA-256 of the contents of one file, or of several files in a row. A file that has its
    size and time of before is not read again."""
    looks = [(path, os.stat(path)) for path in paths]
    files = [(path, look.st_ino, look.st_size, look.st_mtime_ns) for path, look in looks]
    # Two changes within a tick of the system's clock leave one time: then both are read.
    is_new = any(time.time() - look.st_mtime < 2 for _, look in looks)
    return (contents_sha256.__wrapped__ if is_new else contents_sha256)(*files)


@functools.lru_cache(maxsize=None)
def contents_sha256(*files):
    """The SHA-256 of files, each a tuple that begins with its path."""
    sha256 = hashlib.sha256()
    for path, *_ in files:
        with open(path, "rb") as file:
            while chunk := file.read(2 ** 22):
                sha256.update(chunk)
    return sha256.hexdigest()


def fingerprint(value):
    """A short name for any value that JSON can write. Equal values have equal names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


def path_of(name):
    """A path as a user writes it, perhaps with `~`. Raises UserError where that home is not known,
    or the name is empty: Path("") would be the working directory."""
    path = os.path.expanduser(name)  # leaves the ~ of an unknown home
    if not path or path.startswith("~"):
        problem = "an unknown home folder" if path else "an empty name"
        raise UserError(f'{problem}, "{path}": give a file, a folder or a hub id')
    return Path(path)


def check_writable(folder):
    """Raises UserError where the folder cannot be written, or cannot be made."""
    folder = Path(os.path.realpath(folder))  # a link may lead to a folder that is still to be made
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = "read-only for you" if existing.is_dir() else "a file or a broken link"
        raise UserError(f"--out {folder} cannot be written: {existing} is {problem}")


def cache_folder():
    """The folder for what can be computed again: `$ISOFLOP_CACHE`, or `isoflop` in the user's cache
    folder. Raises UserError where it cannot be made or written."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("ISOFLOP_CACHE") or f"{caches}/isoflop"
    try:
        folder = path_of(folder)
        make_folder(folder)
    except (UserError, OSError) as failure:
        raise UserError(f"the cache folder {folder} cannot be written "
                        f"({getattr(failure, 'strerror', failure)}): set ISOFLOP_CACHE to a folder "
                        "that you may write to") from None
    return folder


@contextlib.contextmanager
def sharing_cache():
    """Users may share a cache, and what one has made the others use. Where one may not read or
    replace it, the UserError names ISOFLOP_CACHE."""
    try:
        yield
    except PermissionError as failure:
        folder, path = cache_folder().absolute(), failure.filename or ""
        if os.path.isabs(path) and folder not in Path(path).parents:
            raise
        raise UserError(f"the cache folder {folder} holds what you may not use ({path}): set "
                        "ISOFLOP_CACHE to a folder of your own") from None


def locked(path, what=None):
    """The file of a lock, open, which this process holds until it is closed: `with locked(...):`.
    The kernel frees it when its holder dies, so no lock is ever stale.

    Where another process holds it, says `what` that one does, and waits, or without `what` raises
    BlockingIOError. Raises UserError where the file system has no locks."""
    mode = "ab"
    if os.path.exists(path):  # not "ab": in /tmp, Linux refuses to "make" another user's file
        mode = "r+b" if os.access(path, os.W_OK) else "rb"
    lock = open(path, mode)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if what is None:
            raise
        print(f"waiting for another process that {what} ...", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as failure:
        raise UserError(f"{Path(path).parent} lies on a file system that gives no lock "
                        f"({failure.strerror}): choose a folder on a local disk, with --out, or "
                        "for the cache with ISOFLOP_CACHE") from None
    return lock


HUB_ID = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"  # bert-base-uncased, or google/bert_uncased_L-2_H-128_A-2
PICKLE = "pytorch_model.bin"  # asked for only where there is no safetensors
WEIGHT_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors", PICKLE]
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json",
                   "special_tokens_map.json"]
MODEL_FILES = ["config.json", *WEIGHT_FILES, *TOKENIZER_FILES]


LOG_IN = "log in (`hf auth login`, or HF_TOKEN)"
BUSY = {429, 500, 502, 503, 504}  # what an HTTP server answers that has too much to do


def fetch(name, files, kind="model"):
    """The folder of a model, tokenizer or data set: `name` itself where it is a local folder, else
    the folder into which `files` (names, or patterns with *) are downloaded from the hub. Raises
    Damaged where a file is not what its run left there, UserError where there is no such model."""
    folder = path_of(name)
    if folder.is_dir():
        check_files(folder, files)
        return folder
    if folder.exists() or not re.fullmatch(HUB_ID, str(name), re.ASCII):
        raise UserError(f"{name} is no folder, and is no hub id")
    from huggingface_hub import snapshot_download  # here: slow, and seldom needed
    try:
        folder = snapshot_download(name, repo_type=kind,
                                   allow_patterns=[f for f in files if f != PICKLE])
        if PICKLE in files and not any(Path(folder).glob("model*.safetensors")):
            folder = snapshot_download(name, allow_patterns=[PICKLE])
        return Path(folder)
    except Exception as failure:  # many classes: no network, no such id, no permission
        raise UserError(f"there is no folder {name}, and the hub did not give a {kind} of that id: "
                        f"{hub_advice(failure)} ({type(failure).__name__}: "
                        f"{cli.one_line(failure)})") from None


def hub_advice(failure, otherwise="check the name and the network"):
    """What to do where the hub gave nothing. The exception may hide its answer in a cause."""
    kinds, statuses, words = set(), set(), ""
    while failure:
        kinds.add(type(failure).__name__)
        if "EntryNotFound" not in type(failure).__name__:  # a file that the client can do without
            statuses.add(getattr(getattr(failure, "response", None), "status_code", None))
        words += str(failure)
        failure = failure.__cause__ or failure.__context__
    is_missing = kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"} or 404 in statuses
    is_gated = "GatedRepoError" in kinds or "is a gated dataset" in words
    # The hub answers 401 for what is missing, too, since it may be private.
    if is_gated or statuses & {401, 403} and not is_missing:
        return f"it is gated: accept its conditions on its page of the hub, and {LOG_IN}"
    if is_missing:
        return f"check the name, and where it is private, {LOG_IN}"
    return "the hub is busy: try again later" if statuses & BUSY else otherwise


def check_files(folder, files):
    """Raises Damaged where one of `files` has not the checksum that stands in run.json, if any."""
    recorded = optional_json(folder / "run.json").get("files", {})
    if not isinstance(recorded, dict):
        raise Damaged(f"{folder}/run.json is damaged: its entry `files` is not an object")
    for name in files:
        path = folder / name
        check_is_file(path)
        if name in recorded and not (path.exists() and recorded[name] == file_sha256(path)):
            raise Damaged(f"{path} is missing, is damaged, or was edited: it is not what the run "
                          f"left there; remove {folder}, and run the command that made it again")
