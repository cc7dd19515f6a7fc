"""How fast is a step? Side by side with transformers, and with the machine itself, in one run.

    python -m tools.bench                                 some minutes on two cores
    python -m tools.bench --rows gpu --rounds 5           large models on a GPU

Both sides do the same work: sizes, batch, precision, optimizer (torch's fused AdamW) and random
tokens are the same. They take turns, so that a busy machine slows both. So trust the ratios of
their medians more than the seconds. transformers is listed in requirements-dev.txt.
"""
import contextlib
import io
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

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
    size: str
    teacher: str | None = None
    B: int = 16  # blocks
    V: int = V
    T: int = T


STEPS = {"mlm": [Step("6x768"), Step("2x128"), Step("4x256"),
                 Step("2x128", B=32, V=201, T=32)],  # stories' blocks
         "kd": [Step("3x384", "6x384")],
         "gpu": [Step("6x768", B=64), Step("12x768", B=64), Step("6x768", "12x768", B=64)]}


def interleaved(works, rounds):
    """{name: median seconds} of functions that take turns. Each is called once before, to warm up.

    The one named "theirs" runs with the C library's own way to manage memory, since that is how
    transformers runs elsewhere."""
    times = {name: [] for name in works}
    for _ in range(rounds + 1):
        for name, work in works.items():
            machine.keep_memory(name != "theirs")
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    machine.keep_memory()
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def line_of(name, seconds, *more):
    """A row of the table. seconds: {"ours": ..., "theirs": ...}; more: other words."""
    ours, theirs = seconds["ours"], seconds["theirs"]
    return f"{name:60} {ours:8.3f} {theirs:8.3f}  {', '.join([f'{theirs / ours:5.2f}x', *more])}"


def random_batch(step, device):
    """blocks (B, T), inputs (B, T), positions (N,), labels (N,) of random words, with as many
    masked positions as training has."""
    B, n = step.B, budget.masked_positions(step.T)
    positions = torch.arange(B)[:, None] * step.T + torch.arange(n)  # (B, n)
    blocks, words = torch.randint(5, step.V, (B, step.T)), torch.randint(5, step.V, (B * n,))
    return [tensor.to(device) for tensor in (blocks, blocks, positions.flatten(), words)]


def models_of(step, make):
    """(student, teacher or None) of a step. make(BertConfig) gives a model."""
    return [name and make(BertConfig.of(budget.size(name), vocab_size=step.V,
                                        max_position_embeddings=step.T, hidden_dropout_prob=0.0,
                                        attention_probs_dropout_prob=0.0))
            for name in (step.size, step.teacher)]


def our_step(step, device, dtype):
    """(function, FLOPs of it): the function makes one optimizer step with the code of train.py."""
    session = Session(str(device), dtype)
    session.micro_batch = step.B
    student, teacher = models_of(step, lambda config: Bert(config).to(device))
    sizes = [model and model.config.size for model in (student, teacher)]
    lesson = distill.lesson("kd" if teacher else "scratch", *sizes)
    learner = Learner(student, lesson, teacher, dtype).to(device).train()
    optimizer, batch = adamw(learner), random_batch(step, device)

    def make():
        terms = forward_backward(learner, batch, None, session)
        optimizer.step()
        optimizer.zero_grad()
        torch.stack(list(terms.values())).tolist()  # waits until a GPU has done its work

    return make, budget.step_flops(sizes[0], step.V, step.T, step.B, lesson, sizes[1])


def their_step(step, device, dtype):
    """A function that makes the same step as one writes it with transformers: whole models, and
    logits of all positions."""
    import transformers  # here: the project runs without it
    _, inputs, positions, words = random_batch(step, device)
    student, teacher = models_of(step, lambda config: transformers.BertForMaskedLM(
        transformers.BertConfig(**vars(config))).to(device))
    student.train()
    labels = torch.full((inputs.numel(),), -100, device=device)  # wherever no word is masked
    labels = labels.index_copy(0, positions, words).view(inputs.shape)  # (B * T,) -> (B, T)
    optimizer = torch.optim.AdamW(student.parameters(), fused=True)

    def make():
        with machine.autocast(device, dtype):
            s = student(inputs, labels=labels)
            loss = s.loss
            if teacher:
                with torch.no_grad():
                    t = teacher(inputs)
                # (B, T, V) -> (B * T, V) -> (N, V)
                z_S, z_T = (out.logits.flatten(0, 1)[positions].float() for out in (s, t))
                loss = loss - (z_T.softmax(1) * z_S.log_softmax(1)).sum(1).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return make


