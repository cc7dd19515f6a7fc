"""Pretrain a BERT within a budget of FLOPs. The one loop.

    python train.py --strategy scratch --flops 1e13
    python train.py --strategy scratch --flops 1e15 --data books/ --tokenizer bert-base-uncased

From top to bottom: the command line, the setting up, the loop, what a run leaves behind. A killed run continues when the
same command is given again, and ends with the same weights, bit for bit: the batch, the masks and the dropout of a step
are functions of (seed, step) alone, and a checkpoint holds all the rest.
"""
import math
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import budget
import card
import cli
import runs
from cli import UserError

EXAMPLES = """examples:
  python train.py --strategy scratch --flops 1e13                        stories, a few minutes on a laptop
  python train.py --strategy scratch --flops 1e14 --data my-books/       your text: .txt .jsonl .csv .parquet, or a hub id"""


def arguments(argv=None):
    parser = cli.Parser(description="Pretrain a BERT within a budget of FLOPs.", epilog=EXAMPLES)
    add, whole, real = parser.add_argument, cli.whole, cli.real
    add("--strategy", default="scratch", choices=["scratch"], help="how the student learns (default: %(default)s)")
    add("--flops", type=cli.number, required=True, metavar="C", help="the budget, like 1e13 or 2.5e15; never exceeded")
    add("--model", type=budget.size, metavar="LxH", help="the student: 2x128, 6x768, 4x312h12f1200 (default: by the budget)")
    add("--data", nargs="+", default=["stories"], metavar="TEXT", help="stories (default), files or folders, or a hub id "
        "with optional configuration and split: wikimedia/wikipedia:20231101.en")
    add("--text-column", metavar="NAME", help="the column that holds the text, where it is not 'text' or the only one")
    add("--tokenizer", metavar="NAME", help="a tokenizer.json, a folder or a hub id (default: made from the text)")
    add("--vocab-size", type=whole(6, 10 ** 6), metavar="V", help="word pieces of a tokenizer made from the text (default: 8192)")
    add("--unique-tokens", type=cli.number, metavar="N", help="train on N distinct tokens, repeated (default: all there are)")
    add("--seq-len", type=whole(4, 2 ** 16), metavar="T", help="tokens in a block (default: 32, from 1e15 FLOPs on 128)")
    add("--batch-size", type=whole(1, 2 ** 24), metavar="B", help="blocks in a step (default: stories 32, text 64, from 1e15 FLOPs on 256)")
    add("--lr", type=real(1e-9, 10), metavar="R", help="peak learning rate (default: 2e-3 sqrt(128 / h))")
    add("--betas", type=real(0, 1 - 1e-9), nargs=2, default=[0.9, 0.98], metavar="b", help="of AdamW (default: the paper's 0.9 0.98)")
    add("--weight-decay", type=real(0, 10), default=0.01, metavar="w", help="except on biases and LayerNorm (default: %(default)s)")
    add("--warmup", type=real(0, 1), default=0.06, metavar="w", help="share of the steps in which the rate rises (default: %(default)s)")
    add("--dropout", type=real(0, 0.9), default=0.0, metavar="p", help="default: %(default)s; the paper: 0.1")
    add("--init-range", type=real(1e-9, 10), metavar="s", help="of the first weights (default: 0.02 sqrt(768 / h); BERT: 0.02)")
    add("--seed", type=whole(0, 2 ** 31 - 1), default=0, metavar="n", help="decides weights, order, masks, stories (default: %(default)s)")
    add("--dtype", default="auto", choices=["auto", "fp32", "bf16"], help="auto: bf16 autocast where the hardware has it")
    add("--device", default="auto", metavar="D", help="auto (default), cpu, cuda, cuda:1, mps")
    add("--out", metavar="FOLDER", help="default: runs/ and a name made of the settings")
    add("--dry-run", action="store_true", help="print the plan and stop")
    args = parser.parse_args(argv)
    # Short blocks and small batches for small budgets: what decides whether a small model leaves the unigram plateau. At
    # T = 128 a laptop's whole budget can go by on it (LOG.md); the paper's setting is for budgets that pay for it.
    small = args.flops < 10 ** 15
    args.seq_len = args.seq_len or (32 if small else 128)
    args.batch_size = args.batch_size or ((32 if args.data == ["stories"] else 64) if small else 256)
    return args


# ---------------------------------------------------------------------------------------------------------------------
# Setting up

