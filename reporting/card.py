"""What a run tells people: its name, its plan, its result in words, and its model card. `setup` is
a train.Setup, `record` what stands in run.json."""
import math
import os
import platform
from importlib.metadata import version
from pathlib import Path

from files import disk, wordpiece
from files.teachers import flops_of
from program import cli
from running.monitor import VALIDATIONS

import torch

import budget
from reporting import figures


def default_folder(setup):
    """The folder of a run without --out: a readable name of what is commonly varied."""
    settings, teacher = setup.settings, setup.teacher
    stem = "-".join(Path(entry).name or "text" for entry in settings.data)
    name = f"{settings.strategy}-{setup.student.size}-{cli.flops(settings.flops)}-{stem}"
    for flag, letters in (("unique_tokens", "unique"), ("lr", "lr"), ("dropout", "dropout"),
                          ("mlm_finish", "finish"), ("relation_heads", "heads"),
                          ("teacher_layer", "layer")):
        if getattr(settings, flag):
            name += f"-{letters}{getattr(settings, flag):g}"
    name += f"-t{settings.temperature:g}" * (settings.temperature != 1)
    name += "-copied" * (settings.init == "teacher")
    if settings.start_from:
        name += f"-from-{setup.start.sha256[:6]}"
    if teacher:
        name += f"-by-{setup.teacher_size}-{teacher.sha256[:6]}"
    name += f"-{settings.batch_size}x{settings.seq_len}"
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
    # A name has at most 255 bytes, and a letter up to four: none is cut in two.
    short = safe[:120].encode()[:240].decode(errors="ignore")
    return Path("runs") / f"{short}-seed{settings.seed}"


def plan_text(setup, validation, folder):
    """What a run is going to do, printed before its first step. validation: a train.Validation."""
    settings, student, session, corpus = setup.settings, setup.student, setup.session, setup.corpus
    size, plan, model = student.size, student.plan, setup.learner.model
    seconds, counting = seconds_of(setup, validation), validation.counting_losses
    T, B, price = settings.seq_len, settings.batch_size, ""
    if student.lesson.teacher:
        scratch = budget.step_flops(size, student.V, T, B)
        price = f", {plan.flops_per_step / scratch:.2f} times a step from scratch"
    kind = [str(session.device), session.dtype + " autocast" * (session.dtype == "bf16"),
            *[f"{session.processes.world} processes"] * (session.processes.world > 1),
            *["compiled: the first steps take minutes"] * session.compiled]
    lines = [] if settings.model else ladder_lines(settings, size, student.V)
    lines += [f"student     BERT {size}, {model.parameter_count():,} parameters, "
              f"{size.encoder_parameters:,} of them in the encoder"]
    if setup.teacher:
        lines += [f"teacher     BERT {setup.teacher_size}, {setup.teacher.folder}"]
    if setup.start:
        lines += start_lines(settings, model, corpus, setup.start)
    lines += [
        *text_lines(corpus),
        f"a step      {B} blocks of {T} tokens, {budget.masked_positions(T)} masked in each: "
        f"{plan.flops_per_step:,} FLOPs{price}",
        f"budget      {cli.flops(settings.flops)} FLOPs = {plan.steps:,} steps = "
        f"{plan.tokens:,} tokens{'' if corpus.unique is None else f' = {plan.epochs:.2f} epochs'}, "
        f"{cli.flops(plan.flops_budget - plan.flops_spent)} FLOPs left over",
        f"by counts   loss {counting['unigram_loss']:.3f} for word frequencies (unigram), "
        f"{counting['neighbour_loss']:.3f} for knowing both neighbours",
        f"machine     {', '.join(kind)}, {cli.flops(session.flops_per_second)} FLOP/s measured: "
        f"about {cli.duration(seconds)}, validation included",
        f"folder      {folder}"]
    if plan.finish_steps:
        lines += [f"The last {plan.finish_steps:,} steps are plain masked language modelling at "
                  f"{plan.flops_per_finish_step:,} FLOPs."]
    if plan.epochs > 40:
        lines += [f"The text is read {plan.epochs:.0f} times: a student may learn so few words by "
                  "heart. Take more text, or fewer FLOPs."]
    return "\n".join(lines)