def row_of(step, device, dtype, rounds):
    """The row of a step: ours beside theirs and the machine's peak."""
    (ours, flops), peaks = our_step(step, device, dtype), []
    works = {"ours": ours, "peak": lambda: peaks.append(machine.peak(device, dtype)),
             "theirs": their_step(step, device, dtype)}
    seconds = interleaved(works, rounds if flops > 1e11 else 10 * rounds)
    share = flops / seconds["ours"] / statistics.median(peaks)
    models = f"KD, {step.size} from {step.teacher}" if step.teacher else f"MLM, {step.size}"
    name = f"{models}, V {step.V:,}, T {step.T}, B {step.B}, {dtype}"
    return line_of(name, seconds, f"{share:.0%} of peak",
                   f"{step.B * step.T / seconds['ours']:,.0f} tokens/s")


def rows_of(name, device, fast, rounds):
    """Yields the rows called `name`, those of steps in fp32 and in the fastest precision."""
    if name == "gpu" and device.type != "cuda":
        raise UserError("--rows gpu: torch finds no CUDA GPU here")
    if name == "finetune":
        yield from finetune(device, fast, rounds)
    for step in STEPS.get(name, ()):
        for dtype in dict.fromkeys(["fp32", fast]):
            yield row_of(step, device, dtype, rounds)


def finetune(device, dtype, rounds):
    """Rows of an epoch of fine-tuning on random texts that are as long as those of RTE and SST-2,
    against transformers' Trainer."""
    config = BertConfig.of(budget.size("4x128"), vocab_size=V, max_position_embeddings=128)
    cell = {"lr": 1e-4, "batch_size": 16, "epochs": 1, "seed": 0}
    with tempfile.TemporaryDirectory() as folder:
        Bert(config, mlm_head=False, pooler=True).save_pretrained(folder)
        setting = glue.Setting(Path(folder), device, dtype)
        # mean and standard deviation of the logarithm of a text's length, and the number of texts
        for name, mean, spread, n in (("RTE", 4.1, 0.55, 1200), ("SST-2", 2.3, 0.6, 3000)):
            rng = np.random.default_rng(0)
            lengths = rng.lognormal(mean, spread, n).clip(5, 128).astype(int)
            texts = [(rng.integers(5, V, length).tolist(), [0] * length) for length in lengths]
            labels = rng.integers(0, 2, n).tolist()
            train = [("", None, label) for label in labels]
            task = SimpleNamespace(labels=("0", "1"), parts={"train": train})
            works = {"theirs": partial(their_epoch, setting, texts, labels),
                     "ours": partial(glue.fine_tune, task, {"train": texts}, cell, setting)}
            yield line_of(f"fine-tuning 4x128, {n:,} texts as long as {name}'s, {dtype}",
                          interleaved(works, rounds))


def their_epoch(setting, texts, labels):
    """One epoch of transformers' Trainer."""
    import transformers  # here, as above
    transformers.logging.set_verbosity_error()
    model = transformers.BertForSequenceClassification.from_pretrained(setting.source, num_labels=2)
    options = transformers.TrainingArguments(
        f"{setting.source}/trainer", per_device_train_batch_size=16, num_train_epochs=1,
        bf16=setting.dtype == "bf16", use_cpu=setting.device.type == "cpu", learning_rate=1e-4,
        weight_decay=0.01, save_strategy="no", logging_strategy="no", report_to=[],
        disable_tqdm=True)
    rows = list(zip(texts, labels))
    trainer = transformers.Trainer(model, options, train_dataset=rows, data_collator=padded)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()


def padded(rows):
    """A batch for transformers: [((ids, types), label)], padded to the longest."""
    ids, mask, types = glue.collate([text for text, _ in rows], range(len(rows)), 0, "cpu")
    return {"labels": torch.tensor([label for _, label in rows]), "input_ids": ids,
            "attention_mask": mask, "token_type_ids": types}


def main():
    parser = cli.Parser(prog="-m tools.bench", usage="python -m tools.bench [options]",
                        description=__doc__.splitlines()[0],
                        epilog="example:\n  python -m tools.bench --rows mlm kd --rounds 5")
    parser.add_argument("--rows", nargs="+", choices=[*STEPS, "finetune"], metavar="ROW",
                        default=["mlm", "kd", "finetune"],
                        help="some of mlm, kd, finetune and gpu (default: all but gpu)")
    parser.add_argument("--rounds", type=cli.whole(1, 1000), default=3, metavar="n",
                        help="turns of each side (default: %(default)s)")
    args = parser.parse_args()
    device, fast = machine.select("auto", "auto")
    cli.say(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
            f"{args.rounds} rounds, fastest in {fast}")
    cli.say(f"{'':60} {'ours s':>8} {'theirs s':>8}")
    try:
        for row in args.rows:
            for line in rows_of(row, device, fast, args.rounds):
                cli.say(line)
    except ImportError as failure:
        raise UserError(f"{cli.one_line(failure)}: python -m pip install -r requirements-dev.txt "
                        "brings what this row is compared with") from None


if __name__ == "__main__":
    cli.program(main)
