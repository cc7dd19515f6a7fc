"""How fast is a step? Side by side with transformers, and with the machine itself, in one run.

    python -m tools.bench                                 every row, some minutes on two cores
    python -m tools.bench --rows finetune --rounds 5      some rows
    python -m tools.bench --gpu                           the step of large models on a GPU

Both sides do the same work, with the same sizes, batch, precision, optimizer (torch's fused AdamW)
and random tokens. They take turns, so that a busy machine slows both, and their medians are
compared. So trust the ratios more than the seconds.

The peers are listed in requirements-dev.txt; the rest of the project never imports them. budget.py
says what a step costs, and running/machine.py measures the peak of the machine.
"""
import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from files import gluefiles
from program import cli
from program.cli import UserError
from running import machine
from running.machine import Session, forward_backward

import numpy as np
import torch

import budget
import distill
import glue
from model import Bert, BertConfig
from train import Learner, adamw

V, T = 30522, 128  # BERT's vocabulary, the paper's blocks


class Step(NamedTuple):
    """A training step that both sides make: MLM, or with a teacher KD."""
    B: int               # blocks
    size: str
    teacher: str = ""
    V: int = V
    T: int = T

    def __str__(self):
        models = f"KD, {self.size} from {self.teacher}" if self.teacher else f"MLM, {self.size}"
        return f"{models}, V {self.V:,}, T {self.T}, B {self.B}"

    def sizes(self):
        """The budget.Size of the student, and of the teacher (None without one)."""
        return budget.size(self.size), budget.size(self.teacher) if self.teacher else None


def arguments(argv=None):
    """The options, with args.rows as a list. Raises UserError where a row has no such name."""
    parser = cli.Parser(prog="-m tools.bench", usage="python -m tools.bench [options]",
                        description="isoflop against transformers and the machine's peak, side by "
                        "side.",
                        epilog="example:\n  python -m tools.bench --rows mlm --rounds 5")
    add = parser.add_argument
    add("--rows", metavar="A,B", help=f"some of {', '.join(ROWS)} (default: all)")
    add("--rounds", type=cli.whole(1, 1000), default=3, metavar="n",
        help="turns of each side (default: %(default)s)")
    add("--batch-size", type=cli.whole(1, 2 ** 20), metavar="B",
        help="blocks in a step (default: 16, on a GPU 256)")
    add("--gpu", action="store_true",
        help="MLM and KD at 6x768 and 12x768 in bf16 on a GPU: tokens a second, share of the peak, "
        "memory")
    add("--compile", action="store_true",
        help="compile our layers with torch.compile, as train.py --compile on does")
    args = parser.parse_args(argv)
    args.rows = list(ROWS) if args.rows is None else args.rows.split(",")
    for name in args.rows:
        if name not in ROWS:
            raise UserError(f"--rows: {name!r} is none of {', '.join(ROWS)}")
    args.batch_size = args.batch_size or (256 if args.gpu else 16)
    return args


def interleaved(works, rounds):
    """{name: median seconds} of functions that take turns. Each is called once before, to warm up.

    The one named "theirs" runs with the C library's own way to manage memory, since that is how
    transformers runs elsewhere."""
    times = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            machine.keep_memory(name != "theirs")
            began = time.perf_counter()
            work()
            seconds = time.perf_counter() - began
            if turn > 0:
                times[name].append(seconds)
    machine.keep_memory()
    return {name: statistics.median(values) for name, values in times.items()}