def seconds_of(setup, validation):
    """How long a run takes at the speed that was measured, its validations included: they are on no
    bill, and small budgets spend much of their time there. A loss's own products are left out."""
    student, T, sequences = setup.student, setup.settings.seq_len, len(validation.batch[0])
    bill = budget.bill(student.size, student.V, T, student.lesson, setup.teacher_size)
    once = sequences * (bill["student_forward"] + bill["teacher_forward"])
    validations = min(VALIDATIONS, student.plan.steps + 1) * once
    return (student.plan.flops_spent + validations) / setup.session.flops_per_second


def start_lines(settings, model, corpus, start):
    """What the student has of the model whose weights it begins with."""
    lines = []
    if settings.start_from:
        lines += [f"start       BERT {start.model.config.size}, {start.folder}",
                  f"before      {words_before(flops_of(start.folder))}, which this budget does not "
                  "count"]
        before = disk.optional_json(start.folder / "run.json").get("settings", {})
        order = settings.seed, corpus.fingerprint
        if (before.get("seed"), before.get("text_sha256")) == order:
            lines += ["            That run read this text in the same order (--seed "
                      f"{settings.seed}): another seed gives another order"]
    if model.mlm_head is not None and start.model.mlm_head is None:
        lines += [f"head        {start.folder} has none that predicts words: the student's is "
                  "drawn fresh"]
    return lines


def words_before(flops):
    """What the weights that a run begins with have cost. flops: None where nobody knows."""
    return "FLOPs that no run.json tells" if flops is None else f"{flops:,} FLOPs"


def ladder_lines(settings, size, V):
    """The sizes that a run without --model chooses from."""
    lines = [f"students that {cli.flops(settings.flops)} FLOPs can train (wanted: "
             f"{budget.TOKENS_PER_PARAMETER} tokens for each weight of the encoder):"]
    for rung, tokens, ratio in budget.ladder(settings.flops, V, settings.seq_len):
        arrow = "   <- this one" if rung == size else ""
        lines += [f"  {str(rung):8} {rung.encoder_parameters:>13,} weights {tokens:>15,} tokens "
                  f"{ratio:>10,.1f} a weight{arrow}"]
        if rung.encoder_parameters > 20 * size.encoder_parameters:
            break
    return lines


def text_lines(corpus):
    """How much text there is, and of how many documents: here one sees whether lines or paragraphs
    were taken for documents."""
    amount = "without end, none seen twice"
    if corpus.unique is not None:
        amount = f"{corpus.unique:,} tokens"
    lines = [f"text        {corpus.name}, {amount}; {corpus.vocabulary.size:,} words and word "
             "pieces"]
    words, unknown = corpus.info["words"], corpus.info["unknown"]
    if unknown > 0.01 * words:
        lines += [f"            {unknown / words:.1%} of its words are [UNK], unknown to the "
                  "tokenizer: another --tokenizer or a larger --vocab-size may know them"]
    if corpus.name == "stories":
        return lines
    tokens, documents = corpus.info["tokens"], corpus.info["documents"]
    share = tokens["validation"] / sum(tokens.values())
    lines += [f"documents   {documents['train']:,} to train on, {documents['validation']:,} held "
              f"out for validation: {share:.1%} of the tokens"]
    if share > 0.1:
        lines += ["            That is much: empty lines between paragraphs make more documents"]
    return lines


def note_beginning(run, setup):
    """Writes into run.json how the run began."""
    session, start = setup.session, setup.start
    run.write_record(micro_batch=session.micro_batch, compiled=session.compiled,
                     processes=session.processes.world, peak_flops_per_second=session.peak)
    if setup.teacher:
        run.write_record(teacher=str(setup.teacher.folder.resolve()))
    if setup.settings.start_from:
        run.write_record(start=str(start.folder.resolve()), flops_before=flops_of(start.folder))


