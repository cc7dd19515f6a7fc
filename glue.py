"""Fine-tune a student and score it: on GLUE, or on the embedded world's own tasks.

    python glue.py runs/student                                          the embedded tasks, offline
    python glue.py runs/student --data glue_data --tasks cola,mrpc,rte   GLUE's own files
    python glue.py bert-base-uncased --data nyu-mll/glue --grid paper    from the hub

This is the number by which strategies are compared. The protocol is the same for every student: a
pooled vector, one linear layer, the whole model fine-tuned with linear warmup and decay. Of a grid
of learning rates and batch sizes (GRIDS) the setting with the best development score
counts, with its mean and standard deviation over seeds. Each finished cell of the grid is kept in
`glue.json`, so that a killed run continues with the next one.

On GLUE the vector is BERT's pooled [CLS], on the embedded tasks the pooled mean over all tokens:
without next-sentence prediction no loss reads [CLS] in pretraining (docs/LOG.md).

Shapes: B texts, T tokens of the longest of them, h hidden size.
"""
import math
import time
import warnings
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from files import checkpoints, disk, gluefiles, wordpiece
from files.checkpoints import read_config
from files.gluefiles import finished_cell
from files.teachers import fetch_model
from program import cli, progress
from program.cli import UserError, whole
from program.settings import option, parsed
from running import machine, options
from running.options import place

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from data import generator
from distill import mlm_loss
from measure import minimal_pairs
from measure.scores import results_of, scores_of
from model import Bert, BertConfig
from reporting.words import scores_table
from train import adamw, learning_rate
from world import tasks as world_tasks

WARMUP, WEIGHT_DECAY = 0.06, 0.01  # as in pretraining
WINDOW = 16                        # batches that are sorted by length together

# The cells of a grid are its learning rates times its batch sizes. `by_width`: the rates are those
# for h = 768, and go up as models get narrower, like pretraining's.
GRIDS = {
    "paper": {"lr": (1e-5, 3e-5, 5e-5, 8e-5), "batch_size": (16, 32), "epochs": 5},
    "quick": {"lr": (8e-5,), "batch_size": (16,), "epochs": 2, "by_width": True},
    "stories": {"lr": (6e-5,), "batch_size": (16,), "epochs": 10, "by_width": True},
    "stories-short": {"lr": (8e-5,), "batch_size": (16,), "epochs": 8, "by_width": True},
}

# ---- Settings ------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Settings:
    """How a model is scored: the options of the command line. None stands for what its help calls
    the default (options.scoring)."""
    model: tuple = option((), "a run's or a BERT's folder, or a hub id", place, nargs="*",
                          positional=True)
    data: str = option("stories", "stories (default), a folder with GLUE's files, or a hub id: "
                       "nyu-mll/glue", metavar="DATA")
    tasks: str = option("all", f"all (default), or some of {', '.join(gluefiles.EMBEDDED)}; "
                        f"{', '.join(gluefiles.GLUE)}", metavar="A,B")
    grid: str = option(None, "of settings (default: stories or quick)", choices=list(GRIDS))
    pool: str = option(None, "what is classified: [CLS], or the mean over tokens (default: mean "
                       "for the embedded tasks, else cls)", choices=["cls", "mean"])
    seeds: int = option(3, "fine-tunings of each cell (default: %(default)s)", whole(1, 1000), "n")
    seq_len: int = option(128, "longer texts are cut (default: %(default)s)", whole(8, 4096), "T")
    dtype: str = option("auto", "auto: bf16 where it is fast", choices=["auto", "fp32", "bf16"])
    device: str = option("auto", "auto (default), cpu, cuda, cuda:1, mps", metavar="D")
    out: str = option(None, "where glue.json goes (default: the model's folder)", place, "FOLDER")


def read_settings(words=None):
    """The Settings that a command line asks for (train.read_settings)."""
    return options.scoring(parsed(Settings, __doc__, words))


# ---- Batches -------------------------------------------------------------------------------------

def encode(examples, tokenizer, longest):
    """Examples -> ([(ids, token types)], how many were cut to `longest` tokens)."""
    tokenizer.enable_truncation(longest)
    texts = [first if second is None else (first, second) for first, second, _ in examples]
    encoded = tokenizer.encode_batch(texts)
    cut = sum(bool(encoding.overflowing) for encoding in encoded)
    return [(encoding.ids, encoding.type_ids) for encoding in encoded], cut


def batches_by_length(lengths, batch_size, rng=None):
    """Batches of indices of texts with similar lengths, for little padding. With rng the texts are
    shuffled, sorted by length within windows of 16 batches, and the batches shuffled, so that the
    order stays random. Without rng they are sorted."""
    lengths = np.asarray(lengths)
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    window = len(lengths) if rng is None else WINDOW * batch_size
    batches = []
    for start in range(0, len(order), window):
        indices = order[start:start + window]
        indices = indices[np.argsort(lengths[indices], kind="stable")]
        batches += [indices[i:i + batch_size] for i in range(0, len(indices), batch_size)]
    return batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]


