"""A run's folder: settings, lock, checkpoints and log. It makes a run impossible to lose.

Three promises are kept, each by one mechanism (docs/RELIABILITY.md says how they are tested):

 1. A file is whole or absent, and damage is noticed (plumbing/disk.py).
 2. One process at a time works in a folder. The kernel frees its lock when the process dies.
 3. A step is counted once. A checkpoint holds all that the next step depends on, with the log up to
    that step and a copy of run.json.

    runs/scratch-2x128/
        run.json     the settings, fixed at the start, and the results of a finished run
        lock         held while a process works in the folder
        log.jsonl    one JSON object a line
        checkpoint-000000000400.safetensors
                     weights, optimizer and step; the newest two are kept until the run is finished

From top to bottom: what makes two runs the same, which folders are a run's, the state that a
checkpoint holds, and the folder itself, `Run`.
"""
import fcntl
import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from plumbing import cli
from plumbing.cli import UserError
from plumbing.disk import (
    Damaged,
    check_writable,
    fingerprint,
    leftovers,
    load_tensors,
    make_folder,
    open_lock,
    read_json,
    read_text,
    save_tensors,
    take_lock,
    write_file,
    write_json,
)

import torch

# --------------------------------------------------------------------------------------------------
# The settings: what makes two runs the same


WHOLE = "both passes whole, with both heads"


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
    if student.lesson.whole:
        settings["charged"] = WHOLE
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


# Where the text comes from. It may move: what counts is its checksum, `text_sha256`.
PLACES = {"data", "text_column", "tokenizer"}
# What a run without --model and --lr chooses by its budget, or has from its start.
CHOSEN = {"model", "lr", "initializer_range"}
NEW = {"words_sha256"}  # what the settings of an earlier version's run do not say


def differences(old, new):
    """The names of the settings in which two runs differ. The same text at another place makes no
    other run."""
    unsaid = NEW - old.keys()
    return {key for key in (old.keys() | new.keys()) - PLACES - unsaid
            if old.get(key) != new.get(key)}


def words_sha256(tokenizer):
    """A fingerprint of a tokenizer's words, their numbers, and how it spells them. Two tokenizers
    may cut one text alike and differ in a word that the text lacks, such as [MASK]."""
    normalizer = json.loads(tokenizer.to_str())["normalizer"]
    return fingerprint([sorted(tokenizer.get_vocab().items()), normalizer])


def check_same_settings(folder, old, new, finished=False):
    """Raises UserError, which names the differences, unless the settings `old` of the run in
    `folder` are those that it gets now. finished: whether that run is."""
    if not isinstance(old, dict):
        raise UserError(f"{folder}/run.json is damaged: it has no settings")
    different = differences(old, new)
    if not different:
        return
    different |= {key for key in PLACES if old.get(key) != new.get(key)}
    if different == {"words_sha256"}:
        raise UserError(f"{folder} holds a run with another tokenizer, which cuts this text alike "
                        "and numbers other words differently: choose another --out")
    if "text_sha256" in different and different <= {"text_sha256", "words_sha256"}:
        raise UserError(f"{folder} holds a run on another text: the text was edited, or is cut by "
                        "another tokenizer, or an earlier version of this program made other "
                        "documents of it; choose another --out")
    if different <= {"teacher_sha256", "teacher_model"}:
        raise UserError(f"{folder} holds the student of another teacher, or the teacher was "
                        "changed: choose another --out")
    if "start_sha256" in different and different - PLACES <= {"start_sha256", *CHOSEN}:
        raise UserError(f"{folder} holds a run that began with other weights (--start-from), or "
                        "they were changed: choose another --out")
    is_larger = "flops_budget" in different and old["flops_budget"] < new["flops_budget"]
    if is_larger and different - PLACES <= {"flops_budget", *CHOSEN}:
        raise UserError(why_it_cannot_go_on(folder, old["flops_budget"], new["flops_budget"],
                                            finished))
    changes = [f"{key} was {old.get(key)} and is now {new.get(key)}" for key in sorted(different)]
    raise UserError(f"{folder} holds a run with other settings ({'; '.join(changes)}): give the "
                    "same settings to continue it, or another --out")


def why_it_cannot_go_on(folder, old, new, finished):
    """Why the run in `folder` does not take a larger budget, and what to do."""
    schedule = (f"{folder} holds a run of {cli.flops(old)} FLOPs, whose learning rate falls to "
                f"zero where they end, so it cannot go on to {cli.flops(new)}: ")
    if finished:
        return (f"{schedule}give --start-from {folder} and another --out, and a new run begins "
                "with its weights")
    return f"{schedule}finish it with its own --flops, or choose another --out"


# --------------------------------------------------------------------------------------------------
# Which folders are a run's

