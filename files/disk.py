"""Files that are whole or absent, and folders that several processes and users share.

A file is written under a temporary name beside its place, synced to the disk, and renamed
(`replace`). A finished run's `run.json` has the SHA-256 of its other files. Whoever reads them
compares (`check_files`), and Damaged is raised where their contents have changed.
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
    """The file is not what was written. Where a file merely cannot be read now (no memory, no
    permission), other errors are raised: such a file may still be whole."""


# --------------------------------------------------------------------------------------------------
# Writing


def replace(path, write):
    """Calls write(temporary path) and renames the result to `path`. After a crash at any moment,
    `path` is the old file or the new one.

    The file is synced before the rename: else a power loss may leave the new name without its
    contents. The folder is synced after it, since it holds the name."""
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
    """The pattern of the temporary files that a process leaves when it dies in `replace`. `names`
    is a pattern of the names of the files that it was writing."""
    return re.compile(rf"\.({names})\.\d+\.tmp")


def sync(path):
    """Waits until a file or folder is on the disk. Some network file systems refuse it for folders,
    which they sync by themselves."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as failure:
        refusals = errno.EINVAL, errno.EBADF, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP
        if failure.errno not in refusals or not os.path.isdir(path):
            raise


def make_folder(path):
    """Makes a folder and those above it, so that they are still there after a power loss. A
    folder's name is stored in the folder above it, which is therefore synced. Where `path` is a
    link, the folder is made to which it leads."""
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


def save_tensors(path, tensors):
    """Writes a dict of tensors as safetensors, whole or not at all. The same tensors always make
    the same file: of more than one entry of metadata the library draws the order."""
    from safetensors.torch import save  # here: programs without tensors start sooner
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    contents = save(tensors, {"format": "pt"})
    replace(path, lambda temporary: temporary.write_bytes(contents))


# --------------------------------------------------------------------------------------------------
# Reading


def check_is_file(path):
    """Raises UserError where `path` is something else than a file: a folder, or a device or a pipe,
    which may never end."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file")


def check_is_no_pointer(path):
    """Raises UserError where a file is the pointer that git-lfs leaves in its place until the file
    itself is downloaded."""
    start = b"version https://git-lfs.github.com/spec/"
    with open(path, "rb") as file:
        if file.read(len(start)) == start:
            raise UserError(f"{path} is a pointer of git-lfs, and the file itself was not "
                            "downloaded: run `git lfs pull` in its folder")


def read_text(path, most=2 ** 28):
    """The text of a file. Raises UserError where it is not a plain file or has more than `most`
    bytes, Damaged where it is not UTF-8, and FileNotFoundError where there is none."""
    check_is_file(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise UserError(f"{path} is too large: {size:,} bytes")
        try:
            return file.read(size).decode("utf-8")  # `size`, since some files of /proc never end
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


def load_tensors(path):
    """{name: tensor} of a safetensors file. Raises Damaged where it is not one, and the system's
    error where it cannot be read."""
    from safetensors.torch import load, load_file  # here, as above
    check_is_file(path)
    with open(path, "rb") as file:
        try:
            try:  # by its descriptor: the library takes names in UTF-8 only
                return load_file(f"/dev/fd/{file.fileno()}")
            except Exception as failure:
                if os.strerror(errno.ENODEV) not in str(failure):
                    raise
                return load(file.read())  # its file system maps no file into memory
        except MemoryError:
            raise
        except Exception as failure:  # the library has one class for the header, others for tensors
            if "allocate memory" in str(failure):
                raise
            raise Damaged(f"{path} is damaged: {cli.one_line(failure)}") from None


def file_sha256(*paths):
    """The SHA-256 of the contents of one file, or of several files in a row. A file that has its
    size and time of before is not read again."""
    looks = [os.stat(path) for path in paths]
    files = [(path, look.st_ino, look.st_size, look.st_mtime_ns)
             for path, look in zip(paths, looks)]
    # Two changes within a tick of the system's clock leave one time: then both are read.
    is_new = any(time.time() - look.st_mtime < 2 for look in looks)
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


# --------------------------------------------------------------------------------------------------
# Folders


def path_of(name):
    """A path as a user writes it, perhaps with `~`. Raises UserError where that home folder is not
    known, or the name is empty: Path("") would be the working directory."""
    if not str(name):
        raise UserError('an empty name, "": give a file, a folder or a hub id')
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{name}: the home folder that ~ stands for is not known here; write it "
                        "out") from None


def check_writable(folder):
    """Raises UserError where the folder cannot be written, or cannot be made."""
    folder = Path(os.path.realpath(folder))  # a link may lead to a folder that is still to be made
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    problem = None
    if existing.is_symlink():
        problem = "a link that leads to itself"
    elif not existing.is_dir():
        problem = "a file"
    elif not os.access(existing, os.W_OK | os.X_OK):
        problem = "read-only for you"
    if problem:
        raise UserError(f"--out {folder} cannot be written: {existing} is {problem}")


def cache_folder():
    """The folder for what can be computed again: `$ISOFLOP_CACHE`, or `isoflop` in the user's cache
    folder. It is never in the checkout. Raises UserError where it cannot be made or written."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = os.environ.get("ISOFLOP_CACHE") or Path(caches) / "isoflop"
    problem = "it is read-only for you"
    try:
        folder = path_of(folder)
        make_folder(folder)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    except UserError:
        problem = "nobody knows the home folder that ~ stands for"
    except OSError as failure:
        problem = failure.strerror
    raise UserError(f"the cache folder {folder} cannot be written ({problem}): set ISOFLOP_CACHE "
                    "to a folder that you may write to")


