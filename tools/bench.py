"""How fast is a step? Side by side with transformers, and with the machine itself, in one run.

    python -m tools.bench                           every row, ten minutes on two cores
    python -m tools.bench --rows mlm,kd --json      some rows, as JSON
    python -m tools.bench --gpu                     the step of large models on a GPU

Both sides do the same work, with the same sizes, batch, precision, optimizer (torch's fused AdamW)
and random tokens. They take turns, so that a busy machine slows both, and their medians are
compared. So trust the ratios more than the seconds.

The peers are listed in requirements-dev.txt; the rest of the project never imports them. budget.py
says what a step costs, and program/machine.py measures the peak of the machine.
"""
import contextlib
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from files import disk, gluefiles
from program import cli
from program.cli import UserError
from running import machine
from running.machine import Session, forward_backward

import numpy as np
import torch
import torch.nn.functional as F

import budget
import data
import distill
import glue
from model import Bert, BertConfig
from train import Learner, adamw
from world import stories as world_stories

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = """examples:
  python -m tools.bench --rows mlm --rounds 5
  python -m tools.bench --rows finetune,text,stories,memory,start"""
V, T = 30522, 128  # BERT's vocabulary, the paper's blocks


def arguments(argv=None):
    """The options, with args.rows as a list. Raises UserError where a row has no such name."""
    parser = cli.Parser(prog="-m tools.bench", usage="python -m tools.bench [options]",
                        description="isoflop against transformers and the machine's peak, side by "
                        "side.", epilog=EXAMPLES)
    add = parser.add_argument
    add("--rows", default="all", metavar="A,B",
        help=f"all (default), or some of {', '.join(ROWS)}")
    add("--rounds", type=cli.whole(1, 1000), default=3, metavar="n",
        help="turns of each side (default: %(default)s)")
    add("--batch-size", type=cli.whole(1, 2 ** 20), metavar="B",
        help="blocks in a step (default: 16, on a GPU 256)")
    add("--gpu", action="store_true",
        help="MLM and KD at 6x768 and 12x768 in bf16 on a GPU: tokens a second, share of the peak, "
        "memory")
    add("--compile", action="store_true",
        help="compile the layers with torch.compile, as train.py --compile on does")
    add("--json", action="store_true", help="print JSON instead of a table")
    add("--peak-memory", choices=["ours", "theirs"], help=cli.argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.rows = list(ROWS) if args.rows == "all" else args.rows.split(",")
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


@contextlib.contextmanager
def quiet():
    """Prints nothing inside."""
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        yield


def peers():
    """transformers. Raises UserError where it is not installed."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import transformers  # here, since the project runs without it
    except ImportError:
        raise UserError("these rows compare with transformers: "
                        "python -m pip install -r requirements-dev.txt") from None
    transformers.logging.set_verbosity_error()
    return transformers


def row(name, ours=None, theirs=None, wanted=None, **more):
    """One line of the table. ours and theirs are seconds; wanted is the least ratio theirs / ours
    that the project wants."""
    ratio = theirs / ours if ours and theirs else None
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": ratio, "wanted": wanted, **more}


# --------------------------------------------------------------------------------------------------
# Our step and theirs


def random_batch(B, V, T, device):
    """blocks (B, T), inputs (B, T), positions (N,), labels (N,) of random words, with as many
    masked positions as training has."""
    n = budget.masked_positions(T)
    in_rows = [torch.randperm(T)[:n].sort().values + T * b for b in range(B)]
    positions = torch.stack(in_rows).flatten()  # (B, n) -> (N,)
    blocks, words = torch.randint(5, V, (B, T)), torch.randint(5, V, (B * n,))
    return [tensor.to(device) for tensor in (blocks, blocks, positions, words)]


def our_step(strategy, size, teacher, B, dtype, device, V=V, T=T, compiled=False):
    """(step, FLOPs of it): step() makes one optimizer step with the code of train.py."""
    session = Session(str(device), dtype)
    session.micro_batch = B
    lesson, batch = distill.lesson(strategy, size, teacher), random_batch(B, V, T, device)

    def bert(size, **options):
        return Bert(BertConfig.of(size, vocab_size=V, max_position_embeddings=T,
                                  hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
                    **options)

    student = bert(size, mlm_head=lesson.student.logits)
    learner = Learner(student, lesson, teacher and bert(teacher).to(device), dtype)
    learner.to(device).train()
    if compiled:
        learner.compile_layers()
    optimizer = adamw(learner)

    def step():
        terms = forward_backward(learner, batch, None, session)
        optimizer.step()
        optimizer.zero_grad()
        torch.stack(list(terms.values())).tolist()  # waits until a GPU has done its work

    return step, budget.step_flops(size, V, T, B, lesson, teacher)


def their_step(strategy, size, teacher, B, dtype, device, V=V, T=T):
    """A function that makes the same step as one writes it with transformers: whole models, logits
    of all positions, all hidden states and attention tables."""
    batch = random_batch(B, V, T, device)
    student = their_bert(strategy, size, device, V, T).train()
    master = teacher and their_bert(strategy, teacher, device, V, T).eval()
    parameters, project = list(student.parameters()), None
    if strategy == "tinybert":
        project = torch.nn.Linear(size.h, teacher.h, bias=False).to(device)
        parameters += project.parameters()
    optimizer = torch.optim.AdamW(parameters, fused=True)
    loss_of = {"scratch": partial(mlm_loss, student), "kd": partial(kd_loss, student, master),
               "tinybert": partial(tinybert_loss, student, master, project),
               "minilm": partial(minilm_loss, student, master)}[strategy]

    def step():
        with machine.autocast(device, dtype):
            loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def their_bert(strategy, size, device, V, T):
    """transformers' BertForMaskedLM of a size, with fresh weights."""
    transformers, (L, h, A, f) = peers(), size
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=h, num_hidden_layers=L, num_attention_heads=A,
        intermediate_size=f, max_position_embeddings=T, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0)
    # TinyBERT and MiniLM ask for attention tables, which only the "eager" attention gives.
    needs_tables = strategy in ("tinybert", "minilm")
    config._attn_implementation = "eager" if needs_tables else "sdpa"
    return transformers.BertForMaskedLM(config).to(device)


