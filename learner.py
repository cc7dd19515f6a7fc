"""What learns: a student, the teacher that it listens to, and the matrix between their widths.

    teacher = load_teacher("runs/teacher", seq_len=32)
    learner = Learner(student, lesson, teacher.model, dtype="fp32")
    terms = learner(blocks, inputs, positions, labels)     # {"mlm": scalar, "kd": scalar}: one step's forward pass

The losses and what each reads are in distill.py, the prices in budget.py. Here the two models meet: one forward pass of each, as
deep as the lesson reads, the teacher's without gradients.
"""
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import disk  # before torch: it says how torch's threads wait

import torch
from torch import nn

import text
from cli import UserError
from distill import scratch
from model import Bert

PLAIN = scratch(None, None, None)  # masked language modelling: --strategy scratch, and the last phase of --mlm-finish


class Teacher(NamedTuple):
    model: Bert
    folder: Path
    sha256: str  # of its model.safetensors


def load_teacher(name, seq_len):
    """A run's folder, a Hugging Face folder or a hub id -> Teacher. Raises UserError where there is none, or it is too short."""
    folder = disk.fetch(name, ["config.json", "model.safetensors", "tokenizer.json"])
    if (folder / "run.json").exists() and not (folder / "model.safetensors").exists():
        raise UserError(f"--teacher {name} is a run that is not finished: give its own command again, and it continues")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no head: not every strategy reads it
        model = Bert.from_pretrained(folder)
    longest = model.config.max_position_embeddings
    if longest < seq_len:
        raise UserError(f"--teacher {name} knows {longest} positions, and --seq-len is {seq_len}: lower --seq-len")
    return Teacher(model, folder, disk.file_sha256(folder / "model.safetensors"))


def tokenizer_of(teacher, name):
    """The tokenizer that a student of `teacher` must have: the teacher's, or the one called `name` if it has the same words.
    Raises UserError where they differ, where there is none, or where it is not the size of the teacher's vocabulary."""
    has_own = (teacher.folder / "tokenizer.json").exists()
    if name is None and not has_own:
        raise UserError(f"--teacher {teacher.folder} has no tokenizer.json: say with --tokenizer which tokenizer it was trained with")
    tokenizer = text.load_tokenizer(name or str(teacher.folder))
    if name is not None and has_own and tokenizer.get_vocab() != text.load_tokenizer(str(teacher.folder)).get_vocab():
        raise UserError(f"--tokenizer {name} has other words than the teacher's: leave it out, and the student takes the teacher's")
    V, words = teacher.model.config.vocab_size, text.vocabulary_of(tokenizer).size
    if V != words:
        raise UserError(f"the tokenizer has {words:,} words, and the teacher {teacher.folder} has {V:,}: it was trained with another one")
    return tokenizer


def copied_layers(L_S, L_T):
    """Which teacher layers (numbered from 1) a student of L_S layers begins with: evenly spread from the first to the last, for
    12 -> 6 those of DistilBERT's script (1, 3, 5, 8, 10, 12)."""
    return [1 + round(m * (L_T - 1) / max(1, L_S - 1)) for m in range(L_S)]


def check_pair(lesson, size, teacher, copies):
    """Raises UserError where the teacher lacks the head that the lesson reads, or the layers that --init teacher copies."""
    if lesson.teacher.logits and teacher.mlm_head is None:
        raise UserError("this strategy reads the teacher's predictions, and the teacher has no masked-language-model head: give one that "
                        "was saved with it (a BertForMaskedLM), or choose tinybert or minilm, which read none")
    theirs = teacher.config.size
    for name, own, their in zip(("the hidden size", "the number of heads", "the feed-forward size"), size[1:], theirs[1:]):
        if copies and own != their:
            raise UserError(f"--init teacher copies layers, and {name} is {own:,} in the student and {their:,} in the teacher: "
                            f"give --model {size.L}x{str(theirs).split('x')[1]}, or --init random")
    if copies and size.L > theirs.L:
        raise UserError(f"--init teacher: the student has {size.L} layers, and the teacher {theirs.L} to copy")


@torch.no_grad()
def copy_teacher(student, teacher):
    """--init teacher: embeddings, layers, and the MLM head where both have one."""
    L_S, L_T, weights = student.config.num_hidden_layers, teacher.config.num_hidden_layers, teacher.state_dict()
    for name, own in student.state_dict().items():
        if name.startswith("layers."):
            _, m, rest = name.split(".", 2)
            name = f"layers.{copied_layers(L_S, L_T)[int(m)] - 1}.{rest}"
        if name in weights:
            own.copy_(weights[name][:len(own)] if name == "embeddings.position_embeddings.weight" else weights[name])


