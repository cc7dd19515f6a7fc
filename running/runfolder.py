"""A run's folder: settings, lock, checkpoints and log. It keeps three promises:

 1. A file is whole or absent, and damage is noticed (files/disk.py).
 2. One process at a time works in a folder. The kernel frees its lock when the process dies.
 3. A step is counted once. A checkpoint holds all that the next step depends on, with the log up to
    that step and a copy of run.json.

    runs/scratch-2x128/
        run.json     the settings, fixed at the start, and the results of a finished run
        lock         held while a process works in the folder
        log.jsonl    one JSON object a line
        checkpoint-000000000400.pt
                     weights, optimizer and step; the newest two are kept until the run is finished
"""
import errno
import json
import os
import re
import zipfile
from pathlib import Path

from files import disk
from program import cli
from program.cli import UserError

import torch


def identity(setup):
    """What makes a run of train.py this run and no other, as a dict: "settings" in its run.json. A
    folder is continued with an equal one only. setup: a train.Setup."""
    asked, student, teacher = setup.settings, setup.student, setup.teacher
    names = ("strategy", "text_column", "unique_tokens", "seq_len", "batch_size", "weight_decay",
             "warmup", "dropout", "seed")
    config = setup.learner.model.config
    settings = {name: getattr(asked, name) for name in names}
    settings |= {"data": list(asked.data), "betas": list(asked.betas), "lr": student.lr,
                 "flops_budget": asked.flops, "model": str(student.size),
                 "vocab_size": config.vocab_size, "initializer_range": config.initializer_range,
                 "dtype": setup.session.dtype, "device": setup.session.device.type,
                 "text_sha256": setup.corpus.fingerprint,
                 "words_sha256": words_sha256(setup.corpus.tokenizer)}
    if asked.start_from:
        settings["start_sha256"] = setup.start.sha256
    if teacher is None:
        own = "the start's" if setup.start else "made from the text"
        return settings | {"tokenizer": asked.tokenizer or own}
    return settings | {
        "tokenizer": asked.tokenizer or "the teacher's", "teacher_sha256": teacher.sha256,
        "teacher_model": str(setup.teacher_size), "init": asked.init,
        "mlm_finish": asked.mlm_finish, "temperature": asked.temperature,
        "relation_heads": asked.relation_heads, "teacher_layer": asked.teacher_layer}


def words_sha256(tokenizer):
    """A fingerprint of a tokenizer's words, their numbers, and how it spells them."""
    normalizer = json.loads(tokenizer.to_str())["normalizer"]
    return disk.fingerprint([sorted(tokenizer.get_vocab().items()), normalizer])


# Where the text comes from. It may move: what counts is its checksum, `text_sha256`.
PLACES = {"data", "text_column", "tokenizer"}
# What stands in a setting that is a checksum, or "charged", which finished runs of 2026 have.
CONTENTS = {"text_sha256": "its text, or how that is cut into words",
            "words_sha256": "its tokenizer's words", "teacher_sha256": "its teacher's weights",
            "start_sha256": "the weights that it begins with (--start-from)"}


def differences(old, new):
    """The names of the settings in which two runs differ, but for the places of equal texts."""
    return {key for key in (old.keys() | new.keys()) - PLACES - {"charged"}
            if old.get(key) != new.get(key)}


def check_same_settings(folder, old, new):
    """Raises UserError, which names the differences, unless a run's settings stay as they were."""
    if not isinstance(old, dict):
        raise UserError(f"{folder}/run.json is damaged: it has no settings")
    different = differences(old, new)
    if not different:
        return
    changes = [f"{key} was {old.get(key)} and is now {new.get(key)}"
               for key in sorted(different - CONTENTS.keys())]
    changes += [f"{CONTENTS[key]} changed" for key in CONTENTS if key in different]
    advice = "give the same settings to continue it, or another --out"
    if "flops_budget" in different and old["flops_budget"] < new["flops_budget"]:
        advice = ("its learning rate falls to zero where its FLOPs end: when it is finished give "
                  f"--start-from {folder} and another --out")
    raise UserError(f"{folder} holds a run with other settings ({'; '.join(changes)}): {advice}")


CHECKPOINT = re.compile(r"checkpoint-\d{12}\.pt")
LEFTOVER = disk.leftovers(r"run\.json|log\.jsonl|config\.json|tokenizer(_config)?\.json|README\.md"
                          r"|curve\.png|model\.safetensors|checkpoint-\d+\.pt")


def checkpoints(folder):
    """The paths of a folder's checkpoints, newest first."""
    paths = [path for path in folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]
    return sorted(paths, reverse=True)


def check_out(out):
    """Raises UserError where --out (None: runs/) cannot be written, or is another folder than a
    run's. train.py calls it first, since tokenizing may take hours."""
    disk.check_writable(Path(out or "runs"))
    if out:
        refuse_foreign(out)


