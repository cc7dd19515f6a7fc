"""Fine-tune a student and score it: on GLUE, or on the embedded world's own tasks.

    python glue.py runs/student                                              the embedded tasks, offline, a minute or two
    python glue.py runs/student --data glue_data --tasks cola,mrpc,rte       GLUE as its download script writes it
    python glue.py bert-base-uncased --data nyu-mll/glue --grid paper        from the hub

The number by which strategies are compared. The protocol is the same for every student: a pooled vector, one linear layer, the whole
model fine-tuned with linear warmup and decay; the best cell of a grid of learning rates and batch sizes by its development score,
mean and standard deviation over seeds. Each finished cell is kept in `glue.json`: a killed run continues with the next one.

On GLUE the vector is BERT's pooled [CLS]. On the embedded tasks it is the pooled mean over all tokens: without next-sentence
prediction no loss ever reads [CLS] in pretraining, and 1,500 examples are too few to teach a small model to gather a text there (a
model that knows an answer failed to give it in every second fine-tuning; LOG.md). `--pool` is the flag for either.
"""
import math
import statistics
import time
import zipfile
from pathlib import Path

import cli
import disk
import machine
import taskdata
from cli import UserError

EXAMPLES = """examples:
  python glue.py runs/student                                             the embedded tasks
  python glue.py runs/student --data glue_data/ --tasks rte,mrpc --seeds 3
  python glue.py --gate                                                   can the embedded tasks tell models apart?"""

# Learning rates of `quick` and `stories` are for h = 768 and go up as models get narrower, like pretraining's.
GRIDS = {"paper": {"lr": (1e-5, 3e-5, 5e-5, 8e-5), "batch_size": (16, 32), "epochs": 5},
         "quick": {"lr": (8e-5,), "batch_size": (16,), "epochs": 2, "by_width": True},
         "stories": {"lr": (6e-5,), "batch_size": (16,), "epochs": 10, "by_width": True},
         "stories-short": {"lr": (8e-5,), "batch_size": (16,), "epochs": 8, "by_width": True}}  # for many students
WARMUP, WEIGHT_DECAY, WINDOW = 0.06, 0.01, 16
FILES = ["config.json", "model.safetensors", "tokenizer.json"]  # of a model


def arguments(argv=None):
    parser = cli.Parser(description="Fine-tune a BERT on GLUE or on the embedded world's tasks, and score it.", epilog=EXAMPLES)
    add, whole = parser.add_argument, cli.whole
    add("model", nargs="*", help="a run's folder, a BERT's folder or a hub id (with --gate: any number of them, weakest first)")
    add("--data", default="stories", metavar="DATA", help="stories (default), a folder with GLUE's own files, or a hub id: nyu-mll/glue")
    add("--tasks", default="all", metavar="A,B", help=f"all (default), or some of {', '.join(taskdata.EMBEDDED)}; {', '.join(taskdata.GLUE)}")
    add("--grid", choices=list(GRIDS), help="paper: 4 rates x 2 batch sizes, 5 epochs; quick: one cell, 2 epochs; stories: one cell, 10 epochs; "
        "stories-short: 8 (default: stories for the embedded tasks, else quick)")
    add("--pool", choices=["cls", "mean"], help="what is classified: [CLS], or the mean over tokens (default: mean for the embedded tasks, else cls)")
    add("--seeds", type=whole(1, 1000), default=3, metavar="n", help="fine-tunings of each cell (default: %(default)s)")
    add("--seq-len", type=whole(8, 4096), default=128, metavar="T", help="longer texts are cut (default: %(default)s)")
    add("--dtype", default="auto", choices=["auto", "fp32", "bf16"], help="auto: bf16 autocast where the hardware has it")
    add("--device", default="auto", metavar="D", help="auto (default), cpu, cuda, cuda:1, mps")
    add("--out", metavar="FOLDER", help="where glue.json goes (default: the model's folder)")
    add("--predict", action="store_true", help="also write the leaderboard's submission, glue-submission.zip")
    add("--gate", action="store_true", help="compare an untrained BERT, scratch at two budgets and a teacher on the embedded tasks")
    args = parser.parse_args(argv)
    if not args.gate and len(args.model) != 1:
        raise UserError("say which model to score: python glue.py runs/student" if not args.model else
                        f"one model at a time, not {len(args.model)} (that is for --gate)")
    args.grid = args.grid or ("stories" if args.data == "stories" else "quick")
    if args.predict and args.data == "stories":
        raise UserError("--predict writes the leaderboard's files, and the embedded tasks have no leaderboard: give GLUE's files with --data")
    args.pool = args.pool or ("mean" if args.data == "stories" else "cls")
    return args