def labels_of(batch):
    """(B, T), with -100 wherever no word is masked."""
    _, inputs, positions, words = batch
    labels = torch.full((inputs.numel(),), -100, device=inputs.device)
    return labels.index_copy(0, positions, words).view(inputs.shape)  # (B * T,) -> (B, T)


def mlm_loss(student, batch):
    return student(batch[1], labels=labels_of(batch)).loss


def kd_loss(student, master, batch):
    _, inputs, positions, _ = batch
    with torch.no_grad():
        t = master(inputs)
    s = student(inputs, labels=labels_of(batch))
    z_S = s.logits.flatten(0, 1)[positions].float()  # (B, T, V) -> (B * T, V) -> (N, V)
    z_T = t.logits.flatten(0, 1)[positions].float()  # (B, T, V) -> (B * T, V) -> (N, V)
    return s.loss - (z_T.softmax(1) * z_S.log_softmax(1)).sum(1).mean()


def all_tables(student, master, batch):
    """The outputs of student and teacher, with all hidden states and attention tables."""
    tables = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        t = master.bert(batch[1], **tables)
    return student.bert(batch[1], **tables), t


def tinybert_loss(student, master, project, batch):
    s, t = all_tables(student, master, batch)
    every = len(t.attentions) // len(s.attentions)
    loss = 0.0
    for x, y in zip(s.hidden_states, t.hidden_states[::every]):
        loss = loss + F.mse_loss(project(x).float(), y.float())
    for x, y in zip(s.attentions, t.attentions[every - 1::every]):
        loss = loss + F.mse_loss(x.float(), y.float())
    return loss


def minilm_loss(student, master, batch):
    (B, T), heads = batch[1].shape, master.config.hidden_size // 16
    s, t = all_tables(student, master, batch)
    loss = 0.0
    for x, y in zip(last_qkv(student, s.hidden_states), last_qkv(master, t.hidden_states)):
        divergence = F.kl_div(relation(x, heads), relation(y, heads), reduction="sum",
                              log_target=True)
        loss = loss + divergence / (B * heads * T)
    return loss / 3


