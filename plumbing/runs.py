"""A run's folder: its settings, lock, checkpoints and log. What makes a run impossible to lose.

Three promises, each kept by one mechanism (RELIABILITY.md says how they are tested):
 1. A file is whole or absent, and a damaged one is noticed (disk.py).
 2. A folder has one process at a time: the kernel frees its lock when the process dies.
 3. A step is counted once. A checkpoint holds all that the next step depends on, the log up to there and a copy of run.json included.

    runs/scratch-2x128/
        run.json                  settings (fixed at the start) and results (when it is finished)
        lock                      held while a process works in the folder
        checkpoint-000000000400.safetensors    weights, optimizer and step; the newest two are kept until the run is finished
        log.jsonl                 one JSON object a line
"""
import json
import os
import re
from pathlib import Path

from plumbing.cli import UserError
from plumbing.disk import (
    Damaged,
    leftovers,
    load_tensors,
    make_folder,
    read_json,
    read_text,
    save_tensors,
    write_file,
    write_json,
)

import torch


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
            check_same_settings(self.folder, self.record.get("settings"), self.settings)
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
        return checkpoints(self.folder)

    def save_checkpoint(self, step, tensors):
        self.still_ours()
        save_tensors(self.folder / f"checkpoint-{step:012d}.safetensors", tensors, step=step, record=json.dumps(self.record), log=self.log_text())
        for old in self.checkpoints()[2:]:
            old.unlink()

    def newest(self, settings=None):
        """(step, tensors, metadata) of the newest whole checkpoint, with `settings` of a run with these; (0, None, None) where there is none.
        Any other is said, and set aside."""
        for path in self.checkpoints():
            why = "damaged"
            try:
                tensors, metadata = load_tensors(path)
                record, step = json.loads(metadata["record"]), int(metadata["step"])
                if path.name == f"checkpoint-{step:012d}.safetensors" and "log" in metadata:
                    if settings is None or record.get("settings") == settings:
                        return step, tensors, metadata
                    why = "of a run with other settings"
            except (Damaged, KeyError, ValueError):
                pass
            print(f"{path.name} is {why}: set aside as {path.name}.bad")
            os.replace(path, f"{path}.bad")
        return 0, None, None

    def load_checkpoint(self):
        """(step, tensors) of this run's newest whole checkpoint, (0, None) where there is none: then it begins again, and says so."""
        had = self.checkpoints()
        step, tensors, metadata = self.newest(self.settings)
        if tensors is not None:
            self.saved_log = metadata["log"]
        elif had:
            print("no whole checkpoint is left: starting again from the first step")
        return step, tensors

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
LEFTOVER = leftovers(r"run\.json|log\.jsonl|config\.json|tokenizer(_config)?\.json|README\.md|curve\.png|model\.safetensors|"
                     r"checkpoint-\d+\.safetensors")  # of what a run writes


def checkpoints(folder):
    """Paths, newest first."""
    return sorted((path for path in folder.glob("checkpoint-*") if CHECKPOINT.fullmatch(path.name)), reverse=True)


def check_writable(folder):
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--out {folder} cannot be written: {existing} is {'read-only for you' if existing.is_dir() else 'a file'}")


def check_out(out):
    """Raises UserError where --out (None: runs/) cannot be written, or is no run's folder. That is
    said before hours of tokenizing."""
    check_writable(Path(out or "runs"))
    if out:
        refuse_foreign(out)


def refuse_foreign(folder):
    """Raises UserError where `folder` holds files and is no run's folder: somebody's home is not written into."""
    folder = Path(folder)
    if folder.is_dir() and not (folder / "run.json").exists() and not checkpoints(folder):
        others = sorted(entry.name for entry in folder.iterdir() if entry.name != "lock" and not LEFTOVER.fullmatch(entry.name))
        if others:
            raise UserError(f"{folder} holds other files ({', '.join(others[:3])}{', ...' if others[3:] else ''}) and is no run's "
                            f"folder: choose another --out")


def check_same_settings(folder, old, new):
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


def checkpoint(learner, optimizer, seconds, sums, logged):
    """All that the next step depends on, as tensors: weights, AdamW's two moments and its step (none yet for a part that no loss
    has reached); and the log's running sums of the loss's terms."""
    tensors = dict(learner.state_dict())
    for name, p in learner.named_parameters():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[p].items()}
    return tensors | {"seconds": torch.tensor(seconds, dtype=torch.float64), "sums": sums, "logged": torch.tensor(logged)}


def restore(loaded, learner, optimizer):
    """(step, seconds, running sums of the terms, their number) of a loaded checkpoint, whose weights and moments are put in place."""
    device, (step, tensors) = next(learner.parameters()).device, loaded
    if tensors is None:
        return 0, 0.0, torch.zeros(0, device=device), 0
    learner.load_state_dict({name: tensor for name, tensor in tensors.items() if name.startswith(("model.", "projection."))})
    for name, p in learner.named_parameters():
        if f"optimizer.{name}.step" in tensors:
            optimizer.state[p] = {key: tensors[f"optimizer.{name}.{key}"].to(device if key != "step" or device.type == "cuda" else "cpu")
                                  for key in ("step", "exp_avg", "exp_avg_sq")}
    return step, tensors["seconds"].item(), tensors["sums"].to(device), tensors["logged"].item()


def settings_of(args, student, corpus, teacher, config, session):
    """What makes two runs the same. A run's folder is continued with equal settings only."""
    names = ("strategy", "data", "text_column", "unique_tokens", "seq_len", "batch_size", "lr",
             "betas", "weight_decay", "warmup", "dropout", "seed")
    settings = {name: getattr(args, name) for name in names}
    settings |= {"flops_budget": args.flops, "model": str(student.size),
                 "vocab_size": config.vocab_size, "initializer_range": config.initializer_range,
                 "dtype": session.dtype, "device": session.device.type,
                 "text_sha256": corpus.fingerprint}
    if teacher is None:
        settings["tokenizer"] = args.tokenizer or "made from the text"
        return settings
    return settings | {
        "tokenizer": args.tokenizer or "the teacher's", "teacher_sha256": teacher.sha256,
        "teacher_model": str(teacher.model.config.size), "init": args.init,
        "mlm_finish": args.mlm_finish, "temperature": args.temperature,
        "relation_heads": args.relation_heads, "teacher_layer": args.teacher_layer}
