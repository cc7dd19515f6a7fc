"""What a run tells people: its name, its plan before the first step, its result in words, its curve and its model card."""
from pathlib import Path

import budget
import cli
import disk


def default_name(args, size, teacher=None):
    """A readable name for the run's folder; it tells apart what is commonly varied."""
    stem = "-".join(Path(entry).name or "text" for entry in args.data)
    name = f"{args.strategy}-{size}-{budget.flops(args.flops)}-{stem}"
    for flag, letters in (("unique_tokens", "unique"), ("lr", "lr"), ("dropout", "dropout"), ("mlm_finish", "finish"),
                          ("relation_heads", "heads"), ("teacher_layer", "layer")):
        if getattr(args, flag):
            name += f"-{letters}{getattr(args, flag):g}"
    name += f"-t{args.temperature:g}" if args.temperature != 1 else ""
    name += "-copied" if args.init == "teacher" else ""
    name += f"-by-{teacher.model.config.size}-{teacher.sha256[:6]}" if teacher else ""
    name += f"-{args.batch_size}x{args.seq_len}"
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:120] + f"-seed{args.seed}"


# ---------------------------------------------------------------------------------------------------------------------
# The plan

def plan_text(args, plan, size, parameters, corpus, device, dtype, rate, floors, folder, V, teacher=None):
    T, B = args.seq_len, args.batch_size
    lines = []
    if args.model is None:
        lines += [f"students that {budget.flops(args.flops)} FLOPs can train (wanted: at least {budget.TOKENS_PER_PARAMETER} tokens "
                  f"for each weight of the encoder; where none has them, the smallest is taken):"]
        for rung, tokens, ratio in budget.ladder(args.flops, V, T):
            lines += [f"  {str(rung):8} {rung.encoder_parameters:>13,} weights {tokens:>15,} tokens {ratio:>10,.1f} a weight"
                      f"{'   <- this one' if rung == size else ''}"]
            if rung.encoder_parameters > 20 * size.encoder_parameters:
                break
    unique = "without end, none seen twice" if corpus.unique is None else f"{corpus.unique:,} tokens"
    epochs = "" if corpus.unique is None else f" = {plan.epochs:.2f} epochs"
    seconds = plan.flops_spent / rate
    scratch = budget.step_flops(size, V, T, B)
    share = f", {plan.flops_per_step / scratch:.2f} times a step from scratch" if args.teacher else ""
    finish = (f", the last {plan.finish_steps:,} plain masked language modelling at {plan.flops_per_finish_step:,} FLOPs"
              if plan.finish_steps else "")
    lines += [f"student     BERT {size}, {parameters:,} parameters, {size.encoder_parameters:,} of them in the encoder",
              *([f"teacher     BERT {teacher.model.config.size}, {teacher.folder}"] if teacher else []),
              f"text        {corpus.name}, {unique}; {V:,} words and word pieces",
              f"a step      {B} blocks of {T} tokens, {budget.masked_positions(T)} masked in each: {plan.flops_per_step:,} FLOPs{share}",
              f"budget      {budget.flops(args.flops)} FLOPs = {plan.steps:,} steps{finish} = {plan.tokens:,} tokens{epochs}, "
              f"{budget.flops(plan.flops_budget - plan.flops_spent)} FLOPs left over",
              f"by counts   loss {floors['unigram_loss']:.3f} for word frequencies (unigram), {floors['neighbour_loss']:.3f} for "
              f"knowing both neighbours",
              f"machine     {device}, {dtype}{' autocast' if dtype == 'bf16' else ''}, {budget.flops(rate)} FLOP/s measured: about {budget.duration(seconds)}",
              f"folder      {folder}"]
    if plan.epochs > 40:
        lines += [f"The text is read {plan.epochs:.0f} times: a student may learn so few words by heart, and its validation loss rise again. More text, or fewer FLOPs."]
    if seconds > 3600:
        lines += ["That is long. It can be stopped at any time (Ctrl-C, or the power) and is continued by the same command."]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------------
# The result

def on_plateau(record):
    """Whether a run has learned little but word frequencies: its loss is less than a tenth below the unigram loss, and less
    than half way to the neighbours'. On real prose the plateau lies at about 0.92 of the unigram loss, since the words of a
    block say a little of what it is about (LOG.md)."""
    unigram = record["unigram_loss"]
    return unigram - record["val_loss"] < min(0.1 * unigram, 0.5 * (unigram - record["neighbour_loss"]))


def verdict(record):
    """In words: what the validation loss means. A loss near the unigram loss looks fine, and is nothing learned."""
    if record["val_loss"] is None:
        change = ", ".join(f"{name} from {before:.3g} to {record['val_terms'][name]:.3g}" for name, before in record["val_terms_before"].items())
        if record.get("untrained_end"):
            change += ("; the feed-forward and the output projection of its last layer are untrained, since the loss does not reach them "
                       "(--mlm-finish 0.1 trains them)")
        return (f"Its own loss on held-out text went: {change}. It trains no head that predicts words, so there is no "
                f"masked-word loss to compare: fine-tuning tells what it learned, or --mlm-finish 0.1.")
    if record["val_loss"] > record["unigram_loss"]:
        return "It has not even learned how frequent words are: the budget is too small for this model and batch, or --lr is far off."
    if on_plateau(record):
        return ("This run ended on the plateau: it knows how frequent words are, and little more. Spend more FLOPs, or take what "
                "leaves the plateau sooner: shorter blocks (--seq-len 32), about 2,000 tokens a step on real text and 1,000 on "
                "stories (--batch-size), the default --init-range, a smaller --model.")
    if record["val_loss"] > record["neighbour_loss"]:
        share = (record["unigram_loss"] - record["val_loss"]) / (record["unigram_loss"] - record["neighbour_loss"])
        return f"It has left the plateau: {share:.0%} of the way from word frequencies to knowing both neighbours by counts."
    return "Its loss is below that of knowing both neighbouring words by counts."


