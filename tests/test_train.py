"""train.py: what learns, and the one loop. A run obeys its budget, opens in transformers, and
cannot be lost.

Most runs here are calls of train.main in this process, which saves the seconds of its imports.
Where a process is killed or must die by itself, it is a process of its own.
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from files import teachers
from running.machine import Processes, Session

import numpy as np
import pytest
import torch
from conftest import run_main
from safetensors.torch import load_file

import budget
import data
import distill
import train
from budget import size
from distill import lesson
from model import Bert, BertConfig
from train import PLAIN, Learner, adamw

ROOT = Path(train.__file__).parent

# --------------------------------------------------------------------------------------------------
# What learns

V, T, B = 40, 12, 8
TAUGHT = [name for name in distill.STRATEGIES if name != "scratch"]


def bert(model, seed=0, **options):
    torch.manual_seed(seed)
    config = BertConfig.of(size(model), vocab_size=V, max_position_embeddings=16,
                           hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return Bert(config, **options)


def batch(seed):
    """blocks, inputs, positions, labels of random words. Word 4 masks 2 of each block's 12."""
    draw = torch.Generator().manual_seed(seed)
    blocks = torch.randint(5, V, (B, T), generator=draw)
    positions = torch.arange(B).repeat_interleave(2) * T + torch.tensor([3, 7]).repeat(B)
    inputs = blocks.flatten().index_fill(0, positions, 4).view(B, T)
    return blocks, inputs, positions, blocks.flatten()[positions]


def learner_of(strategy, student, teacher="2x64", dtype="fp32"):
    """A learner in training, with a teacher of other weights than the student's."""
    taught = lesson(strategy, size(student), size(teacher))
    return Learner(bert(student), taught, bert(teacher, seed=1), dtype).train()


@pytest.mark.parametrize("name", TAUGHT)
def test_no_gradient_reaches_the_teacher_and_dropout_is_off_in_it(name):
    teacher = bert("2x64", 1)
    for module in teacher.modules():
        if hasattr(module, "hidden_dropout"):
            module.hidden_dropout = 0.5
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    learner = Learner(bert("1x64"), lesson(name, size("1x64"), size("2x64")), teacher).train()
    optimizer = adamw(learner)
    first, second = learner(*batch(0)), learner(*batch(0))
    assert all(torch.equal(first[key], second[key]) for key in first)  # so there is no dropout
    for step in range(3):
        sum(learner(*batch(step)).values()).backward()
        optimizer.step()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    parts = {key.split(".")[0] for key in learner.state_dict()}
    assert parts <= {"model", "projection"}  # the teacher is not among what is saved


@pytest.mark.parametrize("name, student", [("kd", "1x64"), ("tinybert", "2x32h1"),
                                           ("minilm", "2x32h1"), ("minilm-v1", "2x32h1")])
def test_a_student_comes_closer_to_its_teacher_than_it_was_and_than_scratchs(name, student):
    # Random words have no structure but the teacher's: what the student gains, it has from there.
    taught = lesson(name, size(student), size("2x64"))

    def distance(learner):
        with torch.no_grad():
            terms = learner(*batch(10 ** 6), taught)
        return list(terms.values())[-1].item()  # the distillation term: kd's, after mlm's

    after = {}
    for studied in (taught, PLAIN):
        learner = learner_of(name, student)
        before = distance(learner)
        optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)
        for step in range(100):
            sum(learner(*batch(step), studied).values()).backward()
            optimizer.step()
            optimizer.zero_grad()
        after[studied] = distance(learner)
    assert after[taught] < before - 1e-6
    assert after[taught] < after[PLAIN]


def test_the_projection_is_trained_and_not_saved_with_the_student(tmp_path):
    learner = learner_of("tinybert", "2x32h1")
    before = learner.projection.weight.clone()
    assert before.shape == (64, 32)
    sum(learner(*batch(0)).values()).backward()
    adamw(learner).step()
    assert not torch.equal(before, learner.projection.weight)
    learner.model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert not any("projection" in key for key in saved)