def last_qkv(model, hidden_states):
    """Queries, keys and values (B, T, h) of the last layer. They are computed a second time, since
    transformers gives only the layer's input."""
    attention = model.bert.encoder.layer[-1].attention.self
    return [part(hidden_states[-2]) for part in (attention.query, attention.key, attention.value)]


def relation(x, heads):
    """(B, T, h) -> (B, heads, T, T): the logarithm of how much each position attends to each."""
    x = x.unflatten(2, (heads, -1)).transpose(1, 2)  # (B, T, h) -> (B, heads, T, h / heads)
    return (x @ x.transpose(2, 3) / x.shape[3] ** 0.5).float().log_softmax(3)


# --------------------------------------------------------------------------------------------------
# Rows of training steps


def steps(args, name, strategy, size, teacher=None, wanted=None, share=None, V=V, T=T, B=None):
    """Rows of one kind of step, one for each precision that this machine has. share: {precision:
    the share of the peak that the project wants}."""
    device, fast = machine.select("auto", "auto")
    size, teacher, B = budget.size(size), teacher and budget.size(teacher), B or args.batch_size
    of_pair = f"{size} from {teacher}" if teacher else str(size)
    for dtype in ["fp32", "bf16"] if fast == "bf16" else ["fp32"]:
        ours, flops = our_step(strategy, size, teacher, B, dtype, device, V, T, args.compile)
        theirs = their_step(strategy, size, teacher, B, dtype, device, V, T)
        peaks = []
        works = {"ours": ours, "theirs": theirs,
                 "peak": lambda: peaks.append(machine.peak(device, dtype))}
        rounds = args.rounds if flops > 1e11 else 10 * args.rounds
        seconds = interleaved(works, rounds)
        speed, peak = flops / seconds["ours"], statistics.median(peaks)
        yield row(f"{name}, {of_pair}, V {V:,}, T {T}, B {B}, {dtype}", seconds["ours"],
                  seconds["theirs"], wanted, flops_per_second=speed, peak=peak, share=speed / peak,
                  share_wanted=share and share[dtype], tokens_per_second=B * T / seconds["ours"])


def mlm(args):
    yield from steps(args, "MLM", "scratch", "6x768", wanted=1.4,
                     share={"fp32": 0.85, "bf16": 0.65})
    yield from steps(args, "MLM", "scratch", "2x128", wanted=2)
    yield from steps(args, "MLM", "scratch", "4x256", wanted=1.6)


def demo(args):
    for size in ("2x128", "4x256"):
        yield from steps(args, "MLM on stories", "scratch", size, V=201, T=32, B=32)


def kd(args):
    yield from steps(args, "KD", "kd", "3x384", "6x384", wanted=3)


def taught(args):
    for strategy in ("tinybert", "minilm"):
        yield from steps(args, strategy, strategy, "3x384", "6x384", wanted=2)


def gpu(args):
    """Steps on a GPU: tokens a second, share of the measured peak, memory."""
    if not torch.cuda.is_available():
        raise UserError("--gpu: torch finds no CUDA GPU here")
    device, B = torch.device("cuda"), args.batch_size
    for strategy, size, teacher in (("scratch", "6x768", None), ("scratch", "12x768", None),
                                    ("kd", "6x768", "12x768")):
        torch.cuda.reset_peak_memory_stats()
        step, flops = our_step(strategy, budget.size(size), teacher and budget.size(teacher), B,
                               "bf16", device, compiled=args.compile)
        peaks = []
        works = {"ours": lambda: [step() for _ in range(10)],
                 "peak": lambda: peaks.append(machine.peak(device, "bf16"))}
        seconds, peak = interleaved(works, args.rounds)["ours"] / 10, statistics.median(peaks)
        name = f"{strategy} {size} from {teacher}" if teacher else f"{strategy} {size}"
        compiled = ", compiled" if args.compile else ""
        yield row(f"{name}, V {V:,}, T {T}, B {B}, bf16{compiled}", seconds, peak=peak,
                  tokens_per_second=B * T / seconds, share=flops / seconds / peak,
                  share_wanted=0.5 if strategy == "scratch" else 0.4,
                  memory=torch.cuda.max_memory_allocated())