# ---------------------------------------------------------------------------------------------------------------------
# Batches

def encode(examples, tokenizer, longest):
    """Examples -> ([(ids, token types)], how many were cut to `longest` tokens)."""
    tokenizer.enable_truncation(longest)
    encoded = tokenizer.encode_batch([first if second is None else (first, second) for first, second, _ in examples])
    return [(encoding.ids, encoding.type_ids) for encoding in encoded], sum(bool(encoding.overflowing) for encoding in encoded)


def order(lengths, batch_size, rng=None):
    """Batches of indices of texts with similar lengths. With rng: shuffled, then sorted by length within windows of 16 batches, and
    the batches shuffled: little padding, and an order that stays random. Without: sorted."""
    import numpy as np
    lengths = np.asarray(lengths)
    shuffled = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    window = len(lengths) if rng is None else WINDOW * batch_size
    batches = []
    for start in range(0, len(shuffled), window):
        here = shuffled[start:start + window]
        here = here[np.argsort(lengths[here], kind="stable")]
        batches += [here[i:i + batch_size] for i in range(0, len(here), batch_size)]
    return batches if rng is None else [batches[i] for i in rng.permutation(len(batches))]


def collate(encoded, chosen, pad, device):
    """input_ids, attention_mask (None where all are equally long) and token_type_ids, each (B, T): padded to the longest of them."""
    import torch
    T = max(len(encoded[i][0]) for i in chosen)
    rows = [[list(part) + [filler] * (T - len(part)) for part, filler in zip((*encoded[i], [1] * len(encoded[i][0])), (pad, 0, 0))]
            for i in chosen]
    ids, types, mask = torch.tensor(rows, dtype=torch.long).unbind(1)  # (B, 3, T) -> three of (B, T)
    return ids.to(device), None if mask.all() else mask.to(device), types.to(device)


# ---------------------------------------------------------------------------------------------------------------------
# Fine-tuning

def classifier(name, outputs, seed, pool="cls"):
    """A BERT with a pooler (fresh, where its file has none) and a linear layer: (ids, mask, types) -> (B, outputs)."""
    import torch
    from model import Bert
    bert = Bert.from_pretrained(name, mlm_head=False)  # with the dropout that its config.json has, as in pretraining
    torch.manual_seed(seed)
    h = bert.config.hidden_size
    fresh = [torch.nn.Linear(h, h), torch.nn.Linear(h, outputs)]
    for part in fresh:
        bert.initialise(part)
    bert.pooler = bert.pooler or fresh[0]

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert, self.linear = bert, fresh[1]

        def forward(self, ids, mask, types):
            output = self.bert(ids, mask, types.clamp(max=bert.config.type_vocab_size - 1))
            pooled = output.pooler_output  # tanh(W_P x_[CLS] + b_P), (B, h)
            if pool == "mean":             # tanh(W_P mean_t x_t + b_P)
                x, m = output.last_hidden_state, (torch.ones_like(ids) if mask is None else mask)[:, :, None]  # (B, T, h), (B, T, 1)
                pooled = torch.tanh(self.bert.pooler(((x * m).sum(1) / m.sum(1)).to(x.dtype)))
            # logits = W Dropout(pooled) + b
            return self.linear(torch.nn.functional.dropout(pooled, bert.config.hidden_dropout_prob, self.training))
    return Classifier()