def test_minilm_leaves_the_last_layers_feed_forward_and_output_projection_alone():
    student = bert("2x64", mlm_head=False)
    learner = Learner(student, lesson("minilm", size("2x64"), size("2x64")), bert("2x64", 1))
    sum(learner(*batch(0)).values()).backward()
    untouched = {name for name, p in student.named_parameters() if p.grad is None}
    parts = ("attention_output", "attention_norm", "feed_forward_in", "feed_forward_out",
             "output_norm")
    assert untouched == {f"layers.1.{part}.{kind}" for part in parts
                         for kind in ("weight", "bias")}


def test_students_of_all_strategies_begin_with_the_same_weights():
    models = [bert("2x64", 5, mlm_head=has_head) for has_head in (True, False)]
    for model in models:
        torch.manual_seed(7)
        model.initialise(model)
    with_head, without = (model.state_dict() for model in models)
    assert all(torch.equal(value, with_head[key]) for key, value in without.items())
    assert len(without) < len(with_head)


def test_biases_and_layer_norms_do_not_decay():
    optimizer = adamw(bert("1x64"), weight_decay=0.1)
    decayed, not_decayed = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and not_decayed["weight_decay"] == 0
    assert all(p.dim() == 2 for p in decayed["params"])
    assert all(p.dim() == 1 for p in not_decayed["params"])


def test_scratch_may_begin_with_a_teachers_layers_and_never_asks_it_again():
    learner = Learner(bert("2x64"), PLAIN, bert("2x64", 1))
    assert learner.frozen == (None,)
    assert learner(*batch(0)).keys() == {"mlm"}


def test_a_bf16_teacher_gives_what_autocast_gives():
    learners = [learner_of("kd", "1x64", dtype=dtype).eval() for dtype in ("fp32", "bf16")]
    with torch.autocast("cpu", torch.bfloat16):
        first, second = (learner(*batch(0))["kd"].item() for learner in learners)
    assert first == second
    (rounded,) = learners[1].frozen
    assert rounded.layers[0].qkv.weight.dtype == torch.bfloat16


def test_the_strategy_of_ones_own_in_the_docstring_trains():
    # The lines that distill.py shows, run as they stand there.
    shown = distill.__doc__.split("compared like the others:\n\n")[1].split("\n\nThis file")[0]
    scope = {**vars(distill), "STRATEGIES": {}}
    exec("\n".join(line[4:] for line in shown.splitlines()), scope)
    taught = scope["STRATEGIES"]["last-layer"](size("2x32h1"), size("3x64"), distill.Options())
    learner = Learner(bert("2x32h1", mlm_head=False), taught, bert("3x64", 1)).train()
    optimizer, losses = torch.optim.AdamW(learner.parameters(), lr=1e-3), []
    for step in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            terms = learner(*batch(0))
        losses.append(sum(terms.values()))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0] and losses[0].dtype == torch.float32


class Share:
    """One of several processes. `sent` holds what those before it have sent to all the others."""

    def __init__(self, rank, world, sent):
        self.rank, self.world, self.sent = rank, world, sent

    rows = Processes.rows

    def all_reduce_sum(self, sums):
        self.sent.append(sums.clone())
        sums.copy_(sum(self.sent))


@pytest.mark.parametrize("unlabelled", [slice(3, 9), slice(None)])
@pytest.mark.parametrize("name", ["scratch", *TAUGHT])
def test_validation_is_the_loss_of_the_whole_set_however_it_is_cut(name, unlabelled):
    learner = learner_of(name, "2x64").eval()
    validation = batch(0)
    validation[3][unlabelled] = -100
    with torch.no_grad():
        expected = {term: value.item() for term, value in learner(*validation).items()}
    assert unlabelled != slice(None) or expected.get("mlm", 0.0) == 0.0
    for world, chunk in ((1, 8), (1, 3), (2, 1), (3, 2), (9, 3)):  # 8 rows: each of 9 takes all
        sent = []
        for rank in range(world):
            session = SimpleNamespace(processes=Share(rank, world, sent),
                                      autocast=contextlib.nullcontext)
            terms = learner.validate(validation, session, chunk=chunk)
        assert terms == pytest.approx(expected, rel=1e-5), (world, chunk)  # in the last process