def refuse_foreign(folder):
    """Raises UserError where `folder` holds files and is not a run's folder."""
    folder = Path(folder)
    if not folder.is_dir():
        return
    names = sorted(entry.name for entry in folder.iterdir())
    if "run.json" in names or any(CHECKPOINT.fullmatch(name) for name in names):
        return
    others = [name for name in names if name != "lock" and not LEFTOVER.fullmatch(name)]
    if others:
        raise UserError(f"{folder} holds other files ({', '.join(others[:3])}) and is not a run's "
                        "folder: choose another --out")


def write_state(path, state):
    """Writes a state, a dict of what torch.load opens again, to a file."""
    with open(path, "wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as failure:  # torch's own words hide what the disk has said
            raise failure.__context__ or failure from None


def read_checkpoint(path):
    """The state in a checkpoint, or None where the file is damaged: a zip archive of torch's has a
    CRC of each tensor. An error passes where it cannot be read, as without memory or permission."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # the name of a member that does not match its CRC
                return None
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as failure:  # zipfile and torch have many classes for what is no such archive
        # EINVAL: the archive's directory points to a place before its beginning.
        is_of_system = isinstance(failure, OSError) and failure.errno != errno.EINVAL
        if is_of_system or cli.is_out_of_memory(failure):
            raise
        return None


class Run:
    """A run's folder, locked for this process: `with Run(folder, settings) as run:`. Raises
    UserError where another process works there, or where it is not this run's folder."""

    def __init__(self, folder, settings):
        self.folder, self.settings = Path(folder), settings
        self.record = None   # the contents of run.json
        self.saved_log = ""  # the log at the loaded checkpoint

    def __enter__(self):
        refuse_foreign(self.folder)
        disk.make_folder(self.folder)
        try:
            self.lock = disk.locked(self.folder / "lock")
        except BlockingIOError:
            raise UserError(f"another process is working in {self.folder}: wait for it, or choose "
                            "another --out") from None
        try:
            self.load_record()
        except BaseException:
            self.lock.close()
            raise
        return self

    def __exit__(self, *_):
        self.lock.close()  # frees the lock

    def check_lock(self):
        """Raises UserError where the folder was removed in the meantime, or made anew."""
        path, ours = self.folder / "lock", os.fstat(self.lock.fileno())
        if not path.exists() or not os.path.samestat(path.stat(), ours):
            raise UserError(f"{self.folder} was removed or replaced while the run went on: nothing "
                            "more is written into it; choose another --out")

    def load_record(self):
        """Reads run.json, or the copy in a checkpoint, or begins it in memory: a run that fails
        before its first step leaves no settings behind."""
        for path in self.folder.iterdir():  # what a process left that died while it wrote
            if LEFTOVER.fullmatch(path.name):
                path.unlink()
        try:
            self.record = disk.optional_json(self.folder / "run.json")
        except disk.Damaged:
            if not checkpoints(self.folder):
                raise
        if not self.record:
            self.record = (self.newest_checkpoint() or {}).get("record")
        if self.record:
            check_same_settings(self.folder, self.record.get("settings"), self.settings)
        self.record = self.record or {"finished": False, "settings": self.settings}

    def write_record(self, **fields):
        """Sets some fields of run.json."""
        self.check_lock()
        self.record.update(fields)
        disk.write_json(self.folder / "run.json", self.record)

    @property
    def finished(self):
        return bool(self.record.get("finished"))

    def save_checkpoint(self, step, state):
        """Writes a checkpoint, and removes all but the newest two. state: a dict."""
        self.check_lock()
        whole = {"step": step, "record": self.record, "log": self.log_text(), **state}
        disk.replace(self.folder / f"checkpoint-{step:012d}.pt",
                     lambda temporary: write_state(temporary, whole))
        for old in checkpoints(self.folder)[2:]:
            old.unlink()

    def newest_checkpoint(self, settings=None):
        """The state in the newest whole checkpoint of a run with these settings (None: any), or
        None. Newer ones that are damaged, or are another run's, are set aside."""
        for path in checkpoints(self.folder):
            state = read_checkpoint(path)
            if state and (settings is None
                          or not differences(state["record"]["settings"], settings)):
                return state
            problem = "of a run with other settings" if state else "damaged"
            print(f"{path.name} is {problem}: set aside as {path.name}.bad")
            os.replace(path, f"{path}.bad")

    def load_checkpoint(self):
        """The state in this run's newest whole checkpoint, or None."""
        state = self.newest_checkpoint(self.settings)
        self.saved_log = state["log"] if state else ""
        return state

    def remove_checkpoints(self):
        """Removes all checkpoints, and those that were set aside."""
        for path in self.folder.glob("checkpoint-*"):
            if CHECKPOINT.fullmatch(path.name.removesuffix(".bad")):
                path.unlink()

    def rewind_log(self):
        """Sets the log back to the loaded checkpoint: the steps since then are run again."""
        disk.write_file(self.folder / "log.jsonl", self.saved_log)

    def log(self, **fields):
        """Appends a line to the log."""
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    def log_text(self):
        path = self.folder / "log.jsonl"
        return disk.read_text(path) if path.exists() else ""

    def read_log(self):
        return [json.loads(line) for line in self.log_text().splitlines()]