def fine_tune(name, task, encoded, pad, lr, batch_size, epochs, seed, device, dtype, pool="cls", advance=lambda: None):
    """A model fine-tuned on task.parts["train"]; returns predict(part) -> the labels (or scores) that it gives to a part's texts.

    encoded: {part: [(ids, types)]}. A function of its arguments alone: the same seed gives the same model."""
    import torch
    from data import generator
    from distill import mlm_loss
    from learner import adamw
    from train import learning_rate
    model = classifier(name, len(task.labels or (None,)), seed, pool).to(device).train()
    optimizer = adamw(model, weight_decay=WEIGHT_DECAY)
    texts, labels = encoded["train"], torch.tensor([label for _, _, label in task.parts["train"]], device=device)
    steps, step = epochs * math.ceil(len(texts) / batch_size), 0
    for epoch in range(epochs):
        for chosen in order([len(ids) for ids, _ in texts], batch_size, generator(seed, epoch)):
            with machine.autocast(device, dtype):
                logits = model(*collate(texts, chosen, pad, device)).float()
            y = labels[torch.from_numpy(chosen).to(device)]
            # Cross-entropy, or for a score the mean squared error
            loss = mlm_loss(logits, y) if task.labels else (logits.squeeze(1) - y).square().mean()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, lr, WARMUP)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            advance()

    def predict(part):
        model.eval()
        out = torch.empty(len(encoded[part]))
        with torch.no_grad(), machine.autocast(device, dtype):
            for chosen in order([len(ids) for ids, _ in encoded[part]], 128):
                logits = model(*collate(encoded[part], chosen, pad, device)).float().cpu()
                out[torch.from_numpy(chosen)] = logits.argmax(1).float() if task.labels else logits.squeeze(1)
        return out.numpy()
    return predict


def scores_of(task, predict, part):
    """{metric: value} on a part. A constant prediction correlates with nothing, and scores 0."""
    predictions, labels = predict(part), [label for _, _, label in task.parts[part]]
    values = {metric.__name__: metric(predictions, labels) for metric in task.metrics}
    return {name: 0.0 if math.isnan(value) else value for name, value in values.items()}


# ---------------------------------------------------------------------------------------------------------------------
# The grid

def cells_of(args, tasks, h, model_sha256, dtype, device):
    """[(task, settings)] of all fine-tunings: what the command line says, the grid, the seed, and what model and examples they are of."""
    grid = GRIDS[args.grid]
    return [(task, {"task": task.name, "lr": lr * (768 / h if grid.get("by_width") else 1), "batch_size": batch_size, "epochs": grid["epochs"], "seed": seed,
                    "seq_len": args.seq_len, "pool": args.pool, "model_sha256": model_sha256[:16], "data": args.data, "dtype": dtype, "device": device,
                    "examples_sha256": examples})
            for task in tasks for examples in [task.fingerprint]
            for lr in grid["lr"] for batch_size in grid["batch_size"] for seed in range(args.seeds)]


def kept_cells(path):
    """What glue.json holds: {"cells": [settings and scores]}."""
    kept = disk.read_json(path) if path.exists() else {"cells": []}
    if not isinstance(kept.get("cells"), list) or not all(isinstance(cell, dict) and isinstance(cell.get("scores"), dict) for cell in kept["cells"]):
        raise UserError(f"{path} is damaged: it holds no list of cells; remove it, and they are made again")
    return kept


def known(kept, settings):
    return next((cell for cell in kept["cells"] if all(cell.get(key) == value for key, value in settings.items())), None)