def masked_batch(corpus, seed, step, batch_size, device):
    """The batch of a step, a function of (seed, step): inputs (B, T), positions (N,), labels (N,)."""
    import torch
    import data
    arrays = data.mask_tokens(corpus.blocks(step, batch_size), data.generator(seed, step), corpus.vocabulary)
    return [torch.from_numpy(array).to(device, non_blocking=True) for array in arrays]


def rate_of(model, batch, autocast, flops_per_sequence):
    """FLOP/s of this machine, from a few measured forward and backward passes on part of a batch. Leaves no trace."""
    from distill import mlm_loss
    inputs, positions, labels = batch
    rows = len(inputs)
    if inputs.device.type == "cpu":
        rows = min(rows, max(1, int(1e11 // flops_per_sequence)))  # about a second's work on a laptop
    n = len(positions) // len(inputs) * rows
    times, began = [], time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < 1 and len(times) < 30):
        start = time.perf_counter()
        with autocast():
            logits = model(inputs[:rows], positions=positions[:n]).logits
        mlm_loss(logits, labels[:n]).backward()
        model.embeddings.word_embeddings.weight.grad[0, 0].item()  # waits until a GPU has done its work
        times.append(time.perf_counter() - start)
    model.zero_grad()
    return rows * flops_per_sequence / sorted(times[1:])[len(times[1:]) // 2]


def dropout_seed(seed, step):
    """The seed of a step's dropout: 32 bits, since on a CPU torch reads no more of it."""
    import data
    return int(data.generator(seed, step, 1).integers(2 ** 32))


def learning_rate(step, steps, peak, warmup):
    """Linear warmup over the first share `warmup` of the steps, then linear decay, to zero after the last."""
    rising = warmup * steps
    return peak * min((step + 1) / (rising + 1), (steps - step) / (steps - rising) if steps > rising else 1.0)


def main():
    args = arguments()
    check_writable(Path(args.out) if args.out else Path("runs"))
    if args.out:
        runs.refuse_foreign(args.out)  # before hours of tokenizing, too
    import torch
    import baselines
    import data
    from model import Bert, BertConfig

    device, dtype = runs.hardware(args.device, args.dtype)
    if device.type == "cuda":  # attention's backward adds in any order otherwise, and a resumed run would differ in the last bits
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    makers = 1 if device.type == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 2))
    corpus = data.open_corpus(args.data, args.seq_len, args.seed, args.tokenizer, args.vocab_size, args.unique_tokens,
                              args.text_column, makers)
    corpus.check(args.batch_size)
    V, T, B = corpus.vocabulary.size, args.seq_len, args.batch_size
    size = args.model or budget.choose(args.flops, V, T)
    plan = budget.plan(args.flops, budget.step_flops(size, V, T, B), B, T, corpus.unique)
    folder = Path(args.out or Path("runs") / card.default_name(args, size))
    runs.refuse_foreign(folder)
    if args.lr is None:
        args.lr = 2e-3 * math.sqrt(128 / size.h)
    longest = max(128, T)  # the position table: room for fine-tuning at 128
    sizes = {"vocab_size": V, "max_position_embeddings": longest, "pad_token_id": corpus.vocabulary.pad,
             "hidden_dropout_prob": args.dropout, "attention_probs_dropout_prob": args.dropout}
    if args.init_range is not None:
        sizes["initializer_range"] = args.init_range
    config = BertConfig.of(size, **sizes)
    settings = {key: getattr(args, key) for key in ("strategy", "data", "text_column", "unique_tokens", "seq_len", "batch_size",
                "lr", "betas", "weight_decay", "warmup", "dropout", "seed")}
    settings |= {"flops_budget": args.flops, "model": str(size), "vocab_size": V, "initializer_range": config.initializer_range,
                 "dtype": dtype, "device": device.type, "text_sha256": corpus.info["sha256"]["train"][:16],
                 "tokenizer": args.tokenizer or "made from the text"}

    model = Bert(config).to(device)  # its weights serve to measure the speed; those of the seed come after
    if not args.dry_run and (folder / "run.json").exists():  # before any measuring: a finished run has nothing to plan
        with runs.Run(folder, settings) as run:
            if run.finished:
                run.remove_checkpoints()
                card.print_result(run.record, folder)
                return
    blocks, (inputs, positions, labels) = corpus.validation()
    sample = corpus.sample()
    p = baselines.unigram(sample, V)
    floors = {"unigram_loss": baselines.unigram_loss(p, labels),
              "neighbour_loss": baselines.neighbour_loss(sample, blocks, positions, labels, p)}
    validation = [torch.from_numpy(array).to(device) for array in (inputs, positions, labels)]

    def autocast():
        return torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16")
    model.train()
    rate = rate_of(model, masked_batch(corpus, args.seed, 0, B, device), autocast, plan.flops_per_step // B)
    print(card.plan_text(args, plan, size, model.parameter_count(), corpus, device, dtype, rate, floors, folder, V), flush=True)
    if args.dry_run:
        corpus.close()
        return
    torch.manual_seed(args.seed)
    model.initialise(model)
    with runs.Run(folder, settings) as run:
        seconds = train(run, model, corpus, plan, args, autocast, validation, floors)
        record = finish(run, model, corpus, plan, floors, seconds)
    corpus.close()
    card.print_result(record, folder)


def check_writable(folder):
    folder = folder.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"--out {folder} cannot be written: {existing} is {'read-only for you' if existing.is_dir() else 'a file'}")


# ---------------------------------------------------------------------------------------------------------------------
# The loop

def train(run, model, corpus, plan, args, autocast, validation, floors):
    """From the newest checkpoint of `run`, or from the beginning, to the last step of the plan."""
    import torch
    from tqdm import tqdm
    from distill import mlm_loss
    device, steps, B = validation[0].device, plan.steps, args.batch_size
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]  # biases and LayerNorm: no weight decay
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": args.weight_decay},
                                   {"params": vectors, "weight_decay": 0.0}],
                                  betas=tuple(args.betas), eps=1e-6, fused=device.type in ("cpu", "cuda"))
    step, seconds, loss_sum, logged = restore(run, model, optimizer)
    run.rewind_log(step)
    if step:
        print(f"continuing at step {step:,} of {steps:,}")
    log_every, save_every = max(1, min(100, steps // 500)), max(1, steps // 20)
    validate_at = {round(i * steps / 10) for i in range(11)}
    began = saved = time.perf_counter()
    mark = (step, began)  # of the last log line, or of the end of a validation or a save: what the logged speed leaves out

    def say(words):
        try:
            bar.write(words)
        except BrokenPipeError:  # a reader like `head` has gone: the run goes on
            cli.discard_stdout()

    def save():
        nonlocal saved
        runs.sync(run.folder / "log.jsonl")  # the log must not be behind the checkpoint, also after a power cut
        run.save_checkpoint(step, checkpoint(model, optimizer, seconds + time.perf_counter() - began, loss_sum, logged))
        saved = time.perf_counter()

    def checked(loss):
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss} at step {step:,}: most likely the learning rate is too high ({args.lr:g}); "
                            f"lower --lr and choose another --out. The last good checkpoint is kept in {run.folder}")
        return loss

    def report():
        nonlocal train_loss
        val_loss = validation_loss(model, validation, autocast)
        run.log(step=step, flops=step * plan.flops_per_step, tokens=step * B * corpus.T, val_loss=val_loss, **floors)
        say(f"{step:>9,} steps {budget.flops(step * plan.flops_per_step):>9} FLOPs   training {train_loss:>5}   "
            f"validation {val_loss:.3f}   (unigram {floors['unigram_loss']:.3f}, neighbours {floors['neighbour_loss']:.3f})")

    train_loss = "-"
    with cli.Signals() as signals, tqdm(total=plan.flops_spent, initial=step * plan.flops_per_step, unit="FLOP", unit_scale=True,
                                         smoothing=0.05, mininterval=0.5, dynamic_ncols=True) as bar:
        if step in validate_at and not any(row["step"] == step and "val_loss" in row for row in run.read_log()):
            report()
        while step < steps:
            if args.dropout:
                torch.manual_seed(dropout_seed(args.seed, step))
            inputs, positions, labels = masked_batch(corpus, args.seed, step, B, device)
            with autocast():
                logits = model(inputs, positions=positions).logits
            loss = mlm_loss(logits, labels)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, args.lr, args.warmup)
            if device.type == "cpu":
                checked(loss.item())  # before the optimizer spreads it; elsewhere reading the loss would stop the pipeline
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            loss_sum, logged = loss_sum + loss.detach(), logged + 1
            bar.update(plan.flops_per_step)

            if step % log_every == 0 or step == steps:
                now, mean = time.perf_counter(), checked(loss_sum.item() / logged)
                speed = (step - mark[0]) * plan.flops_per_step / (now - mark[1])
                run.log(step=step, flops=step * plan.flops_per_step, tokens=step * B * corpus.T, loss=mean,
                        lr=optimizer.param_groups[0]["lr"], flops_per_second=speed, seconds=seconds + now - began)
                train_loss, mark = f"{mean:.3f}", (step, now)
                bar.set_postfix_str(f"loss {train_loss}", refresh=False)
                loss_sum, logged = torch.zeros_like(loss_sum), 0
            if step in validate_at:
                report()
                mark = (step, time.perf_counter())
            if step % save_every == 0 or step == steps or time.perf_counter() - saved > 60 or signals.stopped:
                if not all(p.isfinite().all() for p in model.parameters()):
                    checked(math.nan)
                save()
                mark = (step, time.perf_counter())
            if signals.stopped and step < steps:
                say(f"stopped at step {step:,} of {steps:,}, saved in {run.folder}: the same command continues")
                raise signals.stopped
    return seconds + time.perf_counter() - began