def collate(encoded, chosen, pad, device):
    """The chosen texts, padded to the longest: input_ids, attention_mask (None where all are
    equally long) and token_type_ids, each (B, T)."""
    T, rows = max(len(encoded[i][0]) for i in chosen), []
    for i in chosen:
        ids, types = encoded[i]
        padding = T - len(ids)
        rows.append([[*ids, *[pad] * padding], [*types, *[0] * padding],
                     [*[1] * len(ids), *[0] * padding]])
    ids, types, mask = torch.tensor(rows, dtype=torch.long).unbind(1)  # (B, 3, T) -> three (B, T)
    return ids.to(device), None if mask.all() else mask.to(device), types.to(device)


# ---- Fine-tuning ---------------------------------------------------------------------------------

class Classifier(nn.Module):
    """A BERT with a pooler (fresh, where its file has none) and a linear layer."""

    def __init__(self, name, outputs, seed, pool="cls"):
        super().__init__()
        self.bert = Bert.from_pretrained(name, mlm_head=False)
        self.pool, config = pool, self.bert.config
        h, self.dropout = config.hidden_size, config.hidden_dropout_prob  # as in pretraining
        torch.manual_seed(seed)
        pooler, self.linear = nn.Linear(h, h), nn.Linear(h, outputs)
        for part in (pooler, self.linear):
            self.bert.initialise(part)
        self.bert.pooler = self.bert.pooler or pooler

    def forward(self, ids, mask, types):
        """ids (B, T), mask (B, T) or None, types (B, T) -> (B, outputs)."""
        types = types.clamp(max=self.bert.config.type_vocab_size - 1)
        output = self.bert(ids, mask, types)
        # pooled = tanh(W_P x_[CLS] + b_P), or tanh(W_P mean_t x_t + b_P)
        pooled = output.pooler_output                                       # (B, h)
        if self.pool == "mean":
            x = output.last_hidden_state                                    # (B, T, h)
            m = (torch.ones_like(ids) if mask is None else mask)[:, :, None]  # (B, T, 1)
            mean = (x * m).sum(1) / m.sum(1)                                # (B, h)
            pooled = torch.tanh(self.bert.pooler(mean.to(x.dtype)))
        # logits = W Dropout(pooled) + b
        return self.linear(F.dropout(pooled, self.dropout, self.training))


class Setting(NamedTuple):
    """A model to score, and how it is fine-tuned on whatever task."""
    source: Path              # its folder
    device: torch.device
    dtype: str
    pool: str = "cls"
    tokenizer: object = None
    pad: int = 0
    longest: int = 128        # tokens: longer texts are cut


def fine_tune(task, encoded, cell, setting, advance=lambda: None):
    """Fine-tunes on task.parts["train"], which is [(first text, second or None, label)]. Returns
    predict(part) -> the labels, or scores, that the model gives to a part's texts.

    encoded: {part: [(ids, types)]}. cell: "lr", "batch_size", "epochs", "seed". advance is called
    after each step. The same arguments give the same model."""
    device, pad, seed = setting.device, setting.pad, cell["seed"]
    outputs = len(task.labels) if task.labels else 1
    model = Classifier(setting.source, outputs, seed, setting.pool).to(device).train()
    optimizer = adamw(model, weight_decay=WEIGHT_DECAY)
    texts = encoded["train"]
    labels = torch.tensor([label for _, _, label in task.parts["train"]], device=device)
    lengths, step = [len(ids) for ids, _ in texts], 0
    steps = cell["epochs"] * math.ceil(len(texts) / cell["batch_size"])
    for epoch in range(cell["epochs"]):
        for chosen in batches_by_length(lengths, cell["batch_size"], generator(seed, epoch)):
            with machine.autocast(device, setting.dtype):
                logits = model(*collate(texts, chosen, pad, device)).float()
            y = labels[torch.from_numpy(chosen).to(device)]
            if task.labels:
                loss = mlm_loss(logits, y)                      # cross-entropy
            else:
                loss = (logits.squeeze(1) - y).square().mean()  # (B, 1) -> (B,): a score
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, cell["lr"], WARMUP)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            advance()

    def predict(part):
        model.eval()
        out = torch.empty(len(encoded[part]))
        with torch.no_grad(), machine.autocast(device, setting.dtype):
            for chosen in batches_by_length([len(ids) for ids, _ in encoded[part]], 128):
                logits = model(*collate(encoded[part], chosen, pad, device)).float().cpu()
                answers = logits.argmax(1).float() if task.labels else logits.squeeze(1)
                out[torch.from_numpy(chosen)] = answers
        return out.numpy()
    return predict


# ---- The grid ------------------------------------------------------------------------------------

def cells_of(settings, tasks, h, model_sha256, dtype, device):
    """[(task, cell)] of all fine-tunings that the command line asks for. A cell says how, with
    which seed, and of what model and examples."""
    grid = GRIDS[settings.grid]
    rate_factor = 768 / h if grid.get("by_width") else 1
    common = {"epochs": grid["epochs"], "seq_len": settings.seq_len, "pool": settings.pool,
              "model_sha256": model_sha256[:16], "data": settings.data, "dtype": dtype,
              "device": device}
    cells = []
    for task in tasks:
        of_task = {"task": task.name, "examples_sha256": task.fingerprint, **common}
        for lr, batch_size, seed in product(grid["lr"], grid["batch_size"], range(settings.seeds)):
            cell = {"lr": lr * rate_factor, "batch_size": batch_size, "seed": seed}
            cells.append((task, {**of_task, **cell}))
    return cells