def score(args, name, folder):
    """Fine-tunes what glue.json in `folder` does not hold yet, and returns {task: its best cell's summary}."""
    import text
    from tqdm import tqdm
    from huggingface import read_config
    from model import Bert, BertConfig
    device, dtype = machine.hardware(args.device, args.dtype)
    tasks, skipped = taskdata.load(args.data, args.tasks)
    for line in skipped:
        cli.say(f"skipped: {line}")
    source = disk.fetch(name, FILES)
    config = read_config(source, BertConfig)
    tokenizer = text.load_tokenizer(str(source))
    vocabulary = text.vocabulary_of(tokenizer)
    if vocabulary.size > config.vocab_size:
        raise UserError(f"{name} has {config.vocab_size:,} word embeddings, and its tokenizer {vocabulary.size:,} words: they do not belong together")
    Bert.from_pretrained(source, mlm_head=False)  # what is wrong with it is said before any work
    longest = min(args.seq_len, config.max_position_embeddings)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "glue.json"
    with disk.locked(folder / "glue.lock", "scores the same model"):
        kept = kept_cells(path)
        todo = cells_of(args, tasks, config.hidden_size, disk.file_sha256(*(source / file for file in FILES)), dtype, device.type)
        waiting = [(task, cell) for task, cell in todo if known(kept, cell) is None]
        steps = sum(cell["epochs"] * math.ceil(len(task.parts["train"]) / cell["batch_size"]) for task, cell in waiting)
        encoded = {}
        with tqdm(total=steps, unit="step", dynamic_ncols=True, mininterval=0.5, disable=not waiting) as bar:
            for number, (task, cell) in enumerate(waiting, start=1):
                bar.set_description_str(f"{task.name} lr {cell['lr']:.2g} batch {cell['batch_size']} seed {cell['seed']} ({number}/{len(waiting)})")
                if encoded.get("task") != task.name:
                    encoded = {"task": task.name}
                    for part in ("train", *task.scored):
                        examples = task.parts[part]
                        encoded[part], cut = encode(examples, tokenizer, longest)
                        if cut:
                            cli.say(f"{task.name}: {cut:,} of {len(examples):,} texts of {part} are longer than {longest} tokens, and are cut", bar.write)
                began = time.perf_counter()
                predict = fine_tune(source, task, encoded, vocabulary.pad, cell["lr"], cell["batch_size"], cell["epochs"], cell["seed"],
                                    device, dtype, args.pool, bar.update)
                measured = {part: scores_of(task, predict, part) for part in task.scored}
                kept["cells"].append({**cell, "scores": measured, "seconds": time.perf_counter() - began})
                disk.write_json(path, kept)
    results = results_of(tasks, todo, kept)
    if args.predict:
        write_submission(args, folder, source, tasks, results, tokenizer, vocabulary.pad, longest, device, dtype)
    return results


def results_of(tasks, todo, kept):
    """{task: summary} from the cells in glue.json, or None while one of them is not there."""
    found = [(task, known(kept, cell)) for task, cell in todo]
    if any(cell is None for _, cell in found):
        return None
    return {task.name: summary(task, [cell for of, cell in found if of is task]) for task in tasks}


def summary(task, cells):
    """The best setting by its mean development score over seeds; with its scores on every part as (mean, standard deviation)."""
    def mean_score(cell, part):
        return statistics.mean(cell["scores"][part].values())  # of accuracy and F1, or of two correlations, as GLUE takes it

    def spread(values):
        return [statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None]
    by_setting = {}
    for cell in cells:
        by_setting.setdefault((cell["lr"], cell["batch_size"], cell["epochs"]), []).append(cell)
    setting, best = max(by_setting.items(), key=lambda item: statistics.mean(mean_score(cell, task.scored[0]) for cell in item[1]))
    return {"lr": setting[0], "batch_size": setting[1], "epochs": setting[2], "seeds": len(best), "settings_tried": len(by_setting),
            "score": {part: spread([mean_score(cell, part) for cell in best]) for part in task.scored},
            "metrics": {part: {name: spread([cell["scores"][part][name] for cell in best]) for name in best[0]["scores"][part]}
                        for part in task.scored},
            "majority": task.majority, "seconds": sum(cell["seconds"] for cell in cells)}


def headline(result, chosen_on=False):
    """A task's one score: on the test set where there is one, else on the development set (MNLI: matched), by which the setting was
    chosen. chosen_on: on the development set anyhow."""
    scores = result["score"]
    return scores["test" if "test" in scores and not chosen_on else next(iter(scores))][0]