def test_the_rate_rises_for_6_percent_then_falls_to_zero():
    rates = [train.learning_rate(step, 1000, 2.0, 0.06) for step in range(1000)]
    assert np.argmax(rates) == 60 and abs(max(rates) - 2.0) < 1e-9
    assert np.allclose(np.diff(rates[:60]), 2.0 / 61)
    assert np.allclose(np.diff(rates[61:]), -2.0 / 940)
    assert 0 < rates[-1] < 2.0 / 900 and rates[0] == pytest.approx(2.0 / 61)


def test_seeds_and_steps_differ_in_their_dropout():
    masks = []
    for seed, step in ((0, 5), (1, 5), (0, 6)):
        torch.manual_seed(train.dropout_seed(seed, step, 0))
        masks.append(torch.nn.functional.dropout(torch.ones(1000), 0.5))
    # Half of the places agree by chance, give or take 0.016.
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 0.4 < (masks[a] == masks[b]).float().mean() < 0.6


# --------------------------------------------------------------------------------------------------
# A run: its budget, and what it leaves

# Small enough for a second or two, dropout included: a continued run must repeat that, too.
TINY = ["--flops", "4e10", "--model", "2x64", "--vocab-size", "200", "--seq-len", "16",
        "--batch-size", "16", "--dropout", "0.1"]
# Where only the way to the end counts, and not what is learned: 62 steps.
SHORT = [*TINY, "--flops", "1e10"]
STORIES = ["--model", "2x64", "--batch-size", "8"]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A text with some grammar: who, does what, to what."""
    rng = random.Random(0)

    def sentence():
        return (f"{rng.choice(['the cat', 'a dog', 'one boy'])} "
                f"{rng.choice(['sees', 'likes', 'takes'])} "
                f"{rng.choice(['the ball', 'a fish', 'red bread'])}.")

    lines = [" ".join(sentence() for _ in range(4)) for _ in range(3000)]
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory):
    """A cache of our own. And one thread, here as in the processes that are started: so small a
    model gains nothing from more, and with another number sums differ in their last digits.

    The machine's speed is not measured here, which saves a second a run. The processes that are
    started do measure it: that leaves no trace in their weights."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOFLOP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(ROOT)
        patch.setattr(Session, "measure", lambda *_: 1e10)
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def run(*arguments):
    """(exit status, stdout, stderr) of train.py, in this process."""
    return run_main(train.main, "train.py", arguments)


def start(*arguments, **options):
    """train.py as a process of its own."""
    return subprocess.Popen([sys.executable, "train.py", *map(str, arguments)], cwd=ROOT,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def error_of(status, err):
    """The one line in which a run ended that its user can mend."""
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and "Traceback" not in err
    return last


@pytest.fixture(scope="module")
def finished(book, tmp_path_factory):
    """The folder of an undisturbed run, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    status, out, err = run(*TINY, "--data", book, "--out", folder)
    assert status == 0, err
    return folder, out


@pytest.fixture(scope="module")
def short(book, tmp_path_factory):
    """The folder of a short run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    status, out, err = run(*SHORT, "--data", book, "--out", folder)
    assert status == 0, err
    return folder


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder):
    return [(row["step"], row.get("loss"), row.get("val_loss")) for row in log_of(folder)]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_run_spends_whole_steps_and_never_more_than_its_budget(finished):
    record = record_of(finished[0])
    V = json.loads((finished[0] / "config.json").read_text())["vocab_size"]
    # tests/test_budget.py compares this number with torch's own count.
    step = budget.step_flops(size("2x64"), V, 16, 16)
    assert record["steps"] * step == record["flops_spent"]
    assert record["flops_spent"] <= record["settings"]["flops_budget"] == 4 * 10 ** 10
    assert record["flops_spent"] + step > 4 * 10 ** 10
    assert record["tokens"] == record["steps"] * 16 * 16


