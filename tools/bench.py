"""How fast: side by side with transformers, and with the machine itself, in one run.

    python bench.py                          every row, some ten minutes on two cores
    python bench.py --rows mlm,kd --json     some rows, for machines
    python bench.py --gpu                    the step of large models on a GPU

Both sides do the same work: the same sizes, batch, precision, optimizer (torch's fused AdamW) and random tokens. They take turns, so
that a busy machine slows both, and medians are compared: read the ratios, not the seconds. The peers are in requirements-dev.txt;
the program itself never imports them. What a step costs is the bill of budget.py; the machine's peak is measured (machine.py).
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
from pathlib import Path

from plumbing import cli, disk, gluefiles, hardware
from plumbing.cli import UserError
from plumbing.parallel import Processes, backward

import torch
import torch.nn.functional as F

import budget
import data
import distill
import glue
from model import Bert, BertConfig
from train import Learner, adamw

HERE = Path(__file__).parent
EXAMPLES = """examples:
  python bench.py --rows mlm --rounds 5
  python bench.py --rows finetune,text,stories,memory,start"""
V, T = 30522, 128  # BERT's vocabulary, the paper's blocks


def arguments(argv=None):
    parser = cli.Parser(description="isoflop against transformers and the machine's peak, side by side.", epilog=EXAMPLES)
    parser.add_argument("--rows", default="all", metavar="A,B", help=f"all (default), or some of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=cli.whole(1, 1000), default=3, metavar="n", help="turns of each side (default: %(default)s)")
    parser.add_argument("--batch-size", type=cli.whole(1, 2 ** 20), metavar="B", help="blocks in a step (default: 16, on a GPU 256)")
    parser.add_argument("--gpu", action="store_true", help="MLM and KD at 6x768 and 12x768 in bf16 on a GPU: tokens a second, share of peak, memory")
    parser.add_argument("--compile", action="store_true", help="with torch.compile of the layers, as train.py --compile on")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--peak-memory", choices=["ours", "theirs"], help=cli.argparse.SUPPRESS)
    args = parser.parse_args(argv)
    wanted = list(ROWS) if args.rows == "all" else args.rows.split(",")
    for name in wanted:
        if name not in ROWS:
            raise UserError(f"--rows: {name!r} is none of {', '.join(ROWS)}")
    args.rows = wanted
    args.batch_size = args.batch_size or (256 if args.gpu else 16)
    return args


def interleaved(works, rounds):
    """{name: median seconds} of functions that take turns; each is called once before, to warm up. Theirs run with the C library's own
    way with memory, as they do elsewhere."""
    times = {name: [] for name in works}
    for turn in range(rounds + 1):
        for name, work in works.items():
            hardware.keep_memory(name != "theirs")
            began = time.perf_counter()
            work()
            times[name] += [time.perf_counter() - began] if turn else []
    hardware.keep_memory()
    return {name: statistics.median(values) for name, values in times.items()}


@contextlib.contextmanager
def quiet():
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield


def peers():
    """transformers, where it is installed."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        import transformers
    except ImportError:
        raise UserError("these rows compare with transformers: python -m pip install -r requirements-dev.txt") from None
    transformers.logging.set_verbosity_error()
    return transformers


def row(name, ours=None, theirs=None, wanted=None, **more):
    """One line of the table. ours and theirs in seconds; wanted: the least ratio theirs / ours."""
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": theirs / ours if ours and theirs else None, "wanted": wanted, **more}


# ---------------------------------------------------------------------------------------------------------------------
# Steps