def peers():
    """transformers. The import waits until here, since the project runs without it."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers
    transformers.logging.set_verbosity_error()
    return transformers


def line_of(name, seconds, *more):
    """A row of the table. seconds: {"ours": ..., "theirs": ...}; more: other words."""
    ours, theirs = seconds["ours"], seconds.get("theirs", float("nan"))
    ratio = f"{theirs / ours:5.2f}x" if "theirs" in seconds else " " * 6
    return f"{name:60} {ours:8.3f} {theirs:8.3f}  {', '.join([ratio, *more])}"


# --------------------------------------------------------------------------------------------------
# Our step and theirs


def random_batch(step, device):
    """blocks (B, T), inputs (B, T), positions (N,), labels (N,) of random words, with as many
    masked positions as training has."""
    B, T, n = step.B, step.T, budget.masked_positions(step.T)
    in_rows = [torch.randperm(T)[:n].sort().values + T * b for b in range(B)]
    positions = torch.stack(in_rows).flatten()  # (B, n) -> (N,)
    blocks, words = torch.randint(5, step.V, (B, T)), torch.randint(5, step.V, (B * n,))
    return [tensor.to(device) for tensor in (blocks, blocks, positions, words)]


def our_step(step, device, dtype, compiled=False):
    """(function, FLOPs of it): the function makes one optimizer step with the code of train.py."""
    session, (size, teacher_size) = Session(str(device), dtype), step.sizes()
    session.micro_batch = step.B
    lesson = distill.lesson("kd" if step.teacher else "scratch", size, teacher_size)

    def bert(size, **options):
        return Bert(BertConfig.of(size, vocab_size=step.V, max_position_embeddings=step.T,
                                  hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
                    **options)

    teacher = teacher_size and bert(teacher_size).to(device)
    learner = Learner(bert(size, mlm_head=lesson.student.logits), lesson, teacher, dtype)
    learner.to(device).train()
    if compiled:
        learner.compile_layers()
    optimizer, batch = adamw(learner), random_batch(step, device)

    def make():
        terms = forward_backward(learner, batch, None, session)
        optimizer.step()
        optimizer.zero_grad()
        torch.stack(list(terms.values())).tolist()  # waits until a GPU has done its work

    return make, budget.step_flops(size, step.V, step.T, step.B, lesson, teacher_size)


def their_step(step, device, dtype):
    """A function that makes the same step as one writes it with transformers: whole models, and
    logits of all positions."""
    transformers, (_, inputs, positions, words) = peers(), random_batch(step, device)

    def bert(size):
        config = transformers.BertConfig(
            vocab_size=step.V, hidden_size=size.h, num_hidden_layers=size.L,
            num_attention_heads=size.A, intermediate_size=size.f, max_position_embeddings=step.T,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        return transformers.BertForMaskedLM(config).to(device)

    size, teacher_size = step.sizes()
    student, teacher = bert(size).train(), teacher_size and bert(teacher_size).eval()
    labels = torch.full((inputs.numel(),), -100, device=device)  # wherever no word is masked
    labels = labels.index_copy(0, positions, words).view(inputs.shape)  # (B * T,) -> (B, T)
    optimizer = torch.optim.AdamW(student.parameters(), fused=True)

    def loss():
        s = student(inputs, labels=labels)
        if teacher is None:
            return s.loss
        with torch.no_grad():
            t = teacher(inputs)
        z_S = s.logits.flatten(0, 1)[positions].float()  # (B, T, V) -> (B * T, V) -> (N, V)
        z_T = t.logits.flatten(0, 1)[positions].float()  # (B, T, V) -> (B * T, V) -> (N, V)
        return s.loss - (z_T.softmax(1) * z_S.log_softmax(1)).sum(1).mean()

    def make():
        with machine.autocast(device, dtype):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        value.item()

    return make


def measured(step, dtype, args):
    """The row of a step: ours beside theirs and the machine's peak, with --gpu without theirs."""
    device, _ = machine.select("cuda" if args.gpu else "auto", dtype)
    ours, flops = our_step(step, device, dtype, args.compile)
    peaks = []
    works = {"ours": ours, "peak": lambda: peaks.append(machine.peak(device, dtype))}
    if not args.gpu:
        works["theirs"] = their_step(step, device, dtype)
    is_long = flops > 1e11 and not args.gpu
    seconds = interleaved(works, args.rounds if is_long else 10 * args.rounds)
    words = [f"{flops / seconds['ours'] / statistics.median(peaks):.0%} of peak",
             f"{step.B * step.T / seconds['ours']:,.0f} tokens/s"]
    if args.gpu:
        words.append(f"{torch.cuda.max_memory_allocated() / 2 ** 30:.1f} GiB")
    return line_of(f"{step}, {dtype}{', compiled' * args.compile}", seconds, *words)