def validation_loss(model, validation, autocast, rows=128):
    """Mean masked-word loss on the validation set, in nats."""
    import torch
    from distill import mlm_loss
    inputs, positions, labels = validation
    k = len(positions) // len(inputs)
    total = count = 0
    model.eval()
    with torch.no_grad(), autocast():
        for i in range(0, len(inputs), rows):
            part = slice(i * k, (i + rows) * k)
            here = labels[part]
            logits = model(inputs[i:i + rows], positions=positions[part] - i * inputs.shape[1]).logits
            n = int((here >= 0).sum())
            total += mlm_loss(logits, here).item() * n if n else 0.0
            count += n
    model.train()
    return total / count


def checkpoint(model, optimizer, seconds, loss_sum, logged):
    """All that the next step depends on, as tensors: weights, AdamW's two moments and its step; and the log's running mean."""
    import torch
    tensors = {f"model.{name}": p for name, p in model.state_dict().items()}
    for name, p in model.named_parameters():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[p].items()}
    return tensors | {"seconds": torch.tensor(seconds, dtype=torch.float64), "loss_sum": loss_sum, "logged": torch.tensor(logged)}


def restore(run, model, optimizer):
    """(step, seconds, running sum of losses, their number) of the newest checkpoint, whose weights and moments are put in place."""
    import torch
    device = next(model.parameters()).device
    step, tensors = run.load_checkpoint()
    if tensors is None:
        return 0, 0.0, torch.zeros((), device=device), 0
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    for name, p in model.named_parameters():
        keys = ("step", "exp_avg", "exp_avg_sq")
        optimizer.state[p] = {key: tensors[f"optimizer.{name}.{key}"].to(device if key != "step" or device.type == "cuda" else "cpu")
                              for key in keys}
    return step, tensors["seconds"].item(), tensors["loss_sum"].to(device), tensors["logged"].item()