CHECKPOINT = re.compile(r"checkpoint-\d{12}\.safetensors")
# Temporary names of the files that a run writes.
LEFTOVER = leftovers(r"run\.json|log\.jsonl|config\.json|tokenizer(_config)?\.json|README\.md"
                     r"|curve\.png|model\.safetensors|checkpoint-\d+\.safetensors")


def checkpoint_name(step):
    """The name of the file for the checkpoint after `step` steps."""
    return f"checkpoint-{step:012d}.safetensors"


def checkpoints(folder):
    """The paths of a folder's checkpoints, newest first."""
    paths = [path for path in folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)]
    return sorted(paths, reverse=True)


def check_out(out):
    """Raises UserError where --out (None: runs/) cannot be written, or is another folder than a
    run's. train.py calls it first, since tokenizing may take hours."""
    check_writable(Path(out or "runs"))
    if out:
        refuse_foreign(out)


def refuse_foreign(folder):
    """Raises UserError where `folder` holds files and is not a run's folder: nothing is written
    among somebody's own files."""
    folder = Path(folder)
    if not folder.is_dir():
        return
    # One look: another process may begin a run here meanwhile, and that one is no foreigner.
    names = sorted(entry.name for entry in folder.iterdir())
    if "run.json" in names or any(CHECKPOINT.fullmatch(name) for name in names):
        return
    others = [name for name in names if name != "lock" and not LEFTOVER.fullmatch(name)]
    if others:
        examples = ", ".join(others[:3]) + (", ..." if others[3:] else "")
        raise UserError(f"{folder} holds other files ({examples}) and is not a run's folder: "
                        "choose another --out")


# --------------------------------------------------------------------------------------------------
# The state that a checkpoint holds


def checkpoint(learner, optimizer, seconds, sums, logged):
    """All that the next step depends on, as {name: tensor}: the weights, AdamW's two moments and
    step of each weight, the seconds so far, and the loss's terms summed since the last line of the
    log, `sums`, over `logged` steps.

    A weight that no loss has reached yet has no moments."""
    tensors = dict(learner.state_dict())
    for name, p in learner.named_parameters():
        for key, value in optimizer.state[p].items():
            tensors[f"optimizer.{name}.{key}"] = value
    tensors["seconds"] = torch.tensor(seconds, dtype=torch.float64)
    tensors["sums"] = sums
    tensors["logged"] = torch.tensor(logged)
    return tensors


def restore(loaded, learner, optimizer):
    """Puts weights and moments of a loaded checkpoint, (step, tensors), into place. Returns
    (step, seconds, sums, logged) as `checkpoint` got them: zeros where tensors is None."""
    step, tensors = loaded
    device = next(learner.parameters()).device
    if tensors is None:
        return 0, 0.0, torch.zeros(0, device=device), 0
    weights = {name: tensor for name, tensor in tensors.items()
               if name.startswith(("model.", "projection."))}
    learner.load_state_dict(weights)
    # AdamW keeps its step beside the weight on a GPU, and on the CPU otherwise.
    step_device = device if device.type == "cuda" else "cpu"
    for name, p in learner.named_parameters():
        prefix = f"optimizer.{name}."
        if prefix + "step" in tensors:
            optimizer.state[p] = {"step": tensors[prefix + "step"].to(step_device),
                                  "exp_avg": tensors[prefix + "exp_avg"].to(device),
                                  "exp_avg_sq": tensors[prefix + "exp_avg_sq"].to(device)}
    return step, tensors["seconds"].item(), tensors["sums"].to(device), tensors["logged"].item()


class Loaded(NamedTuple):
    """A checkpoint as it was read from its file."""
    step: int
    tensors: dict
    record: dict  # run.json when it was saved
    log: str      # log.jsonl when it was saved


def read_checkpoint(path):
    """The checkpoint in a file, as a Loaded, or None where the file is damaged. Where it merely
    cannot be read, the error passes: such a file may be whole."""
    try:
        tensors, metadata = load_tensors(path)
        loaded = Loaded(int(metadata["step"]), tensors, json.loads(metadata["record"]),
                        metadata["log"])
    except (Damaged, KeyError, ValueError):
        return None
    return loaded if path.name == checkpoint_name(loaded.step) else None


# --------------------------------------------------------------------------------------------------
# The folder