@contextlib.contextmanager
def sharing_cache():
    """Users may share a cache, and what one has made the others use. Where one may not read or
    replace it, the UserError names ISOFLOP_CACHE."""
    try:
        yield
    except PermissionError as failure:
        folder, path = cache_folder().absolute(), failure.filename or ""
        # What removes a folder gives the names in it without the folder.
        if os.path.isabs(path) and folder not in Path(path).parents:
            raise
        raise UserError(f"the cache folder {folder} holds what another user made, and you may not "
                        f"use or replace it ({failure.strerror}: {path}): set ISOFLOP_CACHE to a "
                        "folder of your own") from None


def locked(path, what=None):
    """The file of a lock, open, which this process holds until it is closed: `with locked(...):`.
    The kernel frees it when its holder dies, so no lock is ever stale.

    Where another process holds it, waits, and says in a line `what` that process does, like
    "tokenizes the same text". Without `what` it raises BlockingIOError. Raises UserError where the
    file system has no locks: some of a network lack them, or lack those of files that are open for
    reading (EBADF)."""
    lock = open_lock(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as failure:
        if failure.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
            raise UserError(f"{Path(path).parent} lies on a file system that gives no lock "
                            f"({failure.strerror}): choose a folder on a local disk, with --out, "
                            "or for the cache with ISOFLOP_CACHE") from None
        if what is None or not isinstance(failure, BlockingIOError):
            raise
        print(f"waiting for another process that {what} ...", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def open_lock(path):
    """The file of a lock, open, and made where there is none. Another user's is opened for reading,
    which is enough for a lock.

    An existing file is opened without O_CREAT: in a folder like /tmp, Linux would refuse another
    user's with it."""
    refusal = None
    for flags in (os.O_RDWR, os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        try:
            return open(path, "rb", opener=lambda path, _, flags=flags: os.open(path, flags, 0o666))
        except (FileNotFoundError, PermissionError) as failure:
            # The last may say that there is no file, and the one before why none can be made.
            refusal = failure if flags != os.O_RDONLY else refusal
    raise refusal


# --------------------------------------------------------------------------------------------------
# The files of a model or a tokenizer

HUB_ID = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"  # bert-base-uncased, or google/bert_uncased_L-2_H-128_A-2
# What is downloaded. The pickle is asked for only where there is no safetensors.
PICKLE = "pytorch_model.bin"
WEIGHT_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors", PICKLE]
TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "added_tokens.json",
                   "special_tokens_map.json"]
MODEL_FILES = ["config.json", *WEIGHT_FILES, *TOKENIZER_FILES]


def fetch(name, files):
    """The folder of a model or tokenizer: `name` itself where it is a local folder, else the folder
    into which it is downloaded from the Hugging Face hub.

    Only the named `files` (names, or patterns with *) are downloaded, and no code is among them.
    Raises Damaged where a file is not what its run left there, and UserError where there is no such
    model."""
    folder = path_of(name)
    if folder.is_dir():
        check_files(folder, files)
        return folder
    if folder.exists():
        raise UserError(f"{name} is a file, not a folder")
    name = str(name)
    if not re.fullmatch(HUB_ID, name, re.ASCII):
        raise UserError(f"{name} does not exist, and is no hub id")
    from huggingface_hub import snapshot_download  # here: slow, and seldom needed
    try:
        folder = Path(snapshot_download(name, allow_patterns=[f for f in files if f != PICKLE]))
        if PICKLE in files and not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[PICKLE]))
        return folder
    except Exception as failure:  # many classes: no network, no such id, no permission
        raise UserError(f"there is no folder {name}, and the hub did not give a model of that id "
                        f"({type(failure).__name__}): {hub_advice(failure)}") from None