def our_step(strategy, size, teacher, B, dtype, device, V=V, T=T, compiled=False):
    """A function that makes one optimizer step, the loop's own code; and what the step costs in FLOPs."""
    lesson, processes, batch = distill.lesson(strategy, size, teacher), Processes(), random_batch(B, V, T, device)
    sizes = {"vocab_size": V, "max_position_embeddings": T, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    learner = Learner(Bert(BertConfig.of(size, **sizes), mlm_head=lesson.student.logits), lesson,
                      teacher and Bert(BertConfig.of(teacher, **sizes)).to(device), dtype).to(device).train()
    if compiled:
        learner.compile_layers()
    optimizer = adamw(learner)

    def step():
        terms = backward(learner, batch, None, lambda: hardware.autocast(device, dtype), processes, B)
        optimizer.step()
        optimizer.zero_grad()
        torch.stack(list(terms.values())).tolist()  # waits until a GPU has done its work
    return step, budget.step_flops(size, V, T, B, lesson, teacher)


def their_step(strategy, size, teacher, B, dtype, device, V=V, T=T):
    """The step as one writes it with transformers: whole models, logits of all positions, all hidden states and scores."""
    transformers = peers()
    blocks, inputs, positions, words = random_batch(B, V, T, device)
    labels = torch.full((B * T,), -100, device=device).index_copy(0, positions, words).view(B, T)

    def bert(size):
        L, h, A, f = size
        config = transformers.BertConfig(vocab_size=V, hidden_size=h, num_hidden_layers=L, num_attention_heads=A, intermediate_size=f,
                                         max_position_embeddings=T, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        # Tables of scores, which TinyBERT and MiniLM ask for, come from the attention that is written out.
        config._attn_implementation = "eager" if strategy in ("tinybert", "minilm") else "sdpa"
        return transformers.BertForMaskedLM(config).to(device)
    student, master = bert(size).train(), teacher and bert(teacher).eval()
    project = torch.nn.Linear(size.h, teacher.h, bias=False).to(device) if strategy == "tinybert" else None
    optimizer = torch.optim.AdamW([*student.parameters(), *(project.parameters() if project else ())], fused=True)

    def qkv(model, hidden):  # of the last layer, once more: transformers gives its inputs
        attention = model.bert.encoder.layer[-1].attention.self
        return [part(hidden[-2]) for part in (attention.query, attention.key, attention.value)]

    def relation(x, heads):
        x = x.unflatten(2, (heads, -1)).transpose(1, 2)
        return (x @ x.transpose(2, 3) / x.shape[3] ** 0.5).float().log_softmax(3)

    def step():
        with hardware.autocast(device, dtype):
            if strategy == "scratch":
                loss = student(inputs, labels=labels).loss
            elif strategy == "kd":
                with torch.no_grad():
                    t = master(inputs)
                s = student(inputs, labels=labels)
                z_S, z_T = (output.logits.flatten(0, 1)[positions].float() for output in (s, t))
                loss = s.loss - (z_T.softmax(1) * z_S.log_softmax(1)).sum(1).mean()
            else:  # no logits are read
                tables = {"output_hidden_states": True, "output_attentions": True}
                with torch.no_grad():
                    t = master.bert(inputs, **tables)
                s = student.bert(inputs, **tables)
                if strategy == "tinybert":
                    every = teacher.L // size.L
                    loss = sum(F.mse_loss(project(x).float(), y.float()) for x, y in zip(s.hidden_states, t.hidden_states[::every]))
                    loss = loss + sum(F.mse_loss(x.float(), y.float()) for x, y in zip(s.attentions, t.attentions[every - 1::every]))
                else:
                    heads = teacher.h // 16
                    loss = sum(F.kl_div(relation(x, heads), relation(y, heads), reduction="sum", log_target=True) / (B * heads * T)
                               for x, y in zip(qkv(student, s.hidden_states), qkv(master, t.hidden_states))) / 3
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    return step


def random_batch(B, V, T, device):
    n = budget.masked_positions(T)
    positions = torch.stack([torch.randperm(T)[:n].sort().values + T * b for b in range(B)]).flatten()  # (B, n) -> (N,)
    blocks, words = torch.randint(5, V, (B, T)), torch.randint(5, V, (B * n,))
    return [tensor.to(device) for tensor in (blocks, blocks, positions, words)]


def steps(args, name, strategy, size, teacher=None, wanted=None, share=None, V=V, T=T, B=None):
    """Rows of one kind of step, one for each precision that this machine has."""
    device, fast = hardware.select("auto", "auto")
    size, teacher, B = budget.size(size), teacher and budget.size(teacher), B or args.batch_size
    for dtype in ["fp32", "bf16"] if fast == "bf16" else ["fp32"]:
        work, flops = our_step(strategy, size, teacher, B, dtype, device, V, T, args.compile)
        peaks = []
        found = interleaved({"ours": work, "theirs": their_step(strategy, size, teacher, B, dtype, device, V, T),
                             "peak": lambda: peaks.append(hardware.peak(device, dtype))}, args.rounds if flops > 1e11 else 10 * args.rounds)
        peak = statistics.median(peaks)
        yield row(f"{name}, {size}{f' from {teacher}' if teacher else ''}, V {V:,}, T {T}, B {B}, {dtype}", found["ours"], found["theirs"], wanted,
                  flops_per_second=flops / found["ours"], peak=peak, share=flops / found["ours"] / peak,
                  share_wanted=share and share[dtype], tokens_per_second=B * T / found["ours"])


def mlm(args):
    yield from steps(args, "MLM", "scratch", "6x768", wanted=1.4, share={"fp32": 0.85, "bf16": 0.65})
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


# ---------------------------------------------------------------------------------------------------------------------
# All the rest

def finetune(args):
    """An epoch of fine-tuning on made-up texts as long as those of RTE and SST-2, against transformers' Trainer."""
    import numpy as np
    transformers, (device, dtype) = peers(), hardware.select("auto", "auto")
    with tempfile.TemporaryDirectory() as folder:
        Bert(BertConfig.of(budget.size("4x128"), vocab_size=V, max_position_embeddings=128), mlm_head=False, pooler=True).save_pretrained(folder)
        for name, mean, spread, n in (("RTE", 4.1, 0.55, 1200), ("SST-2", 2.3, 0.6, 3000)):  # log of a text's tokens
            rng = np.random.default_rng(0)
            lengths = np.exp(rng.normal(mean, spread, n)).clip(5, 128).astype(int)
            texts = [(rng.integers(5, V, length).tolist(), [0] * length) for length in lengths]
            labels = rng.integers(0, 2, n).tolist()
            task = gluefiles.Task(name, {"train": [("", None, label) for label in labels], "dev": [("", None, 0)]}, ("0", "1"), (), ("dev",))
            rows_of_theirs = [{"input_ids": ids, "token_type_ids": types, "labels": label} for (ids, types), label in zip(texts, labels)]

            def collate(rows):
                longest = max(len(r["input_ids"]) for r in rows)
                return {"labels": torch.tensor([r["labels"] for r in rows]),
                        "attention_mask": torch.tensor([[1] * len(r["input_ids"]) + [0] * (longest - len(r["input_ids"])) for r in rows]),
                        **{key: torch.tensor([r[key] + [0] * (longest - len(r[key])) for r in rows]) for key in ("input_ids", "token_type_ids")}}

            def theirs():
                with quiet():
                    model = transformers.BertForSequenceClassification.from_pretrained(folder, num_labels=2)
                    options = transformers.TrainingArguments(f"{folder}/trainer", per_device_train_batch_size=16, num_train_epochs=1, report_to=[],
                                                             bf16=dtype == "bf16", use_cpu=device.type == "cpu", save_strategy="no", logging_strategy="no",
                                                             disable_tqdm=True, learning_rate=1e-4, weight_decay=0.01)
                    transformers.Trainer(model, options, train_dataset=rows_of_theirs, data_collator=collate).train()
            found = interleaved({"ours": lambda: glue.fine_tune(folder, task, {"train": texts}, 0, 1e-4, 16, 1, 0, device, dtype),
                                 "theirs": theirs}, args.rounds)
            yield row(f"fine-tuning 4x128, {n:,} texts as long as {name}'s, {dtype}", found["ours"], found["theirs"], 1.3)


def text(args):
    """From files of text to tokens in the cache, against `tokenizers` alone on the same documents."""
    documents = [" ".join(stories.story(0, 50 * i + j) for j in range(50)) for i in range(400)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
        os.environ["ISOFLOP_CACHE"] = f"{folder}/cache"
        with quiet():
            tokenizer, number = data.open_corpus([f"{folder}/text.txt"], 32, 0, vocab_size=300).tokenizer, iter(range(10 ** 6))

        def ours():
            os.environ["ISOFLOP_CACHE"] = f"{folder}/cache{next(number)}"
            data.open_corpus([f"{folder}/text.txt"], 32, 0, tokenizer)

        def theirs():
            for i in range(0, len(documents), 100):
                tokenizer.encode_batch_fast(documents[i:i + 100], add_special_tokens=False)
        with quiet():
            found = interleaved({"ours": ours, "theirs": theirs}, args.rounds)
        os.environ.pop("ISOFLOP_CACHE")
    yield row(f"text to tokens, {sum(map(len, documents)) / 1e6:.0f} MB", found["ours"], found["theirs"], 0.8)


def stories(args):
    """Blocks of stories in the time of the training steps that use them: the loop never waits."""
    device, dtype = hardware.select("auto", "auto")
    step, _ = our_step("scratch", budget.size("2x128"), None, 32, dtype, device, 201, 32)

    def batches():  # of more than two shards, by a maker that has made none before
        corpus = data.open_corpus(["stories"], 32, 0)
        for number in range(600):
            data.mask_tokens(corpus.blocks(number, 32), data.generator(0, number), corpus.vocabulary)
        corpus.close()
    found = interleaved({"batches": batches, "steps": lambda: [step() for _ in range(600)]}, args.rounds)
    yield row("600 masked batches of stories, and 600 steps of 2x128 (T 32, B 32)", found["batches"], found["steps"], 5)


def high_water():
    """The most bytes of memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the process that started this one, too
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory(args):
    """Peak memory of a process that makes MLM steps."""
    peers()
    peak = {}
    for side in ("ours", "theirs"):
        done = subprocess.run([sys.executable, __file__, "--peak-memory", side, "--batch-size", str(args.batch_size)], capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"the memory row failed: {(done.stderr.strip().splitlines() or [f'exit status {done.returncode}'])[-1]}")
        peak[side] = int(done.stdout.split()[-1])
    yield row(f"peak memory of MLM steps, 6x768, B {args.batch_size}, fp32: GiB, not s", peak["ours"] / 2 ** 30, peak["theirs"] / 2 ** 30, 1 / 0.7)


def start(args):
    """Programs that should answer at once. `theirs` is what they should take."""
    for line in ("train.py --help", "glue.py --help", "compare.py --help", "budget.py --model 6x768 --flops 1e17"):
        found = interleaved({"ours": lambda: subprocess.run([sys.executable, *line.split()], cwd=HERE, check=True, stdout=subprocess.DEVNULL)}, 5)
        yield row(f"python {line}", found["ours"], 0.3, 1)


def gpu(args):
    """Steps on a GPU: tokens a second, share of the measured peak, memory."""
    if not torch.cuda.is_available():
        raise UserError("--gpu: torch finds no CUDA GPU here")
    device = torch.device("cuda")
    for strategy, size, teacher in (("scratch", "6x768", None), ("scratch", "12x768", None), ("kd", "6x768", "12x768")):
        torch.cuda.reset_peak_memory_stats()
        step, flops = our_step(strategy, budget.size(size), teacher and budget.size(teacher), args.batch_size, "bf16", device, compiled=args.compile)
        peaks = []
        found = interleaved({"ours": lambda: [step() for _ in range(10)], "peak": lambda: peaks.append(hardware.peak(device, "bf16"))}, args.rounds)
        yield row(f"{strategy} {size}{f' from {teacher}' if teacher else ''}, V {V:,}, T {T}, B {args.batch_size}, bf16{', compiled' if args.compile else ''}",
                  found["ours"] / 10, tokens_per_second=10 * args.batch_size * T / found["ours"], share=10 * flops / found["ours"] / statistics.median(peaks),
                  share_wanted=0.5 if strategy == "scratch" else 0.4, peak=statistics.median(peaks), memory=torch.cuda.max_memory_allocated())


ROWS = {work.__name__: work for work in (mlm, demo, kd, taught, finetune, text, stories, memory, start)}


def line_of(found):
    marks = []
    if found["ratio"]:
        marks += [f"{found['ratio']:5.2f}x" + (f" (wanted {found['wanted']:.3g})" if found["wanted"] else "")]
    if found.get("share"):
        marks += [f"{found['share']:.0%} of peak" + (f" (wanted {found['share_wanted']:.0%})" if found.get("share_wanted") else "")]
    if found.get("tokens_per_second"):
        marks += [f"{found['tokens_per_second']:,.0f} tokens/s"]
    if found.get("memory"):
        marks += [f"{found['memory'] / 2 ** 30:.1f} GiB"]
    return f"{found['name']:68} {found['ours']:8.3f} {found['theirs'] or float('nan'):8.3f}  {', '.join(marks)}"


def main():
    args = arguments()
    if args.peak_memory:
        hardware.keep_memory(args.peak_memory == "ours")
        size, device = budget.size("6x768"), torch.device("cpu")
        step = our_step("scratch", size, None, args.batch_size, "fp32", device)[0] if args.peak_memory == "ours" else \
            their_step("scratch", size, None, args.batch_size, "fp32", device)
        step(), step()
        print(high_water())
        return
    device, dtype = hardware.select("auto", "auto")
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, {torch.get_num_threads()} threads"
    setting = {"machine": name, "torch": torch.__version__, "fast dtype": dtype, "rounds": args.rounds, "compiled": args.compile}
    found = []
    if not args.json:
        cli.say(", ".join(f"{key} {value}" for key, value in setting.items())
                + ("" if dtype == "bf16" else ": no bf16 rows, this hardware does not multiply it"))
        cli.say(f"{'':68} {'ours s':>8} {'theirs s':>8}")
    for work in [gpu] if args.gpu else [ROWS[name] for name in args.rows]:
        for one in work(args):
            found.append(one)
            if not args.json:
                cli.say(line_of(one))
    if args.json:
        cli.say(disk.json_text({**setting, "rows": found}).rstrip())


if __name__ == "__main__":
    cli.program(main)
