"""Files that are whole or absent, and damage that is noticed.

A file is written under a temporary name beside its place, synced to the disk, and renamed
(`replace`). Tensors and JSON objects are written with a checksum of their contents, and a finished
run's `run.json` has the checksums of its other files. Whoever reads a file compares, and raises
Damaged where the contents have changed.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import re
from pathlib import Path

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
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path):
    """Makes a folder and those above it, so that they are still there after a power loss. A
    folder's name is stored in the folder above it, which is therefore synced."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def write_file(path, text):
    """Writes a text, whole or not at all. What is not UTF-8 in it, as the name of a file may be, is
    written as `\\udce9`."""
    contents = text.encode(errors="backslashreplace")
    replace(path, lambda temporary: temporary.write_bytes(contents))


# --------------------------------------------------------------------------------------------------
# Reading text


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
        is_pointer = file.read(len(start)) == start
    if is_pointer:
        raise UserError(f"{path} is a pointer of git-lfs, and the file itself was not downloaded: "
                        "run `git lfs pull` in its folder")


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


# --------------------------------------------------------------------------------------------------
# Checksums


def file_sha256(*paths):
    """The SHA-256 of the contents of one file, or of several files in a row."""
    sha256 = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(2 ** 22):
                sha256.update(chunk)
    return sha256.hexdigest()


def fingerprint(value):
    """A short name for any value that JSON can write. Equal values have equal names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]


# --------------------------------------------------------------------------------------------------
# JSON objects


def json_text(value):
    """A value as JSON, as it stands in our files."""
    return json.dumps(value, indent=2) + "\n"


def checksum(value):
    """The checksum of a JSON value: the first 16 digits of its text's SHA-256."""
    return hashlib.sha256(json_text(value).encode()).hexdigest()[:16]


def write_json(path, value):
    """Writes a dict as JSON. Its last entry is a checksum, which `read_json` compares."""
    write_file(path, json_text({**value, "checksum": checksum(value)}))


def read_json(path):
    """A JSON object from a file, without its checksum. Raises Damaged where the file holds anything
    else, or does not match its checksum. A file without a checksum is believed."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged: it is not a JSON object")
    if value.pop("checksum", None) not in (None, checksum(value)):
        raise Damaged(f"{path} is damaged, or was edited: it does not match its checksum")
    return value


def optional_json(path):
    """The JSON object in a file, as `read_json` reads it, or {} where there is no such file."""
    return read_json(path) if path.exists() else {}


# --------------------------------------------------------------------------------------------------
# Tensors

DTYPES = {"torch.float32": "F32", "torch.float64": "F64", "torch.int64": "I64"}


def tensor_bytes(tensor):
    """The memory of a contiguous tensor on the CPU."""
    import torch  # here: programs without tensors read and write files, too, and start sooner
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def digest(tensors, metadata):
    """The SHA-256 of a dict of tensors (names, types, shapes and bytes) and of the metadata beside
    them."""
    extra = {key: value for key, value in metadata.items() if key not in ("format", "sha256")}
    sha256 = hashlib.sha256()
    if extra:
        sha256.update(json.dumps(extra, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        sha256.update(tensor_bytes(tensor))
    return sha256.hexdigest()


def safetensors_header(tensors, metadata):
    """The header of a safetensors file: 8 bytes of length, then JSON with each tensor's type, shape
    and place. Spaces at its end let the tensors begin at a multiple of 8."""
    header, end = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[str(tensor.dtype)], "shape": list(tensor.shape),
                        "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def save_tensors(path, tensors, **metadata):
    """Writes a dict of tensors as safetensors, whole or not at all, with a digest in its metadata.

    The safetensors library writes the metadata in random order. Here the same tensors always make
    the same file, byte for byte."""
    tensors = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    metadata = {"format": "pt", **{key: str(value) for key, value in metadata.items()}}
    metadata["sha256"] = digest(tensors, metadata)

    def write(temporary):
        with open(temporary, "wb") as file:
            file.write(safetensors_header(tensors, metadata))
            for tensor in tensors.values():
                file.write(tensor_bytes(tensor))
    replace(path, write)


def load_tensors(path):
    """(tensors, metadata) of a safetensors file. Raises Damaged where its contents do not match its
    digest (if it has one) or the format, and UserError where it cannot be read."""
    if not Path(path).exists():
        raise UserError(f"{path} does not exist")
    check_is_file(path)
    with open(path, "rb") as file:  # raises the system's error; the library's has no number
        tensors, metadata = parse_safetensors(path, file)
    if "sha256" in metadata and metadata["sha256"] != digest(tensors, metadata):
        raise Damaged(f"{path} is damaged: its contents do not match the checksum that was saved "
                      "with them")
    return tensors, metadata


def parse_safetensors(path, file):
    """(tensors, metadata) as the safetensors library reads them. file: the open file."""
    from safetensors import safe_open  # here: like torch, only files of tensors need it
    # The library takes names in UTF-8 only. While a file is open it has another name, too.
    is_utf8 = str(path).encode(errors="replace") == os.fsencode(path)
    try:
        with safe_open(path if is_utf8 else f"/dev/fd/{file.fileno()}", framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except MemoryError:
        raise
    except OSError as failure:
        raise UserError(f"{path} cannot be read: {failure}") from None
    except Exception as failure:  # the library has one class for the header, others for a tensor
        if "allocate memory" in str(failure):
            raise
        raise Damaged(f"{path} is damaged: {failure}") from None
    return tensors, metadata


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


def cache_folder():
    """The folder for what can be computed again: `$ISOFLOP_CACHE`, or `isoflop` in the user's cache
    folder. It is never in the checkout. Raises UserError where it cannot be made or written."""
    folder = os.environ.get("ISOFLOP_CACHE")
    if not folder:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "isoflop"
    problem = None
    try:
        folder = path_of(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            problem = "it is read-only for you"
    except UserError:
        problem = "nobody knows the home folder that ~ stands for"
    except OSError as failure:
        problem = failure.strerror
    if problem:
        raise UserError(f"the cache folder {folder} cannot be written ({problem}): set "
                        "ISOFLOP_CACHE to a folder that you may write to")
    return folder


@contextlib.contextmanager
def locked(path, what):
    """Holds a lock, and waits for it where another process holds it. `what` says in the message
    what that process does, like "tokenizes the same text".

    The kernel frees the lock when its holder dies, so no lock is ever stale."""
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that {what} ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


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
    if not re.fullmatch(HUB_ID, str(name), re.ASCII):
        raise UserError(f"{name} does not exist, and is no hub id")
    try:
        return download(str(name), files)
    except Exception as failure:  # many classes: no network, no such id, no permission
        raise UserError(f"there is no folder {name}, and the hub did not give a model of that id "
                        f"({type(failure).__name__}): check the name and the network") from None


def download(name, files):
    """The folder into which files of a model are downloaded from the hub."""
    from huggingface_hub import snapshot_download  # here: slow, and seldom needed
    safe = [file for file in files if file != PICKLE]
    folder = Path(snapshot_download(name, allow_patterns=safe))
    if PICKLE in files and not any(folder.glob("model*.safetensors")):
        folder = Path(snapshot_download(name, allow_patterns=[PICKLE]))
    return folder


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
