"""A run's folder: its settings, lock, checkpoints and log. What makes a run impossible to lose.

Three promises, each kept by one mechanism (RELIABILITY.md says how they are tested):
 1. A file is whole or absent. `write_file`, `write_json` and `save_tensors` write a temporary file beside it, fsync, and rename.
 2. A damaged file is noticed. Tensors and JSON files carry a checksum of their contents, run.json the checksums of the model beside it.
 3. A step is counted once. A folder has one process at a time, and a checkpoint holds all that the next step depends on, the log
    up to there and a copy of run.json included.

    runs/scratch-2x128/
        run.json                  settings (fixed at the start) and results (when it is finished)
        lock                      held while a process works in the folder; the kernel frees it when the process dies
        checkpoint-000000000400.safetensors    weights, optimizer and step; the newest two are kept until the run is finished
        log.jsonl                 one JSON object a line
"""
import contextlib
import hashlib
import json
import os
import re
from pathlib import Path

import machine  # noqa: F401: before torch, since it says how torch's threads wait, and how memory is kept
from cli import UserError


class Damaged(UserError):
    """A file that is not what was written. What the system says of a file (no memory, no permission) is something else: nothing is given up for it."""


# ---------------------------------------------------------------------------------------------------------------------
# Files

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
    import torch
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
    import torch
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
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", str(name), re.ASCII):
        raise UserError(f"{name} does not exist, and is no hub id")
    try:
        from huggingface_hub import snapshot_download
        return Path(snapshot_download(str(name), allow_patterns=files))
    except Exception as failure:  # the hub's client has many: no network, no such id, no permission
        raise UserError(f"there is no folder {name}, and the hub did not give a model of that id "
                        f"({type(failure).__name__}): check the name and the network") from None


# ---------------------------------------------------------------------------------------------------------------------
# The folder

class Run:
    """A run's folder, locked for this process. Use as `with Run(folder, settings) as run:`.

    Raises UserError where another process works in it, it was begun with other settings, or it is some other folder."""

    def __init__(self, folder, settings):
        self.folder = Path(folder)
        self.settings = settings
        self.record = None  # run.json
        self.saved_log = ""  # the log at the loaded checkpoint

    def __enter__(self):
        import fcntl
        refuse_foreign(self.folder)
        make_folder(self.folder.absolute())
        self.lock = open(self.folder / "lock", "a")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise UserError(f"another process is working in {self.folder}: wait for it, or choose another --out") from None
        try:
            self.open()
        except BaseException:
            self.lock.close()
            raise
        return self

    def __exit__(self, *_):
        self.lock.close()  # and with it goes the lock

    def open(self):
        path = self.folder / "run.json"
        for leftover in self.folder.iterdir():
            if LEFTOVER.fullmatch(leftover.name):  # of a process that died while it wrote: we hold the lock, so it is gone
                leftover.unlink()
        recovered = None
        try:
            self.record = read_json(path) if path.exists() else None
        except Damaged as failure:
            self.record = failure
        if not isinstance(self.record, dict):  # a run that is under way has it once more in its checkpoint
            _, _, recovered = self.newest()
            if recovered is not None:
                print(f"run.json is {'damaged' if self.record else 'missing'}: taken from the checkpoint")
                self.record = json.loads(recovered["record"])
            elif self.record is not None:
                raise self.record
        if self.record is not None:
            compare(self.folder, self.record.get("settings"), self.settings)
        self.record = self.record or {"finished": False, "settings": self.settings}
        if recovered or not path.exists():
            self.write_record()

    def still_ours(self):
        """Raises UserError where the folder was removed meanwhile, and perhaps made again by another process: what is written goes by its name."""
        lock, mine = self.folder / "lock", os.fstat(self.lock.fileno())
        if not lock.exists() or (lock.stat().st_ino, lock.stat().st_dev) != (mine.st_ino, mine.st_dev):
            raise UserError(f"{self.folder} was removed or replaced while the run went on: nothing more is written into it; choose another --out")

    def write_record(self, **fields):
        self.still_ours()
        self.record.update(fields)
        write_json(self.folder / "run.json", self.record)

    @property
    def finished(self):
        return bool(self.record.get("finished"))

    # Checkpoints: `checkpoint-000000000400.safetensors`. Two are kept, so that a damaged one falls back to the one before.

    def checkpoints(self):
        """Paths, newest first."""
        return sorted((path for path in self.folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)), reverse=True)

    def save_checkpoint(self, step, tensors):
        self.still_ours()
        save_tensors(self.folder / f"checkpoint-{step:012d}.safetensors", tensors, step=step, record=json.dumps(self.record), log=self.log_text())
        for old in self.checkpoints()[2:]:
            old.unlink()

    def newest(self):
        """(step, tensors, metadata) of the newest whole checkpoint, (0, None, None) where there is none. One that is damaged is said, and set aside."""
        for path in self.checkpoints():
            try:
                tensors, metadata = load_tensors(path)
                if path.name == f"checkpoint-{int(metadata['step']):012d}.safetensors" and {"log", "record"} <= metadata.keys():
                    return int(metadata["step"]), tensors, metadata
            except (Damaged, KeyError, ValueError):
                pass
            self.set_aside(path, "damaged")
        return 0, None, None

    def set_aside(self, path, why):
        print(f"{path.name} is {why}: set aside as {path.name}.bad")
        os.replace(path, f"{path}.bad")

    def load_checkpoint(self):
        """(step, tensors) of this run's newest whole checkpoint, (0, None) where there is none: then it begins again, and says so."""
        had = bool(self.checkpoints())
        while True:
            step, tensors, metadata = self.newest()
            if tensors is None:
                if had:
                    print("no whole checkpoint is left: starting again from the first step")
                return 0, None
            if json.loads(metadata["record"]).get("settings") == self.settings:
                self.saved_log = metadata["log"]
                return step, tensors
            self.set_aside(self.checkpoints()[0], "of a run with other settings")

    def remove_checkpoints(self):
        for path in self.folder.glob("checkpoint-*"):
            if CHECKPOINT.fullmatch(path.name.removesuffix(".bad")):
                path.unlink()

    # The log: JSON objects, one a line

    def rewind_log(self):
        """To what it was at the loaded checkpoint: the steps since then are run again."""
        write_file(self.folder / "log.jsonl", self.saved_log)

    def log(self, **fields):
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    def log_text(self):
        path = self.folder / "log.jsonl"
        return read_text(path) if path.exists() else ""

    def read_log(self):
        return [json.loads(line) for line in self.log_text().splitlines()]