def on_plateau(record):
    """Whether a run has learned little more than word frequencies: its loss is less than a tenth
    below the unigram loss, and less than half way from there to the loss of knowing both
    neighbours. On real prose the plateau lies at about 0.92 of the unigram loss, since the words of
    a block say a little of what it is about (docs/LOG.md)."""
    unigram, neighbours = record["unigram_loss"], record["neighbour_loss"]
    return unigram - record["val_loss"] < min(0.1 * unigram, 0.5 * (unigram - neighbours))


def verdict(record):
    """What the validation loss means, in words. A loss near the unigram loss looks good, although
    such a run has learned almost nothing. A loss that is no number means nothing."""
    loss, unigram, neighbours = (record[key] for key in ("val_loss", "unigram_loss",
                                                         "neighbour_loss"))
    if loss is None:  # a strategy without an MLM term
        change = ", ".join(f"{name} from {before:.3g} to {record['val_terms'][name]:.3g}"
                           for name, before in record["val_terms_before"].items())
        return (f"Its own loss on held-out text went: {change}. It trains no head that predicts "
                "words: fine-tuning tells what it learned, and --mlm-finish 0.1 trains a head.")
    if not all(map(math.isfinite, (loss, unigram, neighbours))):
        return "Nothing can be said of a loss that is no number: train again, with another --out."
    if loss > unigram:
        return ("It has not even learned how frequent words are: the budget is too small for this "
                "model and batch, or --lr is far off.")
    if on_plateau(record):
        return ("This run ended on the plateau: it knows how frequent words are, and little more. "
                "Spend more FLOPs, or take what leaves the plateau sooner: shorter blocks "
                "(--seq-len 32), about 2,000 tokens a step on real text and 1,000 on stories "
                "(--batch-size), the default --init-range, a smaller --model.")
    if loss > neighbours:
        share = (unigram - loss) / (unigram - neighbours)
        return (f"It has left the plateau: {share:.0%} of the way from word frequencies to knowing "
                "both neighbours by counts.")
    return "Its loss is below that of knowing both neighbouring words by counts."


def finish(run, setup, validation, seconds):
    """Writes what the run leaves behind. A kill in here loses nothing: the checkpoints go last."""
    disk.sync(run.folder / "log.jsonl")
    plan, log, model = setup.student.plan, run.read_log(), setup.learner.model
    corpus = setup.corpus
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    if model.device.type == "cuda":
        machine = torch.cuda.get_device_name(model.device)
    validations = [row for row in log if "val_terms" in row]
    first, last = validations[0]["val_terms"], validations[-1]["val_terms"]
    taught = [row["val_terms"] for row in validations if row["val_terms"].keys() == first.keys()]
    run.write_record(
        strategy=setup.settings.strategy, **validation.counting_losses,
        val_loss=validations[-1].get("val_loss"), val_terms=last, val_terms_before=first,
        val_terms_taught=taught[-1], flops_spent=plan.flops_spent,
        bill=whole_bill(setup), steps=plan.steps, tokens=plan.tokens, epochs=plan.epochs,
        seconds=seconds, parameters=model.parameter_count(),
        versions={"python": platform.python_version(), **{name: version(name) for name in (
            "torch", "numpy", "tokenizers", "safetensors")}},
        threads=torch.get_num_threads(), machine=machine)
    model.save_pretrained(run.folder)
    wordpiece.save_tokenizer(corpus.tokenizer, run.folder, model.config.max_position_embeddings)
    figures.draw_curve(run.folder, log, run.record)
    disk.write_file(run.folder / "README.md", model_card(run.record, corpus.name))
    run.write_record(finished=True, files={name: disk.file_sha256(run.folder / name) for name in (
        "config.json", "model.safetensors", "tokenizer.json", "log.jsonl")})
    run.remove_checkpoints()


