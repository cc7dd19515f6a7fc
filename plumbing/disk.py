"""Files: what is written is whole or absent, and what is read is what was written.

`write_file`, `write_json` and `save_tensors` write a temporary file beside the place, fsync, and rename. Tensors and JSON files carry a checksum
of their contents, and a run's folder the checksums of its files: whoever reads them compares, and damage is an error that has a name.
"""
import contextlib
import hashlib
import json
import os
import re
from pathlib import Path

from plumbing.cli import UserError


class Damaged(UserError):
    """A file that is not what was written. What the system says of a file (no memory, no permission) is something else: nothing is given up for it."""


def replace(path, write):
    """Calls write(temporary path) and renames the result to `path`: after a crash at any moment, `path` is the old file or
    the new one. fsync before the rename, else a power loss may leave a renamed file without its contents."""
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
    """A pattern of the temporary names in `replace` of files whose names match `names`: of a process that died while it wrote."""
    return re.compile(rf"\.({names})\.\d+\.tmp")


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path):
    """Also after a power loss it is there: a folder's name is written in the folder above it."""
    if not path.exists():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def file_sha256(*paths):
    sha256 = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(2 ** 22):
                sha256.update(chunk)
    return sha256.hexdigest()


def json_text(value):
    return json.dumps(value, indent=2) + "\n"


def write_file(path, text):
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def checksum(value):
    """Of a JSON value: the first 16 digits of its text's SHA-256."""
    return hashlib.sha256(json_text(value).encode()).hexdigest()[:16]


def write_json(path, value):
    """Writes a dict as JSON, with a checksum of it as its last entry, which `read_json` compares."""
    write_file(path, json_text({**value, "checksum": checksum(value)}))


def digest(tensors, metadata):
    """SHA-256 over names, types, shapes and bytes of a dict of tensors, and over what is told beside them."""
    import torch  # here: programs without tensors read and write files, too
    told = {key: value for key, value in metadata.items() if key not in ("format", "sha256")}
    total = hashlib.sha256(json.dumps(told, sort_keys=True).encode() if told else b"")
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        total.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return total.hexdigest()


DTYPES = {"torch.float32": "F32", "torch.float64": "F64", "torch.int64": "I64"}


def save_tensors(path, tensors, **metadata):
    """Writes a dict of tensors as safetensors, whole or not at all, with their digest in its metadata.

    The format is 8 bytes of header length, a JSON header, the tensors' bytes. It is written here because the library orders
    the metadata at random, and the same weights shall be the same file, byte for byte."""
    import torch  # here: programs without tensors read and write files, too
    tensors = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    metadata = {"format": "pt", **{key: str(value) for key, value in metadata.items()}}
    header, end = {"__metadata__": {**metadata, "sha256": digest(tensors, metadata)}}, 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[str(tensor.dtype)], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors begin at a multiple of 8

    def write(temporary):
        with open(temporary, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for tensor in tensors.values():
                file.write(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    replace(path, write)


def load_tensors(path):
    """(tensors, metadata) of a safetensors file. Raises Damaged where it is that: the digest, if it has one, is compared."""
    from safetensors import safe_open
    if not Path(path).exists():
        raise UserError(f"{path} does not exist")
    if not Path(path).is_file():
        raise UserError(f"{path} is not a file")
    with open(path, "rb"):
        pass  # what the system has to say, it says here; the library says it without a number
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except MemoryError:
        raise
    except OSError as failure:
        raise UserError(f"{path} cannot be read: {failure}") from None
    except Exception as failure:  # its own for the header, others for a tensor
        if "allocate memory" in str(failure):
            raise
        raise Damaged(f"{path} is damaged: {failure}") from None
    if "sha256" in metadata and metadata["sha256"] != digest(tensors, metadata):
        raise Damaged(f"{path} is damaged: its contents do not match the checksum that was saved with them")
    return tensors, metadata


def read_text(path, most=2 ** 28):
    """The text of a file. Raises UserError where it is no plain file (a device has no end), beyond `most` bytes, or not UTF-8."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise UserError(f"{path} is too large: {size:,} bytes")
        try:
            return file.read(size).decode("utf-8")  # no more than there is: some files of the system never end
        except UnicodeDecodeError:
            raise Damaged(f"{path} is damaged: it is not UTF-8 text") from None


def read_json(path):
    """A JSON object from a file. Raises Damaged where it is something else, or not what `write_json` wrote."""
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Damaged(f"{path} is damaged: it is not a JSON object")
    if value.pop("checksum", None) not in (None, checksum(value)):
        raise Damaged(f"{path} is damaged, or was edited: it does not match its checksum")
    return value


def path_of(name):
    """A path as a user writes it, with `~`. Raises UserError where there is no such home."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise UserError(f"{name}: the home folder that ~ stands for is not known here; write it out") from None


def cache_folder():
    """`$ISOFLOP_CACHE`, or `isoflop` in the user's cache folder: never the checkout."""
    base = os.environ.get("ISOFLOP_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "isoflop"
    folder = path_of(base)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path, what):
    """A lock among processes that the kernel frees when its holder dies: no stale locks. A second process waits."""
    import fcntl
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that {what} ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


HUB_ID = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"


def fetch(name, files):
    """The folder of a model or tokenizer: `name` itself where it is a local folder, else the hub's, downloaded.

    Only `files` are fetched, so neither pickles nor code come along. Those of a run are compared with the checksums in its run.json."""
    folder = path_of(name)
    if folder.is_dir():
        left = read_json(folder / "run.json").get("files", {}) if (folder / "run.json").exists() else {}
        if not isinstance(left, dict):
            raise Damaged(f"{folder}/run.json is damaged: its list of files is none")
        for file in (folder / file for file in files):
            if file.exists() and not file.is_file():
                raise UserError(f"{file} is not a file")
            if file.name in left and (not file.exists() or left[file.name] != file_sha256(file)):
                advice = "the model itself is whole" if file.name == "log.jsonl" else f"remove {folder}, and its command makes it again"
                raise Damaged(f"{file} is {'damaged, or was edited' if file.exists() else 'missing'}: it is not what the run left there; {advice}")
        return folder
    if folder.exists():
        raise UserError(f"{name} is a file, not a folder")
    if not re.fullmatch(HUB_ID, str(name), re.ASCII):
        raise UserError(f"{name} does not exist, and is no hub id")
    try:
        from huggingface_hub import snapshot_download
        return Path(snapshot_download(str(name), allow_patterns=files))
    except Exception as failure:  # the hub's client has many: no network, no such id, no permission
        raise UserError(f"there is no folder {name}, and the hub did not give a model of that id "
                        f"({type(failure).__name__}): check the name and the network") from None


def fingerprint(value):
    """A short name for anything that JSON can write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]