CHECKPOINT = re.compile(r"checkpoint-\d{12}\.safetensors")
LEFTOVER = re.compile(r"\.(run\.json|log\.jsonl|config\.json|tokenizer(_config)?\.json|README\.md|curve\.png|model\.safetensors|"
                      r"checkpoint-\d+\.safetensors)\.\d+\.tmp")  # the temporary names of what a run writes


def check_writable(folder):
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--out {folder} cannot be written: {existing} is {'read-only for you' if existing.is_dir() else 'a file'}")


def refuse_foreign(folder):
    """Raises UserError where `folder` holds files and is no run's folder: somebody's home is not written into."""
    folder = Path(folder)
    if folder.is_dir() and not (folder / "run.json").exists() and not any(CHECKPOINT.fullmatch(path.name) for path in folder.iterdir()):
        others = sorted(entry.name for entry in folder.iterdir() if entry.name != "lock" and not LEFTOVER.fullmatch(entry.name))
        if others:
            raise UserError(f"{folder} holds other files ({', '.join(others[:3])}{', ...' if others[3:] else ''}) and is no run's "
                            f"folder: choose another --out")


def compare(folder, old, new):
    """Raises UserError, naming the differences, unless a run in `folder` was begun with the settings it now gets."""
    if not isinstance(old, dict):
        raise UserError(f"{folder}/run.json is damaged: it has no settings")
    different = [f"{key} was {old.get(key)} and is now {new.get(key)}" for key in sorted(old.keys() | new.keys())
                 if old.get(key) != new.get(key)]
    if different and all(words.startswith("text_sha256") for words in different):
        raise UserError(f"{folder} holds a run on another text: it was edited, or is cut by another tokenizer; choose another --out")
    if different and all(words.startswith(("teacher_sha256", "teacher_model")) for words in different):
        raise UserError(f"{folder} holds the student of another teacher, or the teacher was changed: choose another --out")
    if different:
        raise UserError(f"{folder} holds a run with other settings ({'; '.join(different)}): "
                        f"give the same settings to continue it, or another --out")