# --------------------------------------------------------------------------------------------------
# Rows of all the rest


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
            texts, labels = random_texts(mean, spread, n)
            task = gluefiles.Task(name, {"train": [("", None, label) for label in labels],
                                         "dev": [("", None, 0)]}, ("0", "1"), (), ("dev",))
            works = {"ours": partial(glue.fine_tune, task, {"train": texts}, cell, setting),
                     "theirs": partial(their_epoch, folder, texts, labels, device, dtype)}
            seconds = interleaved(works, args.rounds)
            yield row(f"fine-tuning 4x128, {n:,} texts as long as {name}'s, {dtype}",
                      seconds["ours"], seconds["theirs"], 1.3)


def random_texts(mean, spread, n):
    """([(ids, token types)], labels) of n texts, whose lengths are log-normal."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(mean, spread, n)).clip(5, 128).astype(int)
    texts = [(rng.integers(5, V, length).tolist(), [0] * length) for length in lengths]
    return texts, rng.integers(0, 2, n).tolist()


def their_epoch(folder, texts, labels, device, dtype):
    """One epoch of transformers' Trainer."""
    transformers = peers()
    rows = [{"input_ids": ids, "token_type_ids": types, "labels": label}
            for (ids, types), label in zip(texts, labels)]
    with quiet():
        model = transformers.BertForSequenceClassification.from_pretrained(folder, num_labels=2)
        options = transformers.TrainingArguments(
            f"{folder}/trainer", per_device_train_batch_size=16, num_train_epochs=1, report_to=[],
            bf16=dtype == "bf16", use_cpu=device.type == "cpu", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, learning_rate=1e-4, weight_decay=0.01)
        transformers.Trainer(model, options, train_dataset=rows, data_collator=padded).train()


def padded(rows):
    """A batch for transformers: its rows, padded to the longest."""
    longest = max(len(row["input_ids"]) for row in rows)
    ids, types, mask = [], [], []
    for row in rows:
        padding = [0] * (longest - len(row["input_ids"]))
        ids.append(row["input_ids"] + padding)
        types.append(row["token_type_ids"] + padding)
        mask.append([1] * len(row["input_ids"]) + padding)
    return {"labels": torch.tensor([row["labels"] for row in rows]),
            "attention_mask": torch.tensor(mask), "input_ids": torch.tensor(ids),
            "token_type_ids": torch.tensor(types)}


def text(args):
    """From files of text to tokens in the cache, against `tokenizers` alone on the same text."""
    documents = [" ".join(world_stories.story(0, 50 * i + j) for j in range(50))
                 for i in range(400)]
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "text.txt")
        path.write_text("\n\n".join(documents), encoding="utf-8")
        os.environ["ISOFLOP_CACHE"] = f"{folder}/cache"
        tokenizer = data.open_corpus(data.Text([str(path)], vocab_size=300), 32, 0).tokenizer
        number = iter(range(10 ** 6))

        def ours():
            os.environ["ISOFLOP_CACHE"] = f"{folder}/cache{next(number)}"
            data.open_corpus(data.Text([str(path)], tokenizer=tokenizer), 32, 0)

        def theirs():
            for i in range(0, len(documents), 100):
                tokenizer.encode_batch_fast(documents[i:i + 100], add_special_tokens=False)

        seconds = interleaved({"ours": ours, "theirs": theirs}, args.rounds)
        os.environ.pop("ISOFLOP_CACHE")
    yield row(f"text to tokens, {sum(map(len, documents)) / 1e6:.0f} MB", seconds["ours"],
              seconds["theirs"], 0.8)


def stories(args):
    """Batches of stories, against the time of the training steps that use them: a loop should never
    wait for its next batch."""
    device, dtype = machine.select("auto", "auto")
    step, _ = our_step("scratch", budget.size("2x128"), None, 32, dtype, device, 201, 32)

    def batches():  # of more than two shards, by a maker of stories that has made none before
        corpus = data.open_corpus(data.Text(), 32, 0)
        for number in range(600):
            blocks = corpus.blocks(number, 32)
            data.mask_tokens(blocks, data.generator(0, number), corpus.vocabulary)
        corpus.close()

    works = {"batches": batches, "steps": lambda: [step() for _ in range(600)]}
    seconds = interleaved(works, args.rounds)
    yield row("600 masked batches of stories, and 600 steps of 2x128 (T 32, B 32)",
              seconds["batches"], seconds["steps"], 5)