def finish(run, model, corpus, plan, floors, seconds):
    """Writes what the run leaves behind. A kill in here loses nothing: the last checkpoint goes only when all is written."""
    import torch
    import text
    log = run.read_log()
    val_loss = [row["val_loss"] for row in log if "val_loss" in row][-1]
    run.write_record(strategy=run.settings["strategy"], seed=run.settings["seed"], flops_budget=plan.flops_budget, **floors, val_loss=val_loss,
                     flops_spent=plan.flops_spent, steps=plan.steps, tokens=plan.tokens, epochs=plan.epochs,
                     seconds=seconds, parameters=model.parameter_count(),
                     versions={"python": platform.python_version(),
                               **{name: version(name) for name in ("torch", "numpy", "tokenizers", "safetensors")}},
                     threads=torch.get_num_threads(), machine=torch.cuda.get_device_name(model.device) if model.device.type == "cuda"
                     else f"{platform.machine()}, {os.cpu_count()} cores")
    model.save_pretrained(run.folder)
    text.save_tokenizer(corpus.tokenizer, run.folder, model.config.max_position_embeddings)
    card.draw_curve(run.folder, log, run.record)
    runs.write_file(run.folder / "README.md", card.model_card(run.record, corpus.name))
    run.write_record(finished=True)
    run.remove_checkpoints()
    return run.record


if __name__ == "__main__":
    cli.program(main)
