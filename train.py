"""Pretrain a BERT within a budget of FLOPs. The one loop.

    python train.py --strategy scratch --flops 1e13
    python train.py --strategy kd --teacher runs/teacher --flops 1e13 --model 2x128

From top to bottom: the command line, the setting up, the loop, what a run leaves behind. A killed run continues when the
same command is given again, and ends with the same weights, bit for bit: the batch, the masks and the dropout of a step
are functions of (seed, step) alone, and a checkpoint holds all the rest.
"""
import contextlib
import math
import os
import platform
import signal
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import budget
import card
import cli
import disk
import distill
import machine
import runs
from cli import UserError

EXAMPLES = """examples:
  python train.py --strategy scratch --flops 1e13                        stories, a few minutes on a laptop
  python train.py --strategy kd --teacher runs/... --flops 1e13          the same budget, distilled from a run's folder
  python train.py --strategy scratch --flops 1e14 --data my-books/       your text: .txt .jsonl .csv .parquet, or a hub id"""


def arguments(argv=None):
    parser = cli.Parser(description="Pretrain a BERT within a budget of FLOPs.", epilog=EXAMPLES)
    add, whole, real = parser.add_argument, cli.whole, cli.real
    add("--strategy", default="scratch", choices=list(distill.STRATEGIES), metavar="NAME",
        help=f"how the student learns: {', '.join(distill.STRATEGIES)} (default: %(default)s)")
    add("--teacher", metavar="NAME", help="a run's folder, a BERT's folder or a hub id; the student takes its tokenizer")
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
    add("--init", default="random", choices=["random", "teacher"], help="teacher: copy every n-th of its layers (default: random)")
    add("--mlm-finish", type=real(0, 0.9), default=0.0, metavar="s", help="share of the budget, its last part, that goes to plain masked "
        "language modelling (default: 0)")
    add("--temperature", type=real(0.01, 1000), default=1.0, metavar="t", help="of kd (default: %(default)s)")
    add("--relation-heads", type=whole(1, 10 ** 4), metavar="R", help="of minilm (default: teacher heads of 16, as far as the widths allow)")
    add("--teacher-layer", type=whole(1, 1000), metavar="l", help="that minilm learns from (default: the last; above 12 layers 7/8 of the way up)")
    add("--micro-batch", type=whole(1, 2 ** 24), metavar="n", help="blocks that a pass computes at once (default: what fits into memory)")
    add("--compile", default="auto", choices=["auto", "on", "off"], help="torch.compile of the layers; auto: on a GPU, for runs beyond ten minutes")
    add("--out", metavar="FOLDER", help="default: runs/ and a name made of the settings")
    add("--dry-run", action="store_true", help="print the plan and stop")
    args = parser.parse_args(argv)
    # Short blocks and small batches for small budgets: what decides whether a small model leaves the unigram plateau. At
    # T = 128 a laptop's whole budget can go by on it (LOG.md); the paper's setting is for budgets that pay for it.
    small = args.flops < 10 ** 15
    args.seq_len = args.seq_len or (32 if small else 128)
    args.batch_size = args.batch_size or ((32 if args.data == ["stories"] else 64) if small else 256)
    if args.strategy == "scratch" and (args.teacher or args.init == "teacher" or args.mlm_finish):
        flag = "--teacher" if args.teacher else "--init teacher" if args.init == "teacher" else "--mlm-finish"
        raise UserError(f"{flag} is for a student that is taught, and --strategy scratch learns from the text alone: leave it out, or choose "
                        f"a strategy like kd")
    if args.strategy != "scratch" and args.teacher is None:
        distill.lesson(args.strategy, None, None)  # says what is missing
    if args.teacher and args.vocab_size:
        raise UserError("--vocab-size is for a tokenizer that is made from the text, and a student takes its teacher's: leave it out")
    if args.teacher and args.out and os.path.realpath(args.out) == os.path.realpath(args.teacher):
        raise UserError(f"--out {args.out} is the teacher's own folder: choose another")
    return args


# ---------------------------------------------------------------------------------------------------------------------
# Setting up