def open_model(settings, name):
    """(Setting, hidden size) of the model to score. Raises UserError for what is wrong with it,
    before any work is done."""
    device, dtype = machine.select(settings.device, settings.dtype)
    source = fetch_model(name, option="")
    config = read_config(source, BertConfig)
    tokenizer = wordpiece.load_tokenizer(str(source))
    vocabulary = wordpiece.vocabulary_of(tokenizer)
    if vocabulary.size > config.vocab_size:
        raise UserError(f"{name} has {config.vocab_size:,} word embeddings, and its tokenizer "
                        f"{vocabulary.size:,} words: they do not belong together")
    model = Bert.from_pretrained(source, mlm_head=False)  # raises now, and not after an hour
    if model.pooler is None and settings.pool == "cls":
        cli.say(f"{name} has no pooler: each fine-tuning begins with a fresh one")
    longest = min(settings.seq_len, config.max_position_embeddings)
    setting = Setting(source, device, dtype, settings.pool, tokenizer, vocabulary.pad, longest)
    return setting, config.hidden_size


def score(settings, name, folder):
    """Fine-tunes what `glue.json` in `folder` does not hold yet -> {task: its summary}."""
    tasks, skipped = gluefiles.load_tasks(settings.data, settings.tasks, world_tasks.examples)
    for line in skipped:
        cli.say(f"skipped: {line}")
    setting, h = open_model(settings, name)
    sha256 = checkpoints.model_sha256(setting.source)
    disk.make_folder(folder)
    path = folder / "glue.json"
    with disk.locked(folder / "glue.lock", "scores the same model"):
        kept = gluefiles.read_glue_json(path)
        wanted = cells_of(settings, tasks, h, sha256, setting.dtype, setting.device.type)
        waiting = [(task, cell) for task, cell in wanted if finished_cell(kept, cell) is None]
        run_cells(waiting, setting, kept, path)
    return results_of(tasks, [(task, finished_cell(kept, cell)) for task, cell in wanted])


def run_cells(waiting, setting, kept, path):
    """Fine-tunes the waiting cells, and writes each into glue.json when it is finished."""
    steps = sum(cell["epochs"] * math.ceil(len(task.parts["train"]) / cell["batch_size"])
                for task, cell in waiting)
    encoded, encoded_task = {}, None
    with progress.bar(steps, "step", disable=not waiting) as bar:
        for number, (task, cell) in enumerate(waiting, start=1):
            bar.set_description_str(f"{task.name} lr {cell['lr']:.2g} batch {cell['batch_size']} "
                                    f"seed {cell['seed']} ({number}/{len(waiting)})")
            if task.name != encoded_task:
                encoded = encode_task(task, setting, ("train", *task.scored), bar.write)
                encoded_task = task.name
            began = time.perf_counter()
            predict = fine_tune(task, encoded, cell, setting, bar.update)
            scores = {part: scores_of(task, predict, part) for part in task.scored}
            seconds = time.perf_counter() - began
            kept["cells"].append({**cell, "scores": scores, "seconds": seconds})
            disk.write_json(path, kept)


def encode_task(task, setting, parts, write=print):
    """{part: [(ids, types)]}. Says how many texts were cut."""
    encoded = {}
    for part in parts:
        examples = task.parts[part]
        encoded[part], cut = encode(examples, setting.tokenizer, setting.longest)
        if cut:
            cli.say(f"{task.name}: {cut:,} of {len(examples):,} texts of {part} are longer than "
                    f"{setting.longest} tokens, and are cut", write)
    return encoded


# ---- Without fine-tuning -------------------------------------------------------------------------

def zero_shot(name):
    """{kind of minimal pair: how often the model prefers the right word}. {} where it has no MLM
    head."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no head
        model, tokenizer = Bert.from_pretrained(name), wordpiece.load_tokenizer(str(name))
    if model.mlm_head is None:
        return {}
    return minimal_pairs.shares_right(model, tokenizer, world_tasks.minimal_pairs())


def main():
    settings = read_settings()
    options.note_stories(settings.data)
    name = settings.model[0]
    folder = Path(settings.out or gluefiles.glue_folder(name))
    disk.check_writable(folder)  # now, and not after the tasks and the model
    cli.say(scores_table(score(settings, name, folder)))
    pairs = zero_shot(disk.fetch(name, disk.MODEL_FILES)) if settings.data == "stories" else {}
    if pairs:
        shares = ", ".join(f"{kind} {100 * value:.0f}" for kind, value in pairs.items())
        cli.say(f"minimal pairs, no fine-tuning (chance 50): {shares}")
    cli.say(f"every cell is in {folder / 'glue.json'}")


if __name__ == "__main__":
    cli.program(main)