def average(results):
    """(name, mean of the tasks' scores): the paper's seven, if all are there, else over what was run."""
    if set(taskdata.PAPER_SEVEN) <= results.keys():
        return "average of the paper's seven tasks, development sets", statistics.mean(headline(results[task]) for task in taskdata.PAPER_SEVEN)
    which = "test" if all("test" in result["score"] for result in results.values()) else "development"
    return f"average over these {len(results)} tasks, {which} sets", statistics.mean(headline(result) for result in results.values())


def table(results):
    """The results as text, in points of 100."""
    def points(pair):
        return f"{100 * pair[0]:6.1f}" + (f" +- {100 * pair[1]:4.1f}" if pair[1] is not None else "")
    lines = [f"{'task':14} {'part':15} {'metric':10} {'score':>14}   {'majority':>8}  best setting (by development score)"]
    for name, result in results.items():
        for part, metrics in result["metrics"].items():
            for metric, pair in metrics.items():
                lines += [f"{name:14} {part:15} {metric:10} {points(pair):>14}   {100 * result['majority'][part][metric]:8.1f}  lr {result['lr']:.2g}, "
                          f"batch {result['batch_size']}, {result['epochs']} epochs: {result['settings_tried']} tried, {result['seeds']} seeds"]
    name, value = average(results)
    return "\n".join([*lines, f"{name}: {100 * value:.1f}   ({sum(result['seconds'] for result in results.values()):,.0f} s of fine-tuning)"])


# ---------------------------------------------------------------------------------------------------------------------
# The leaderboard, and the gate

def write_submission(args, folder, source, tasks, results, tokenizer, pad, longest, device, dtype):
    """glue-submission.zip: a file a task, header `index prediction`, label names where GLUE wants names. Each best setting's
    first seed is fine-tuned again, which gives the same model."""
    files, remarks = {}, []
    for task in tasks:
        if not any(part in task.parts for part in task.submissions):
            remarks += [f"{task.name} has no test set"]
            continue
        encoded, best = {part: encode(examples, tokenizer, longest)[0] for part, examples in task.parts.items()}, results[task.name]
        predict = fine_tune(source, task, encoded, pad, best["lr"], best["batch_size"], best["epochs"], 0, device, dtype, args.pool)
        for part, (file, rows) in task.submissions.items():
            if part in task.parts:
                values = [task.spell(value) for value in predict(part)]
                files[file] = "index\tprediction\n" + "".join(f"{i}\t{value}\n" for i, value in enumerate(values))
                remarks += [f"{file} has {len(values):,} rows, and the leaderboard wants {rows:,}"] if len(values) != rows else []
    missing = [file for file in taskdata.SUBMISSION_FILES if file not in files]
    remarks += [f"the leaderboard also wants {', '.join(missing)}"] if missing else []

    def write(temporary):
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, contents in files.items():
                archive.writestr(file, contents)
    disk.replace(folder / "glue-submission.zip", write)
    cli.say("\n".join([f"wrote {folder / 'glue-submission.zip'}: {', '.join(files) or 'nothing'}", *remarks]))


def folder_of(model):
    """Where a model's glue.json goes: into its folder; for a hub id into one in runs/."""
    return Path(model) if Path(model).is_dir() else Path("runs") / f"glue-{Path(model).name}"


def main():
    import gate
    args = arguments()
    if args.gate:
        gate.run(args)
        return
    folder = Path(args.out or folder_of(args.model[0]))
    cli.say(table(score(args, args.model[0], folder)))
    pairs = gate.zero_shot(disk.fetch(args.model[0], FILES)) if args.data == "stories" else {}
    if pairs:
        cli.say("minimal pairs, no fine-tuning (chance 50): " + ", ".join(f"{kind} {100 * value:.0f}" for kind, value in pairs.items()))
    cli.say(f"every cell is in {folder / 'glue.json'}")


if __name__ == "__main__":
    cli.program(main)