def test_a_run_learns_and_says_what_counting_words_would_have_achieved(finished):
    record = record_of(finished[0])
    assert record["neighbour_loss"] < record["unigram_loss"]
    assert record["val_loss"] < record["unigram_loss"] - 0.3
    assert f"unigram {record['unigram_loss']:.3f}" in finished[1]


def test_what_a_run_leaves_opens_in_transformers(finished):
    transformers = pytest.importorskip("transformers")
    model, loading = transformers.AutoModelForMaskedLM.from_pretrained(finished[0],
                                                                       output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(finished[0])
    encoded = tokenizer("the cat sees [MASK] ball.", return_tensors="pt")
    ours = Bert.from_pretrained(finished[0])
    with torch.no_grad():
        assert torch.allclose(model(**encoded).logits, ours(**encoded).logits, atol=1e-5)
    assert tokenizer.mask_token_id in encoded["input_ids"]


def test_the_validation_loss_is_what_transformers_computes(finished, book):
    transformers = pytest.importorskip("transformers")
    corpus = data.open_corpus(data.Text([str(book)], vocab_size=200), 16, 0)
    _, (inputs, positions, labels) = corpus.validation()
    model = transformers.AutoModelForMaskedLM.from_pretrained(finished[0]).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs)).logits.flatten(0, 1)[positions]
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    record = record_of(finished[0])
    tolerance = 0.02 if record["settings"]["dtype"] == "bf16" else 1e-4
    assert abs(loss - record["val_loss"]) < tolerance


def test_a_run_leaves_curve_card_log_and_no_checkpoints(finished):
    assert set(os.listdir(finished[0])) == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "run.json",
        "log.jsonl", "curve.png", "README.md", "lock"}
    assert (finished[0] / "curve.png").read_bytes().startswith(b"\x89PNG")
    card = (finished[0] / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    log = log_of(finished[0])
    steps = [row["step"] for row in log if "loss" in row]
    assert steps == sorted(set(steps)) and sum("val_loss" in row for row in log) == 11


@pytest.mark.slow  # the stories of the validation set take some seconds
def test_stories_need_no_files_and_no_network(tmp_path):
    status, out, err = run("--flops", "2e10", *STORIES, "--out", tmp_path / "run")
    assert status == 0, err
    assert record_of(tmp_path / "run")["epochs"] == 0.0 and "without end" in out


def test_limited_data_is_repeated(book, tmp_path):
    status, out, err = run(*TINY, "--flops", "5e9", "--data", book, "--unique-tokens", "3200",
                           "--out", tmp_path / "run")
    record = record_of(tmp_path / "run")
    assert status == 0 and record["epochs"] == record["tokens"] / 3200 > 2


@pytest.mark.parametrize("flops, warned", [("5e9", False), ("1e12", True)])
def test_a_text_that_is_read_too_often_is_told(book, flops, warned):
    status, out, err = run(*TINY, "--flops", flops, "--data", book, "--unique-tokens", "3200",
                           "--dry-run")
    assert status == 0
    assert ("times: a student may learn so few words by heart" in out) == warned


def test_a_dry_run_prints_the_plan_and_writes_nothing(book, tmp_path):
    status, out, err = run("--flops", "1e16", "--data", book, "--vocab-size", "200",
                           "--batch-size", "8", "--out", tmp_path / "run", "--dry-run")
    assert status == 0 and not (tmp_path / "run").exists()
    assert "<- this one" in out and "a step" in out and "budget" in out


# --------------------------------------------------------------------------------------------------
# A run of a student and its teacher

# Every strategy's step, the change of phase of --mlm-finish, and a matrix between the widths.
STUDENTS = {"kd": ["--model", "1x64", "--temperature", "2"], "tinybert": ["--model", "2x32h1"],
            "minilm": ["--model", "2x64", "--mlm-finish", "0.3"], "minilm-v1": ["--model", "1x64"],
            "kd-released": ["--model", "2x64", "--init", "teacher"]}


def student_of(strategy, teacher, book, flops="5e9"):
    return ["--strategy", strategy, "--teacher", teacher, "--data", book, "--flops", flops,
            "--seq-len", "16", "--batch-size", "16", "--dropout", "0.1", *STUDENTS[strategy]]


def validations(folder):
    return sum("val_terms" in row for row in log_of(folder))


@pytest.mark.parametrize("strategy", STUDENTS)
def test_a_distilled_student_obeys_its_budget(finished, book, tmp_path, strategy):
    folder, line = tmp_path / "run", student_of(strategy, finished[0], book)
    status, out, err = run(*line, "--out", folder)
    assert status == 0, err
    record = record_of(folder)
    assert sum(record["bill"].values()) == record["flops_spent"] <= 5 * 10 ** 9
    assert record["bill"]["teacher_forward"] > 0
    finishes = "--mlm-finish" in line
    assert validations(folder) == (12 if finishes else 11)
    # There is never a number from a head that nothing trains.
    has_head = strategy in ("kd", "kd-released") or finishes
    assert (record["val_loss"] is not None) == has_head
    saved = load_file(folder / "model.safetensors")
    assert any("predictions" in key for key in saved) == has_head


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STUDENTS)
def test_a_distilled_student_survives_kills_bit_for_bit(finished, book, tmp_path, strategy):
    line, rng = student_of(strategy, finished[0], book, "2e10"), random.Random(0)
    status, out, err = run(*line, "--out", tmp_path / "undisturbed")
    assert status == 0, err
    for _ in range(2):
        kill_in_the_loop(start(*line, "--out", tmp_path / "killed"), rng.uniform(0, 1.0))
    status, out, err = run(*line, "--out", tmp_path / "killed")
    assert status == 0, err
    assert weights(tmp_path / "killed") == weights(tmp_path / "undisturbed")
    assert validations(tmp_path / "killed") == validations(tmp_path / "undisturbed")