class Learner(nn.Module):
    """Its parameters are what is trained: `model.*`, the student, and `projection.*`, where the lesson needs it."""

    def __init__(self, student, lesson, teacher=None, dtype="fp32"):
        super().__init__()
        self.model, self.lesson = student, lesson
        self.projection = nn.Linear(student.config.hidden_size, lesson.width, bias=False) if lesson.width else nn.Identity()
        with torch.no_grad():
            for W in self.projection.parameters():
                W.normal_(0.0, W.shape[1] ** -0.5)  # keeps the variance of what it maps
        if teacher is not None:
            teacher.requires_grad_(False).eval()
            if dtype == "bf16":  # what autocast would do to them at each step
                for module in teacher.modules():
                    if isinstance(module, nn.Linear):
                        module.to(torch.bfloat16)
        self.others = (teacher,)  # in a tuple: torch does not see it, so it is neither trained nor saved

    def forward(self, blocks, inputs, positions, labels, lesson=None):
        """blocks (B, T) whole and inputs (B, T) masked, positions (N,) and labels (N,) of the masked -> {term: scalar}, whose
        sum is the loss. lesson: another one than the learner's own, like PLAIN in an MLM finish."""
        lesson, (teacher,) = lesson or self.lesson, self.others
        x = inputs if lesson.masked else blocks
        s, t = self.model(x, positions=positions, reads=lesson.student), None
        if lesson.teacher is not None:
            with torch.no_grad():
                t = teacher(x, positions=positions, reads=lesson.teacher)
        return {name: value.float() for name, value in lesson.terms(s, t, labels, self.projection).items()}

    def compile_layers(self):
        """torch.compile, each layer for itself: one compilation serves all layers of a size."""
        for model in (self.model, *filter(None, self.others)):
            for layer in model.layers:
                layer.compile()

    def validate(self, validation, autocast, lesson=None, processes=None, rows=128):
        """{term: its mean over the validation set (blocks, inputs, positions, labels)}, without dropout. Each of the processes
        (parallel.py) takes its share of the set, and all get the mean."""
        lesson = lesson or self.lesson
        blocks, inputs, positions, labels = validation
        k, T = len(positions) // len(inputs), inputs.shape[1]
        mine = processes.rows(len(inputs)) if processes else slice(0, len(inputs))
        names, sums = [], torch.zeros(0, dtype=torch.float64)  # of the terms, and of their words
        self.eval()
        with torch.no_grad(), autocast():
            for i in range(mine.start, mine.stop, min(rows, mine.stop - mine.start)):
                j = min(i + rows, mine.stop)
                part = slice(i * k, j * k)
                terms = self(blocks[i:j], inputs[i:j], positions[part] - i * T, labels[part], lesson)
                n = int((labels[part] >= 0).sum())  # what a mean over masked words is a mean over
                names, values = list(terms), torch.tensor([*(value.item() * n for value in terms.values()), n], dtype=torch.float64)
                sums = values if len(sums) == 0 else sums + values
        self.train()
        if processes:
            processes.sum(sums)
        return dict(zip(names, (sums[:-1] / sums[-1]).tolist()))


def rate_of(learner, batch, autocast, flops_per_sequence, rows):
    """FLOP/s of this machine, from a few measured forward and backward passes on some rows of a batch. Leaves no trace."""
    blocks, inputs, positions, labels = batch
    if inputs.device.type == "cpu":
        rows = min(rows, max(1, int(1e11 // flops_per_sequence)))  # about a second's work on a laptop
    n = len(positions) // len(inputs) * rows
    times, began = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < 1 and len(times) < 30):
        start = time.perf_counter()
        with autocast():
            terms = learner(blocks[:rows], inputs[:rows], positions[:n], labels[:n])
        sum(terms.values()).backward()
        learner.model.embeddings.word_embeddings.weight.grad[0, 0].item()  # waits until a GPU has done its work
        times.append(time.perf_counter() - start)
    learner.zero_grad()
    return rows * flops_per_sequence / sorted(times[1:])[len(times[1:]) // 2]


# ---------------------------------------------------------------------------------------------------------------------
# The optimizer, and what a checkpoint holds

def adamw(module, betas=(0.9, 0.999), weight_decay=0.01):
    """AdamW with the paper's exceptions: no weight decay on biases and LayerNorm."""
    matrices = [p for p in module.parameters() if p.dim() >= 2]
    vectors = [p for p in module.parameters() if p.dim() < 2]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
                             betas=tuple(betas), eps=1e-6, fused=matrices[0].device.type in ("cpu", "cuda"))


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