class Run:
    """A run's folder, locked for this process: `with Run(folder, settings) as run:`.

    Raises UserError where another process works in the folder, where its run was begun with other
    settings, or where it is not a run's folder."""

    def __init__(self, folder, settings):
        self.folder = Path(folder)
        self.settings = settings
        self.record = None   # the contents of run.json
        self.saved_log = ""  # the log at the loaded checkpoint

    def __enter__(self):
        refuse_foreign(self.folder)
        make_folder(self.folder)
        self.lock = open_lock(self.folder / "lock")
        try:
            self.acquire_lock()
            self.load_record()
        except BaseException:
            self.lock.close()
            raise
        return self

    def __exit__(self, *_):
        self.lock.close()  # frees the lock

    def acquire_lock(self):
        try:
            take_lock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is working in {self.folder}: wait for it, or choose "
                            "another --out") from None

    def check_lock(self):
        """Raises UserError where the folder was removed in the meantime. Another process may have
        made a new one of the same name, and nothing may be written into that."""
        path, ours = self.folder / "lock", os.fstat(self.lock.fileno())
        if not path.exists() or not os.path.samestat(path.stat(), ours):
            raise UserError(f"{self.folder} was removed or replaced while the run went on: nothing "
                            "more is written into it; choose another --out")

    # run.json

    def load_record(self):
        """Reads run.json, or begins it in memory: a new run writes it with its first
        `write_record`, so that one that fails before its first step leaves no settings behind. A
        run that was under way has a copy of it in its checkpoints, from which a damaged or missing
        one is taken."""
        self.remove_leftovers()
        path, damage = self.folder / "run.json", None
        try:
            self.record = read_json(path) if path.exists() else None
        except Damaged as failure:
            damage = failure
        is_recovered = False
        if self.record is None:
            is_recovered = self.recover_record("damaged" if damage else "missing")
        if self.record is None and damage:
            raise damage
        if self.record is not None:
            check_same_settings(self.folder, self.record.get("settings"), self.settings,
                                self.finished)
        self.record = self.record or {"finished": False, "settings": self.settings}
        if is_recovered:
            self.write_record()

    def remove_leftovers(self):
        """Removes the temporary files of a process that died while it wrote. We hold the lock, so
        that process is gone."""
        for path in self.folder.iterdir():
            if LEFTOVER.fullmatch(path.name):
                path.unlink()

    def recover_record(self, problem):
        """Takes run.json from the newest whole checkpoint. Returns whether there is one."""
        loaded = self.newest_checkpoint()
        if loaded is None:
            return False
        print(f"run.json is {problem}: taken from the checkpoint")
        self.record = loaded.record
        return True

    def write_record(self, **fields):
        """Sets some fields of run.json."""
        self.check_lock()
        self.record.update(fields)
        write_json(self.folder / "run.json", self.record)

    @property
    def finished(self):
        return bool(self.record.get("finished"))

    # Checkpoints. Two are kept: where the newest is damaged, the run continues from the other one.

    def checkpoints(self):
        return checkpoints(self.folder)

    def save_checkpoint(self, step, tensors):
        """Writes a checkpoint, and removes all but the newest two."""
        self.check_lock()
        save_tensors(self.folder / checkpoint_name(step), tensors, step=step,
                     record=json.dumps(self.record), log=self.log_text())
        for old in self.checkpoints()[2:]:
            old.unlink()

    def newest_checkpoint(self, settings=None):
        """The newest whole checkpoint of a run with these settings (None: with any), as a Loaded,
        or None. Newer ones that are damaged, or are another run's, are set aside."""
        for path in self.checkpoints():
            loaded = read_checkpoint(path)
            if loaded is None:
                problem = "damaged"
            elif settings is not None and differences(loaded.record.get("settings", {}), settings):
                problem = "of a run with other settings"
            else:
                return loaded
            print(f"{path.name} is {problem}: set aside as {path.name}.bad")
            os.replace(path, f"{path}.bad")
        return None

    def load_checkpoint(self):
        """(step, tensors) of this run's newest whole checkpoint, or (0, None)."""
        had_any = bool(self.checkpoints())
        loaded = self.newest_checkpoint(self.settings)
        if loaded is None:
            if had_any:
                print("no whole checkpoint is left: starting again from the first step")
            return 0, None
        self.saved_log = loaded.log
        return loaded.step, loaded.tensors

    def remove_checkpoints(self):
        """Removes all checkpoints, and those that were set aside."""
        for path in self.folder.glob("checkpoint-*"):
            if CHECKPOINT.fullmatch(path.name.removesuffix(".bad")):
                path.unlink()

    # The log: JSON objects, one a line.

    def rewind_log(self):
        """Sets the log back to the loaded checkpoint: the steps since then are run again."""
        write_file(self.folder / "log.jsonl", self.saved_log)

    def log(self, **fields):
        """Appends a line to the log."""
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(fields) + "\n")

    def log_text(self):
        path = self.folder / "log.jsonl"
        return read_text(path) if path.exists() else ""

    def read_log(self):
        return [json.loads(line) for line in self.log_text().splitlines()]