LOG_IN = "log in (`hf auth login`, or HF_TOKEN)"
UNKNOWN = "check the name and the network"
BUSY = 429, 500, 502, 503, 504  # HTTP's numbers


def hub_advice(failure, otherwise=UNKNOWN):
    """What to do where the hub did not give a model or a data set. failure: the exception of its
    client, which may hide the hub's answer in a cause. otherwise: where nothing is known of it."""
    kinds, statuses, texts = set(), set(), ""
    while failure:
        if is_of_disk(failure):
            return f"{cli.system_error(failure)} (HF_HOME names the folder of downloads)"
        names = {kind.__name__ for kind in type(failure).__mro__}
        if "EntryNotFoundError" not in names:  # a file that the client looks for and can do without
            statuses.add(getattr(getattr(failure, "response", None), "status_code", None))
        kinds |= names
        texts += str(failure)
        failure = failure.__cause__ or failure.__context__
    is_missing = kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"} or 404 in statuses
    is_gated = "GatedRepoError" in kinds or "is a gated dataset" in texts
    # The hub answers 401 for what is missing, too, since it may be private.
    if is_gated or statuses & {401, 403} and not is_missing:
        return f"it is gated: accept its conditions on its page of the hub, and {LOG_IN}"
    if is_missing:
        return f"check the name, and where it is private, {LOG_IN}"
    if statuses & {*BUSY}:
        return "the hub is busy: try again later"
    return otherwise


def is_of_disk(failure):
    """Whether an exception of a download says that the disk refuses it, and not the network."""
    number = getattr(failure, "errno", None)
    return number in cli.ADVICE and (number != errno.EACCES or bool(failure.filename))


def check_files(folder, files):
    """Compares `files` with the checksums in the folder's run.json, where it has one. Raises
    Damaged where one is missing or differs. A pattern fits no file that a run leaves."""
    recorded = {}
    if (folder / "run.json").exists():
        recorded = read_json(folder / "run.json").get("files", {})
    if not isinstance(recorded, dict):
        raise Damaged(f"{folder}/run.json is damaged: its entry `files` is not an object")
    for name in files:
        path = folder / name
        check_is_file(path)
        if name not in recorded or path.exists() and recorded[name] == file_sha256(path):
            continue
        problem = "damaged, or was edited" if path.exists() else "missing"
        advice = f"remove {folder}, and run the command that made it again"
        if name == "log.jsonl":
            advice = "the model itself is whole"
        raise Damaged(f"{path} is {problem}: it is not what the run left there; {advice}")