def print_result(record, folder):
    cli.say(f"finished    {record['steps']:,} steps, {record['tokens']:,} tokens, {record['flops_spent']:,} FLOPs of "
          f"{record['settings']['flops_budget']:,}, in {budget.duration(record['seconds'])}\n"
          + (f"loss        validation {record['val_loss']:.3f}, unigram {record['unigram_loss']:.3f}, both neighbours by counts "
             f"{record['neighbour_loss']:.3f}\n            " if record["val_loss"] is not None else "loss        ") + f"{verdict(record)}\n"
          f"folder      {folder} (curve.png shows the loss; {auto_class(record)}.from_pretrained opens it)")


def auto_class(record):
    return "AutoModel" if record["val_loss"] is None else "AutoModelForMaskedLM"


def pyplot():
    import matplotlib
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "isoflop"  # the same figure is the same file
    from matplotlib import pyplot
    return pyplot


def open_axes(axes):
    """No lines at the top and at the right."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def draw_curve(folder, log, record):
    """curve.png: training and validation loss against FLOPs: the masked-word loss, with the two losses of mere counting as lines,
    or, where a strategy has none, its own."""
    figure, axes = pyplot().subplots(figsize=(7, 4.5), dpi=120)
    term = next(iter(record["val_terms"]))  # "mlm" where there is one
    for key, label, style in (("terms", "training", {"color": "0.7", "linewidth": 1}),
                              ("val_terms", "validation", {"color": "#0072b2", "marker": "o", "markersize": 4})):
        rows = [row for row in log if term in row.get(key, ())]
        axes.plot([row["flops"] for row in rows], [row[key][term] for row in rows], label=label, **style)
    floors = (("unigram_loss", "unigram: word frequencies"), ("neighbour_loss", "both neighbours, by counts"))
    for key, name in floors if term == "mlm" else ():
        axes.axhline(record[key], color="0.3", linewidth=1, linestyle="--")
        axes.text(0.99, record[key], name, transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=8)
    axes.set_xlabel("FLOPs spent")
    axes.set_ylabel("masked-word loss (nats)" if term == "mlm" else f"{term} loss")
    axes.set_title(f"{record['settings']['strategy']}, BERT {record['settings']['model']}", fontsize=10)
    axes.legend(frameon=False)
    open_axes(axes)
    figure.tight_layout()
    disk.replace(Path(folder) / "curve.png", lambda temporary: figure.savefig(temporary, format="png"))
    pyplot().close(figure)


def model_card(record, text_name):
    """README.md as the hub expects it: a header for machines, then words."""
    settings = record["settings"]
    rows = [("strategy", settings["strategy"]), ("size", settings["model"]), ("parameters", f"{record['parameters']:,}"),
            ("text", text_name), ("FLOPs", f"{record['flops_spent']:,} of a budget of {settings['flops_budget']:,}"),
            ("steps", f"{record['steps']:,} of {settings['batch_size']} x {settings['seq_len']} tokens"),
            ("tokens", f"{record['tokens']:,}"), ("seed", settings["seed"]),
            *((f"validation {name}", f"{value:.4f}") for name, value in {**record.get("val_terms_taught", {}), **record["val_terms"]}.items())]
    fills_masks = record["val_loss"] is not None
    if fills_masks:
        rows += [("unigram loss", f"{record['unigram_loss']:.4f}"), ("loss of both neighbours by counts", f"{record['neighbour_loss']:.4f}")]
    if "teacher" in record:
        rows[1:1] = [("teacher", f"BERT {settings['teacher_model']}, sha256 {settings['teacher_sha256'][:16]}")]
    task, example = (("fill-mask", "from transformers import pipeline\npipeline(\"fill-mask\", model=\"this folder\")(\"... [MASK] ...\")")
                     if fills_masks else ("feature-extraction", "from transformers import AutoModel\nAutoModel.from_pretrained(\"this folder\")"))
    how = "masked language modelling" if settings["strategy"] == "scratch" else f"distillation ({settings['strategy']})"
    return (f"---\nlibrary_name: transformers\npipeline_tag: {task}\nlanguage: en\ntags:\n- bert\n- {task}\n- isoflop\n---\n\n"
            f"# BERT {settings['model']}, {settings['strategy']}, {budget.flops(settings['flops_budget'])} FLOPs\n\n"
            f"Pretrained by {how} within a fixed budget of FLOPs, with isoflop. {verdict(record)}\n\n"
            "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows) +
            "\n![loss against FLOPs](curve.png)\n\nIt has no pooler: pretraining trains none. `run.json` holds every setting, `log.jsonl` the curve.\n\n"
            f"```python\n{example}\n```\n")