def high_water():
    """The most bytes of memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the process that started this one, too
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def print_peak_memory(side, B):
    """Makes two MLM steps, and prints the peak memory of this process: what the row `memory` asks
    of a fresh one."""
    machine.keep_memory(side == "ours")
    size, device = budget.size("6x768"), torch.device("cpu")
    if side == "ours":
        step, _ = our_step("scratch", size, None, B, "fp32", device)
    else:
        step = their_step("scratch", size, None, B, "fp32", device)
    step()
    step()
    print(high_water())


def memory(args):
    """Peak memory of a process that makes MLM steps."""
    peers()
    peak = {}
    for side in ("ours", "theirs"):
        command = [sys.executable, "-m", "tools.bench", "--peak-memory", side,
                   "--batch-size", str(args.batch_size)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise UserError(f"the memory row failed: {lines[-1]}")
        peak[side] = int(done.stdout.split()[-1])
    yield row(f"peak memory of MLM steps, 6x768, B {args.batch_size}, fp32: GiB, not s",
              peak["ours"] / 2 ** 30, peak["theirs"] / 2 ** 30, 1 / 0.7)


def start(args):
    """Programs that should answer at once. `theirs` is the time that they should take."""
    for line in ("train.py --help", "glue.py --help", "compare.py --help",
                 "budget.py --model 6x768 --flops 1e17"):
        program = partial(subprocess.run, [sys.executable, *line.split()], cwd=ROOT, check=True,
                          stdout=subprocess.DEVNULL)
        yield row(f"python {line}", interleaved({"ours": program}, 5)["ours"], 0.3, 1)


# --------------------------------------------------------------------------------------------------
# The table

ROWS = {work.__name__: work
        for work in (mlm, demo, kd, taught, finetune, text, stories, memory, start)}


def line_of(row):
    """A row as a line of the table."""
    marks = []
    if row["ratio"]:
        wanted = f" (wanted {row['wanted']:.3g})" if row["wanted"] else ""
        marks += [f"{row['ratio']:5.2f}x{wanted}"]
    if row.get("share"):
        wanted = f" (wanted {row['share_wanted']:.0%})" if row.get("share_wanted") else ""
        marks += [f"{row['share']:.0%} of peak{wanted}"]
    if row.get("tokens_per_second"):
        marks += [f"{row['tokens_per_second']:,.0f} tokens/s"]
    if row.get("memory"):
        marks += [f"{row['memory'] / 2 ** 30:.1f} GiB"]
    theirs = row["theirs"] or float("nan")
    return f"{row['name']:68} {row['ours']:8.3f} {theirs:8.3f}  {', '.join(marks)}"


def machine_of(args):
    """{name: value} of what the numbers depend on."""
    device, dtype = machine.select("auto", "auto")
    name = f"{platform.machine()}, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        name = torch.cuda.get_device_name()
    return {"machine": name, "torch": torch.__version__, "fast dtype": dtype,
            "rounds": args.rounds, "compiled": args.compile}


def main():
    args = arguments()
    if args.peak_memory:
        print_peak_memory(args.peak_memory, args.batch_size)
        return
    machine, rows = machine_of(args), []
    if not args.json:
        words = ", ".join(f"{key} {value}" for key, value in machine.items())
        if machine["fast dtype"] != "bf16":
            words += ": no bf16 rows, since this hardware does not multiply bf16"
        cli.say(words)
        cli.say(f"{'':68} {'ours s':>8} {'theirs s':>8}")
    for work in [gpu] if args.gpu else [ROWS[name] for name in args.rows]:
        for line in work(args):
            rows.append(line)
            if not args.json:
                cli.say(line_of(line))
    if args.json:
        cli.say(disk.json_text({**machine, "rows": rows}).rstrip())


if __name__ == "__main__":
    cli.program(main)