def masked_batch(corpus, seed, step, batch_size, device):
    """The batch of a step, a function of (seed, step): blocks (B, T), and masked: inputs (B, T), positions (N,), labels (N,)."""
    import torch
    import data
    blocks = corpus.blocks(step, batch_size)
    arrays = blocks, *data.mask_tokens(blocks, data.generator(seed, step), corpus.vocabulary)
    tensors = [torch.from_numpy(array) for array in arrays]
    if device.type == "cuda":  # from pinned memory the copy does not wait for the GPU: the next batch is made while it still computes
        tensors = [tensor.pin_memory() for tensor in tensors]
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


def dropout_seed(seed, step, rank):
    """The seed of a step's dropout in a process: 32 bits, since on a CPU torch reads no more of it."""
    import data
    return int(data.generator(seed, step, 1 + rank).integers(2 ** 32))


def learning_rate(step, steps, peak, warmup):
    """Linear warmup over the first share `warmup` of the steps, then linear decay, to zero after the last."""
    rising = warmup * steps
    return peak * min((step + 1) / (rising + 1), (steps - step) / (steps - rising) if steps > rising else 1.0)


def main():
    args = arguments()
    runs.check_writable(Path(args.out) if args.out else Path("runs"))
    if args.out:
        runs.refuse_foreign(args.out)  # before hours of tokenizing, too
    import torch
    import baselines
    import data
    from learner import Learner, check_pair, copy_teacher, load_teacher, rate_of, tokenizer_of
    from model import Bert, BertConfig
    from parallel import Follower, Processes, portion_that_fits

    processes = Processes()
    device, dtype = machine.hardware(processes.device(args.device), args.dtype)
    makers = 1 if device.type == "cpu" else max(1, min(8, (os.cpu_count() or 2) - 2))
    T, B, teacher, tokenizer = args.seq_len, args.batch_size, None, args.tokenizer
    how = distill.Options(args.temperature, args.relation_heads, args.teacher_layer)
    if args.teacher:  # what is wrong with it is said before hours of tokenizing
        teacher = load_teacher(args.teacher, T)
        tokenizer = tokenizer_of(teacher, args.tokenizer)
        taught_by = teacher.model.config.size
        size = args.model or budget.choose(args.flops, teacher.model.config.vocab_size, T)
        lesson = distill.lesson(args.strategy, size, taught_by, how)
        check_pair(lesson, size, teacher.model, copies=args.init == "teacher")
    corpus = data.open_corpus(args.data, T, args.seed, tokenizer, args.vocab_size, args.unique_tokens, args.text_column, makers)
    corpus.check(B)
    if B < processes.world:
        raise UserError(f"--batch-size {B} is less than a block for each of {processes.world} processes: raise it, or start fewer")
    processes.join(device)
    V = corpus.vocabulary.size
    if teacher is None:
        taught_by, size = None, args.model or budget.choose(args.flops, V, T)
        lesson = distill.lesson(args.strategy, size, None, how)
    plan = budget.plan(args.flops, budget.step_flops(size, V, T, B, lesson, taught_by), B, T, corpus.unique, args.mlm_finish,
                       budget.step_flops(size, V, T, B))
    folder = Path(args.out or Path("runs") / card.default_name(args, size, teacher))
    runs.refuse_foreign(folder)
    if args.lr is None:
        args.lr = 2e-3 * math.sqrt(128 / size.h)
    longest = max(128, T)  # the position table: room for fine-tuning at 128
    sizes = {"vocab_size": V, "max_position_embeddings": longest, "pad_token_id": corpus.vocabulary.pad,
             "hidden_dropout_prob": args.dropout, "attention_probs_dropout_prob": args.dropout}
    if args.init_range is not None:
        sizes["initializer_range"] = args.init_range
    if args.init == "teacher":  # whose layers it will have
        given = teacher.model.config
        sizes |= {"max_position_embeddings": min(longest, given.max_position_embeddings), "type_vocab_size": given.type_vocab_size,
                  "layer_norm_eps": given.layer_norm_eps}
    config = BertConfig.of(size, **sizes)
    settings = {key: getattr(args, key) for key in ("strategy", "data", "text_column", "unique_tokens", "seq_len", "batch_size",
                "lr", "betas", "weight_decay", "warmup", "dropout", "seed")}
    settings |= {"flops_budget": args.flops, "model": str(size), "vocab_size": V, "initializer_range": config.initializer_range,
                 "dtype": dtype, "device": device.type, "text_sha256": corpus.fingerprint,
                 "tokenizer": args.tokenizer or ("the teacher's" if teacher else "made from the text")}
    if teacher:
        settings |= {"teacher_sha256": teacher.sha256, "teacher_model": str(taught_by), "init": args.init, "mlm_finish": args.mlm_finish,
                     **how._asdict()}

    model = Bert(config, mlm_head=lesson.student.logits or args.mlm_finish > 0)  # a head only where a loss trains one
    torch.manual_seed(args.seed)
    model.initialise(model)  # the same weights whichever the strategy, and the device
    if args.init == "teacher":
        copy_teacher(model, teacher.model)
    learner = Learner(model, lesson, teacher and teacher.model.to(device), dtype).to(device)
    open_run = runs.Run(folder, settings) if processes.first else contextlib.nullcontext(Follower(folder))
    record = {}
    if processes.first and not args.dry_run and (folder / "run.json").exists():  # before any measuring: a finished run has nothing to plan
        with open_run as run:
            record = run.record
            if run.finished:
                disk.fetch(folder, list(record.get("files", {})))  # says which of them is damaged
                run.remove_checkpoints()
                card.print_result(record, folder)
                cli.say("It was finished before: nothing was left to do.")
    record = processes.from_first(record)
    if record.get("finished"):
        processes.leave()
        return
    blocks, masked = corpus.validation()
    sample = corpus.sample()
    p = baselines.unigram(sample, V)
    floors = {"unigram_loss": baselines.unigram_loss(p, masked[2]),
              "neighbour_loss": baselines.neighbour_loss(sample, blocks, masked[1], masked[2], p)}
    validation = [torch.from_numpy(array).to(device) for array in (blocks, *masked)]

    autocast = partial(machine.autocast, device, dtype)
    learner.train()
    # A run that was begun goes on with the portions that it began with: sums in another order differ in their last digits.
    portion = processes.from_first(args.micro_batch or record.get("micro_batch") or
                                   portion_that_fits(size, V, T, lesson, taught_by, device, math.ceil(B / processes.world)))
    rate = processes.world * rate_of(learner, masked_batch(corpus, args.seed, 0, B, device), autocast, plan.flops_per_step // B, min(portion, B))
    peak = processes.world * machine.peak(device, dtype)
    # Compiling takes some minutes: it pays for a long run on a GPU.
    compiled = processes.from_first(args.compile == "on" or args.compile == "auto" and
                                    record.get("compiled", device.type == "cuda" and plan.flops_spent / rate > 600))
    cli.say(card.plan_text(args, plan, size, model.parameter_count(), corpus, device, dtype, rate, floors, folder, V, teacher))
    for holds, words in ((processes.world > 1, f"{processes.world} processes, {B / processes.world:g} blocks of a step for each"),
                         (portion < B / processes.world, f"a pass computes {portion} blocks at once (--micro-batch)"),
                         (compiled, "layers are compiled (--compile): the first steps take a minute or two")):
        if holds:
            cli.say(f"            {words}")
    if args.dry_run:
        corpus.close()
        processes.leave()
        return
    if compiled:
        learner.compile_layers()
        try:
            rate_of(learner, masked_batch(corpus, args.seed, 0, B, device), autocast, plan.flops_per_step // B, min(portion, B))
        except Exception as failure:  # torch's compiler has many, the lack of a C++ compiler among them
            if "memory" in str(failure):
                raise
            raise UserError(f"the layers cannot be compiled here ({type(failure).__name__}): give --compile off") from None
        processes.meet(1800)  # some compilers take long
    parts = budget.bill(size, V, T, lesson, taught_by), budget.bill(size, V, T)
    first, last = (plan.steps - plan.finish_steps) * B, plan.finish_steps * B  # sequences
    bill = {part: first * parts[0][part] + last * parts[1][part] for part in parts[0]}
    with open_run as run:
        if processes.from_first(processes.first and run.finished):  # by another process, since we looked
            if processes.first:
                card.print_result(run.record, folder)
            corpus.close()
            processes.leave()
            return
        run.write_record(micro_batch=portion, compiled=compiled, processes=processes.world, peak_flops_per_second=peak)
        if teacher:
            run.write_record(teacher=str(teacher.folder.resolve()), untrained_end=not plan.finish_steps and lesson.student.depth(size.L).whole < size.L)
        seconds = train(run, learner, corpus, plan, args, autocast, validation, floors, processes, portion, peak)
        if processes.first:
            card.print_result(finish(run, model, corpus, plan, floors, bill, seconds), folder)
    corpus.close()
    processes.leave()


# ---------------------------------------------------------------------------------------------------------------------
# The loop

def train(run, learner, corpus, plan, args, autocast, validation, floors, processes, portion, peak):
    """From the newest checkpoint of `run`, or from the beginning, to the last step of the plan."""
    import torch
    from tqdm import tqdm
    from learner import PLAIN, adamw, checkpoint, restore
    from parallel import backward
    device, steps, B = validation[0].device, plan.steps, args.batch_size
    switch = steps - plan.finish_steps  # from this step on plain MLM, in a phase with its own warmup and decay
    optimizer = adamw(learner, args.betas, args.weight_decay)
    cost = 12 * sum(p.numel() for p in learner.parameters()) / 5e8  # seconds of a save: three fp32 numbers a parameter; then those of the last one
    loaded = run.load_checkpoint()
    processes.meet(100 * cost)  # a disk may be slower than most; longer is a hang
    step, seconds, sums, logged = restore(processes.from_first(loaded), learner, optimizer)
    run.rewind_log()
    if step:
        cli.say(f"continuing at step {step:,} of {steps:,}")
    log_every, save_every = max(1, min(100, steps // 500)), max(1, steps // 20)
    validate_at = {round(i * steps / 10) for i in range(11)} | {switch}
    began = saved = time.perf_counter()
    mark = (step, began)  # of the last log line, or of the end of a validation or a save: what the logged speed leaves out

    def save():
        nonlocal saved, cost
        start = time.perf_counter()
        if processes.first:
            run.save_checkpoint(step, checkpoint(learner, optimizer, seconds + time.perf_counter() - began, sums, logged))
        processes.meet(100 * cost)
        saved = time.perf_counter()
        cost = saved - start

    def checked(loss):
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss} at step {step:,}: most likely the learning rate is too high ({args.lr:g}); "
                            f"lower --lr and choose another --out. What was saved before is kept in {run.folder}")
        return loss

    def report():
        terms = learner.validate(validation, autocast, PLAIN if step > switch else None, processes)
        spent, words = plan.spent(step), words_of(terms)
        # An untrained head's number would mean nothing: there is a validation loss where the loss has an MLM term.
        mlm = {"val_loss": terms["mlm"], **floors} if "mlm" in terms else {}
        run.log(step=step, flops=spent, tokens=step * B * corpus.T, val_terms=terms, **mlm)
        counts = f"   (unigram {floors['unigram_loss']:.3f}, neighbours {floors['neighbour_loss']:.3f})" if mlm else ""
        cli.say(f"{step:>9,} steps {budget.flops(spent):>9} FLOPs   training {train_loss}   validation {words}{counts}", bar.write)

    def words_of(terms):
        return ", ".join(f"{name} {value:#.4g}" for name, value in terms.items())

    train_loss = "-"
    with cli.Signals() as signals, tqdm(total=plan.flops_spent, initial=plan.spent(step), unit="FLOP", unit_scale=True,
                                         smoothing=0.05, mininterval=0.5, dynamic_ncols=True, disable=not processes.first) as bar:
        if processes.from_first(step in validate_at and not any(row["step"] == step and "val_terms" in row for row in run.read_log())):
            report()
        while step < steps:
            if args.dropout:
                torch.manual_seed(dropout_seed(args.seed, step, processes.rank))
            batch = masked_batch(corpus, args.seed, step, B, device)
            terms = backward(learner, batch, PLAIN if step >= switch else None, autocast, processes, portion)
            for group in optimizer.param_groups:
                group["lr"] = (learning_rate(step, switch, args.lr, args.warmup) if step < switch else
                               learning_rate(step - switch, plan.finish_steps, args.lr, args.warmup))
            if device.type == "cpu":
                checked(sum(terms.values()).item())  # before the optimizer spreads it; elsewhere reading the loss would stop the pipeline
            optimizer.step()
            optimizer.zero_grad()
            bar.update(plan.spent(step + 1) - plan.spent(step))
            step += 1
            # Each 20th of the run or each minute, but for no more than a 50th of the time. All save at once, and all stop at once: 2 to stop.
            due = processes.first and time.perf_counter() - saved > (50 * cost if step % save_every == 0 else max(60, 50 * cost))
            order = processes.most(2 if signals.stopped else int(due))
            values = torch.stack(list(terms.values()))
            sums, logged = values if logged == 0 else sums + values, logged + 1

            if step % log_every == 0 or step in (switch, steps):
                now, means = time.perf_counter(), dict(zip(terms, (sums / logged).tolist()))
                mean = checked(sum(means.values()))
                speed = (plan.spent(step) - plan.spent(mark[0])) / (now - mark[1])
                run.log(step=step, flops=plan.spent(step), tokens=step * B * corpus.T, loss=mean, terms=means,
                        lr=optimizer.param_groups[0]["lr"], flops_per_second=speed, share_of_peak=speed / peak, seconds=seconds + now - began)
                train_loss, mark, logged = words_of(means), (step, now), 0
                bar.set_postfix_str(f"loss {mean:.3f}, {speed / peak:.0%} of peak", refresh=False)
            if step in validate_at:
                report()
                mark = (step, time.perf_counter())
            if order or step == steps:
                if not all(p.isfinite().all() for p in learner.parameters()):
                    checked(math.nan)
                save()
                mark = (step, time.perf_counter())
            if order == 2 and step < steps:
                cli.say(f"stopped at step {step:,} of {steps:,}, saved in {run.folder}: the same command continues", bar.write)
                raise signals.stopped or cli.Stopped(signal.SIGTERM)
    return seconds + time.perf_counter() - began


def finish(run, model, corpus, plan, floors, bill, seconds):
    """Writes what the run leaves behind. A kill in here loses nothing: the last checkpoint goes only when all is written."""
    import torch
    import text
    disk.sync(run.folder / "log.jsonl")
    log = run.read_log()
    validations = [row for row in log if "val_terms" in row]
    run.write_record(strategy=run.settings["strategy"], seed=run.settings["seed"], flops_budget=plan.flops_budget, **floors,
                     val_loss=validations[-1].get("val_loss"), val_terms=validations[-1]["val_terms"], val_terms_before=validations[0]["val_terms"],
                     val_terms_taught=[row for row in validations if row["val_terms"].keys() == validations[0]["val_terms"].keys()][-1]["val_terms"],
                     flops_spent=plan.flops_spent, bill=bill, steps=plan.steps, tokens=plan.tokens, epochs=plan.epochs,
                     seconds=seconds, parameters=model.parameter_count(),
                     versions={"python": platform.python_version(),
                               **{name: version(name) for name in ("torch", "numpy", "tokenizers", "safetensors")}},
                     threads=torch.get_num_threads(), machine=torch.cuda.get_device_name(model.device) if model.device.type == "cuda"
                     else f"{platform.machine()}, {os.cpu_count()} cores")
    model.save_pretrained(run.folder)
    text.save_tokenizer(corpus.tokenizer, run.folder, model.config.max_position_embeddings)
    card.draw_curve(run.folder, log, run.record)
    disk.write_file(run.folder / "README.md", card.model_card(run.record, corpus.name))
    files = ("config.json", "model.safetensors", "tokenizer.json", "log.jsonl")
    run.write_record(finished=True, files={name: disk.file_sha256(run.folder / name) for name in files})
    run.remove_checkpoints()
    return run.record


if __name__ == "__main__":
    cli.program(main)