def in_each_precision(args, *steps):
    """Rows of Steps, one for each precision that this machine has."""
    _, fast = machine.select("auto", "auto")
    for step in steps:
        for dtype in ["fp32", "bf16"] if fast == "bf16" else ["fp32"]:
            yield measured(step, dtype, args)


def mlm(args):
    steps = [Step(args.batch_size, size) for size in ("6x768", "2x128", "4x256")]
    return in_each_precision(args, *steps, Step(32, "2x128", V=201, T=32))  # stories' blocks


def kd(args):
    return in_each_precision(args, Step(args.batch_size, "3x384", "6x384"))


def gpu(args):
    if not torch.cuda.is_available():
        raise UserError("--gpu: torch finds no CUDA GPU here")
    for models in (("6x768",), ("12x768",), ("6x768", "12x768")):
        torch.cuda.reset_peak_memory_stats()
        yield measured(Step(args.batch_size, *models), "bf16", args)


# --------------------------------------------------------------------------------------------------
# Fine-tuning


def finetune(args):
    """An epoch of fine-tuning on random texts that are as long as those of RTE and SST-2, against
    transformers' Trainer."""
    device, dtype = machine.select("auto", "auto")
    config = BertConfig.of(budget.size("4x128"), vocab_size=V, max_position_embeddings=128)
    cell = {"lr": 1e-4, "batch_size": 16, "epochs": 1, "seed": 0}
    with tempfile.TemporaryDirectory() as folder:
        Bert(config, mlm_head=False, pooler=True).save_pretrained(folder)
        setting = glue.Setting(Path(folder), device, dtype)
        # mean and standard deviation of the logarithm of a text's length, and the number of texts
        for name, mean, spread, n in (("RTE", 4.1, 0.55, 1200), ("SST-2", 2.3, 0.6, 3000)):
            rng = np.random.default_rng(0)
            lengths = np.exp(rng.normal(mean, spread, n)).clip(5, 128).astype(int)
            texts = [(rng.integers(5, V, length).tolist(), [0] * length) for length in lengths]
            labels = rng.integers(0, 2, n).tolist()
            task = gluefiles.Task(name, {"train": [("", None, label) for label in labels],
                                         "dev": [("", None, 0)]}, ("0", "1"), (), ("dev",))
            works = {"theirs": partial(their_epoch, setting, texts, labels),
                     "ours": partial(glue.fine_tune, task, {"train": texts}, cell, setting)}
            yield line_of(f"fine-tuning 4x128, {n:,} texts as long as {name}'s, {dtype}",
                          interleaved(works, args.rounds))


def their_epoch(setting, texts, labels):
    """One epoch of transformers' Trainer."""
    transformers, folder = peers(), setting.source
    with contextlib.redirect_stdout(io.StringIO()):
        model = transformers.BertForSequenceClassification.from_pretrained(folder, num_labels=2)
        options = transformers.TrainingArguments(
            f"{folder}/trainer", per_device_train_batch_size=16, num_train_epochs=1, report_to=[],
            bf16=setting.dtype == "bf16", use_cpu=setting.device.type == "cpu", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, learning_rate=1e-4, weight_decay=0.01)
        rows = list(zip(texts, labels))
        transformers.Trainer(model, options, train_dataset=rows, data_collator=padded).train()


def padded(rows):
    """A batch for transformers: [((ids, types), label)], padded to the longest."""
    ids, mask, types = glue.collate([text for text, _ in rows], range(len(rows)), 0, "cpu")
    return {"labels": torch.tensor([label for _, label in rows]), "input_ids": ids,
            "attention_mask": mask, "token_type_ids": types}


ROWS = {work.__name__: work for work in (mlm, kd, finetune)}


def main():
    args = arguments()
    device, fast = machine.select("auto", "auto")
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    cli.say(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
            f"{args.rounds} rounds, fastest in {fast}")
    cli.say(f"{'':60} {'ours s':>8} {'theirs s':>8}")
    try:
        for work in [gpu] if args.gpu else [ROWS[name] for name in args.rows]:
            for line in work(args):
                cli.say(line)
    except ImportError as failure:
        raise UserError("this row compares with transformers and its Trainer: python -m pip "
                        f"install -r requirements-dev.txt ({cli.one_line(failure)})") from None


if __name__ == "__main__":
    cli.program(main)