def test_all_strategies_see_the_same_batches_whatever_they_are(finished, book):
    # The blocks and masks of a step depend on (seed, step) and the text. A strategy has no say.
    teacher = teachers.load_teacher(finished[0], 16, Bert)
    of_teacher = teachers.tokenizer_of(teacher.folder, teacher.model.config.vocab_size)
    corpora = [data.open_corpus(data.Text([str(book)], tokenizer=tokenizer), 16, 0)
               for tokenizer in (str(finished[0]), of_teacher)]
    for step in (0, 7):
        first, second = (train.masked_batch(corpus, 0, step, 8, torch.device("cpu"))
                         for corpus in corpora)
        assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_another_teacher_in_the_same_folder_is_refused(finished, book, tmp_path):
    shutil.copytree(finished[0], tmp_path / "teacher")
    line = [*student_of("kd", tmp_path / "teacher", book), "--out", tmp_path / "student"]
    status, out, err = run(*line)
    assert status == 0, err
    model = Bert.from_pretrained(tmp_path / "teacher")
    torch.nn.init.zeros_(model.layers[0].qkv.bias)
    model.save_pretrained(tmp_path / "teacher")
    status, out, err = run(*line)
    assert "is damaged, or was edited" in error_of(status, err)  # run.json says what it left
    (tmp_path / "teacher" / "run.json").unlink()
    status, out, err = run(*line)
    assert "its teacher's weights changed" in error_of(status, err)
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments, message", [
    (["--strategy", "kd"], "--teacher"),
    (["--strategy", "kd", "--teacher", "no/such/teacher"], "no/such/teacher is no folder"),
    (["--strategy", "kd", "--teacher", "tests"], "config.json"),
    (["--strategy", "kd", "--teacher", "TEACHER", "--vocab-size", "300"], "--vocab-size"),
    (["--strategy", "kd", "--teacher", "TEACHER", "--seq-len", "256"], "128 positions"),
    (["--strategy", "tinybert", "--teacher", "TEACHER", "--model", "3x64"], "1, 2 layers"),
    (["--strategy", "kd", "--teacher", "TEACHER", "--out", "TEACHER"], "the teacher's own folder")])