def whole_bill(setup):
    """The run's bill by what it was spent on, the MLM finish included."""
    student, T, B = setup.student, setup.settings.seq_len, setup.settings.batch_size
    own = budget.bill(student.size, student.V, T, student.lesson, setup.teacher_size)
    plain = budget.bill(student.size, student.V, T)
    finish, steps = student.plan.finish_steps, student.plan.steps
    return {part: B * ((steps - finish) * own[part] + finish * plain[part]) for part in own}


def print_result(record, folder):
    """The result in words, for the screen."""
    loss = before = ""
    if record["val_loss"] is not None:
        loss = (f"validation {record['val_loss']:.3f}, unigram {record['unigram_loss']:.3f}, both "
                f"neighbours by counts {record['neighbour_loss']:.3f}\n            ")
    if "flops_before" in record:
        before = f"before      {words_before(record['flops_before'])}, for its first weights\n"
    cli.say(f"finished    {record['steps']:,} steps, {record['tokens']:,} tokens, "
            f"{record['flops_spent']:,} FLOPs of {record['settings']['flops_budget']:,}, in "
            f"{cli.duration(record['seconds'])}\n{before}"
            f"loss        {loss}{verdict(record)}\n"
            f"folder      {folder} (curve.png shows the loss; {auto_class(record)}.from_pretrained "
            "opens it)")


def print_finished_before(run):
    """Prints the result of a run that was finished before. Raises UserError where one of its files
    is no longer what the run wrote."""
    disk.fetch(run.folder, list(run.record.get("files", {})))
    run.remove_checkpoints()
    print_result(run.record, run.folder)
    cli.say("It was finished before: nothing was left to do.")


def auto_class(record):
    """The class of transformers that opens the run's folder."""
    return "AutoModel" if record["val_loss"] is None else "AutoModelForMaskedLM"


CARD = """---
library_name: transformers
pipeline_tag: {task}
tags: [bert, isoflop]
---

# BERT {model}, {strategy}, {flops} FLOPs

Pretrained within a fixed budget of FLOPs, with isoflop. {verdict}

| | |
|---|---|
{rows}
![loss against FLOPs](curve.png)

It has no pooler: pretraining trains none. `run.json` holds every setting, `log.jsonl` the curve.

```python
from transformers import {auto_class}
{auto_class}.from_pretrained("this folder")
```
"""


def model_card(record, text_name):
    """README.md as the hub expects it: a header for machines, then words."""
    settings = record["settings"]
    task = "feature-extraction" if record["val_loss"] is None else "fill-mask"
    return CARD.format(
        task=task, model=settings["model"], strategy=settings["strategy"],
        flops=cli.flops(settings["flops_budget"]),
        verdict=verdict(record), auto_class=auto_class(record),
        rows="".join(f"| {name} | {value} |\n" for name, value in card_rows(record, text_name)))


def card_rows(record, text_name):
    """The rows of the model card's table."""
    settings = record["settings"]
    rows = [("parameters", f"{record['parameters']:,}"), ("text", text_name),
            ("FLOPs", f"{record['flops_spent']:,} of a budget of {settings['flops_budget']:,}"),
            ("steps", f"{record['steps']:,} of {settings['batch_size']} x {settings['seq_len']} "
             "tokens"),
            ("tokens", f"{record['tokens']:,}"), ("seed", settings["seed"])]
    if "teacher" in record:
        rows += [("teacher", f"BERT {settings['teacher_model']}, sha256 "
                  f"{settings['teacher_sha256'][:16]}")]
    if "flops_before" in record:
        rows += [("begins with", f"the weights of sha256 {settings['start_sha256'][:16]}, which "
                  f"cost {words_before(record['flops_before'])}")]
    terms = {**record.get("val_terms_taught", {}), **record["val_terms"]}
    if record["val_loss"] is not None:
        terms |= {"unigram loss": record["unigram_loss"],
                  "loss of both neighbours by counts": record["neighbour_loss"]}
    return rows + [(f"validation {name}", f"{value:.4f}") for name, value in terms.items()]