def test_a_teacher_that_does_not_fit_ends_in_one_line(finished, book, tmp_path, arguments, message):
    arguments = [str(finished[0]) if word == "TEACHER" else word for word in arguments]
    before = weights(finished[0])
    out_flag = [] if "--out" in arguments else ["--out", str(tmp_path / "run")]
    status, out, err = run("--flops", "1e11", "--data", book, *arguments, *out_flag)
    assert message in error_of(status, err)
    assert not (tmp_path / "run").exists() and weights(finished[0]) == before


# --------------------------------------------------------------------------------------------------
# A run that begins with the weights of another one


def from_start(start, book, *more):
    """The line of a run that begins with the weights of `start`."""
    return ["--start-from", start, "--data", book, "--flops", "5e9", "--seq-len", "16",
            "--batch-size", "16", "--dropout", "0.1", "--seed", "1", *more]


@pytest.fixture(scope="module")
def started(finished, book, tmp_path_factory):
    """The folder of a run that began with the weights of `finished`, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "started"
    status, out, err = run(*from_start(finished[0], book), "--out", folder)
    assert status == 0, err
    return folder, out


def test_a_run_begins_where_its_start_ended_and_has_a_budget_and_a_schedule_of_its_own(finished,
                                                                                       started):
    start, record, log = record_of(finished[0]), record_of(started[0]), log_of(started[0])
    assert log[0]["step"] == 0  # the same model has the same loss on the same held-out text
    assert log[0]["val_loss"] == pytest.approx(start["val_loss"], rel=1e-6)
    step = budget.step_flops(size("2x64"), record["settings"]["vocab_size"], 16, 16)
    assert record["flops_spent"] == record["steps"] * step == sum(record["bill"].values())
    assert 5 * 10 ** 9 - step < record["flops_spent"] <= 5 * 10 ** 9
    rates = [row["lr"] for row in log if "lr" in row]
    assert rates[0] < max(rates) > rates[-1] > 0


def test_what_was_spent_before_is_in_the_record_the_plan_and_the_result(finished, started, book):
    spent = record_of(finished[0])["flops_spent"]
    assert record_of(started[0])["flops_before"] == spent
    assert started[1].count(f"before      {spent:,} FLOPs") == 2
    assert f"start       BERT 2x64, {finished[0]}" in started[1]
    # Another run may go on from there: it adds up.
    _, out, _ = run(*from_start(started[0], book), "--dry-run")
    assert f"before      {spent + record_of(started[0])['flops_spent']:,} FLOPs" in out


def test_a_run_without_a_start_says_what_it_has_always_said(finished):
    record = record_of(finished[0])
    assert not {"start", "flops_before"} & record.keys()
    assert "start_sha256" not in record["settings"] and "before  " not in finished[1]


def test_a_started_run_continues_with_its_own_start_only(finished, started, short, book, tmp_path):
    line = [*from_start(finished[0], book), "--out", tmp_path / "run"]
    with signal_at(20, signal.SIGINT):
        assert run(*line)[0] == 130
    without = [word for word in line if word not in ("--start-from", finished[0])]
    for other in ([*line, "--start-from", short], [*without, "--tokenizer", finished[0]]):
        assert "weights that it begins with" in error_of(*run(*other)[::2])
    status, out, err = run(*line)
    assert status == 0 and "continuing at step 21 of" in out, err
    assert weights(tmp_path / "run") == weights(started[0])
    assert losses(tmp_path / "run") == losses(started[0])


def test_the_same_seed_on_the_same_text_is_told(finished, started, book):
    told = "read this text in the same order (--seed"
    assert told not in started[1]
    assert f"{told} 0)" in run(*from_start(finished[0], book, "--seed", 0), "--dry-run")[1]


def test_a_taught_student_may_begin_with_other_weights_and_needs_the_same_words(
        finished, started, book, tmp_path):
    line = from_start(started[0], book, "--strategy", "kd", "--teacher", finished[0])
    status, out, err = run(*line, "--out", tmp_path / "run")
    assert status == 0, err
    first = log_of(tmp_path / "run")[0]
    assert first["val_loss"] == pytest.approx(record_of(started[0])["val_loss"], rel=1e-6)
    assert record_of(tmp_path / "run")["bill"]["teacher_forward"] > 0
    # A teacher with the same weights, two of whose words have changed places.
    shutil.copytree(finished[0], tmp_path / "other")
    (tmp_path / "other" / "run.json").unlink()
    path = tmp_path / "other" / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = list(vocab)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    path.write_text(json.dumps(tokenizer))
    status, _, err = run(*line, "--teacher", tmp_path / "other")
    assert "different vocabularies" in error_of(status, err)


def test_a_start_without_a_head_gets_a_fresh_one_which_is_said(finished, book, tmp_path):
    model = Bert.from_pretrained(finished[0])
    model.mlm_head = None
    shutil.copytree(finished[0], tmp_path / "encoder")
    (tmp_path / "encoder" / "run.json").unlink()
    model.save_pretrained(tmp_path / "encoder")
    line = from_start(tmp_path / "encoder", book, "--out", tmp_path / "run")
    status, out, err = run(*line)
    assert status == 0, err
    assert "encoder has none that predicts words: the student's is drawn fresh" in out
    assert "before      FLOPs that no run.json tells" in out
    assert record_of(tmp_path / "run")["flops_before"] is None
    first = log_of(tmp_path / "run")[0]["val_loss"]
    assert first > record_of(finished[0])["val_loss"] + 0.5  # the old head is gone
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert any("predictions" in key for key in saved)


def test_a_student_that_trains_no_head_does_not_take_one(finished, book):
    line = from_start(finished[0], book, "--strategy", "minilm", "--teacher", finished[0])
    _, out, _ = run(*line, "--dry-run")
    with_head = Bert.from_pretrained(finished[0])
    parameters = with_head.parameter_count() - sum(p.numel() for p in
                                                   with_head.mlm_head.parameters())
    assert f"{parameters:,} parameters" in out and "drawn fresh" not in out


@pytest.mark.parametrize("arguments, message", [
    (["--model", "2x128"], "is a BERT 2x64, and --model asks for 2x128"),
    (["--vocab-size", "300"], "--vocab-size"), (["--seq-len", "256"], "128 positions"),
    (["--init", "teacher", "--teacher", "START"], "both say which weights"),
    (["--start-from", "no/such/start"], "no/such/start"),
    (["--start-from", "tests"], "config.json"),
    (["--out", "START"], "is the folder that --start-from names")])
def test_a_start_that_does_not_fit_ends_in_one_line(finished, book, tmp_path, arguments, message):
    arguments = [str(finished[0]) if word == "START" else word for word in arguments]
    out_flag = [] if "--out" in arguments else ["--out", str(tmp_path / "run")]
    status, out, err = run(*from_start(finished[0], book), *arguments, *out_flag)
    assert message in error_of(status, err)
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------------------------------------------
# A run that is disturbed


@contextlib.contextmanager
def signal_at(step, signum):
    """Inside, this process gets a signal while it makes the batch of a step."""
    real = train.masked_batch

    def masked_batch(corpus, seed, number, *rest):
        if number == step:
            os.kill(os.getpid(), signum)
        return real(corpus, seed, number, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "masked_batch", masked_batch)
        yield


def test_a_signal_saves_says_how_to_continue_and_loses_no_step(short, book, tmp_path):
    line = [*SHORT, "--data", book, "--out", tmp_path / "run"]
    with signal_at(40, signal.SIGTERM):
        status, out, err = run(*line)
    assert status == 143 and "Traceback" not in err
    assert "stopped at step 41 of 62" in out and "the same command continues" in out
    status, out, err = run(*line)
    assert status == 0 and "continuing at step 41 of 62" in out
    assert weights(tmp_path / "run") == weights(short)
    assert losses(tmp_path / "run") == losses(short)


def kill_in_the_loop(process, seconds):
    """Kills a run so many seconds after it has come into the loop, where it says how many steps it
    has made."""
    for line in process.stdout:
        if re.match(r" +[\d,]+ steps ", line):
            break
    time.sleep(seconds)
    process.kill()
    process.communicate()


# train.py in a process that saves each 20th of the run, and dies five steps after its first save.
DIES = """
import math, os, signal
import train
from running import monitor, runfolder

monitor.SAVING_SHARE = math.inf
real_save, real_batch = runfolder.Run.save_checkpoint, train.masked_batch
saves, batches = [], []

def save(*arguments):
    real_save(*arguments)
    saves.append(1)

def masked_batch(*arguments):
    if saves:
        batches.append(1)
    if len(batches) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return real_batch(*arguments)

runfolder.Run.save_checkpoint, train.masked_batch = save, masked_batch
train.main()
"""


def test_killed_once_the_same_command_ends_with_the_same_weights(short, book, tmp_path):
    line = [*SHORT, "--data", book, "--out", tmp_path / "run"]
    dead = subprocess.run([sys.executable, "-c", DIES, *map(str, line)], cwd=ROOT, text=True,
                          capture_output=True, timeout=300)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    status, out, err = run(*line)
    # It saved after steps 3 and 6, and had begun another step since.
    assert status == 0 and "continuing at step 6 of 62" in out, err
    assert weights(tmp_path / "run") == weights(short)
    assert losses(tmp_path / "run") == losses(short)  # the log has each line once


def test_the_same_command_on_a_finished_run_prints_its_result_and_changes_nothing(finished, book):
    def times():
        return {path.name: path.stat().st_mtime_ns for path in finished[0].iterdir()
                if path.name != "lock"}

    before = times()
    status, out, err = run(*TINY, "--data", book, "--out", finished[0])
    assert status == 0 and out.startswith("finished ")
    assert before == times()


# --------------------------------------------------------------------------------------------------
# A command line that cannot be right


@pytest.mark.parametrize("arguments, message", [
    ([], "the following arguments are required: --flops"),
    (["--flops", "1", "--data", "BOOK"], "below one step"), (["--flops", "lots"], "--flops"),
    (["--flops", "1e9", "--model", "6x70"], "not a multiple of 64"),
    (["--flops", "1e13", "--seq-len", "2"], "--seq-len"),
    (["--flops", "1e13", "--vocab-size", "4"], "--vocab-size"),
    (["--flops", "1e13", "--dtype", "fp8"], "--dtype"),
    (["--flops", "1e13", "--device", "cuda:7"], "--device"),
    (["--flops", "1e13", "--data", "nothing/here.txt"], "no such file"),
    (["--flops", "1e13", "--out", "LICENSE/x"], "--out"),
    (["--flops", "1e13", "--data", "BOOK", "--unique-tokens", "100"], "one batch"),
    (["--flops", "1e13", "--strategy", "magic"], "--strategy")])
def test_bad_input_ends_in_one_line_before_anything_is_written(book, tmp_path, arguments, message):
    arguments = [str(book) if word == "BOOK" else word for word in arguments]
    out_flag = [] if "--out" in arguments else ["--out", str(tmp_path / "run")]
    status, out, err = run(*arguments, *out_flag)
    assert message in error_of(status, err)
    assert not (tmp_path / "run").exists()


def test_the_program_ends_as_the_function_does(book):
    process = start("--flops", "1", "--data", book)
    out, err = process.communicate(timeout=300)
    assert "below one step" in error_of(process.returncode, err)
