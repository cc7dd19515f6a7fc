"""glue.py: a score that can be trusted. What can be learned is learned, and what cannot is not. The
same seed gives the same score, also after a kill.

Most commands here are calls of glue.main in this process, which saves the seconds of its imports.
"""
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from files import gluefiles
from files.wordpiece import SPECIAL, save_tokenizer, wordpiece
from program import cli

import numpy as np
import pytest
import torch
import transformers
from conftest import run_main

import budget
import glue
from model import Bert, BertConfig
from world import stories, tasks

ROOT = Path(glue.__file__).parent
WORDS = ["good", "bad", *(f"w{i}" for i in range(20))]


def save_words(words, folder, longest):
    """Saves a tokenizer of the special tokens and these words. Returns all of them."""
    vocabulary = [*SPECIAL, *words]
    tokenizer = wordpiece({word: i for i, word in enumerate(vocabulary)})
    save_tokenizer(tokenizer, folder, longest)
    return vocabulary


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny BERT with fresh weights, 32 positions and the words of WORDS."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = save_words(WORDS, folder, 32)
    torch.manual_seed(0)
    config = BertConfig.of(budget.size("1x32h1"), vocab_size=len(vocabulary),
                           max_position_embeddings=32, hidden_dropout_prob=0.1,
                           attention_probs_dropout_prob=0.1)
    Bert(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """GLUE's files of three tasks: CoLA, whose sentences say their label; SST-2, whose labels were
    shuffled; STS-B, whose score is the number of good words."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)

    def sentence(*telling):
        words = [*telling, *(draw.choice(WORDS[2:]) for _ in range(draw.randint(1, 9)))]
        draw.shuffle(words)
        return " ".join(words)

    def write(name, part, *rows):
        (folder / name).mkdir(exist_ok=True)
        lines = ["\t".join(map(str, row)) + "\n" for row in rows]
        (folder / name / f"{part}.tsv").write_text("".join(lines))

    for part, n in (("train", 600), ("dev", 300)):
        labels = [i % 2 for i in range(n)]
        texts = [sentence(("bad", "good")[label]) for label in labels]
        write("CoLA", part, *(["x", label, "", text] for label, text in zip(labels, texts)))
        shuffled = [[text, draw.randint(0, 1)] for text in texts]
        write("SST-2", part, ["sentence", "label"], *shuffled)
        good = [draw.randint(0, 5) for _ in range(n)]
        pairs = [[i, sentence(*["good"] * g, *["bad"] * (5 - g)), sentence(), g]
                 for i, g in enumerate(good)]
        write("STS-B", part, ["index", "sentence1", "sentence2", "score"], *pairs)
    texts = [sentence(("bad", "good")[i % 2]) for i in range(40)]
    for name in ("CoLA", "SST-2"):
        write(name, "test", ["index", "sentence"], *enumerate(texts))
    pairs = [[i, text, sentence()] for i, text in enumerate(texts)]
    write("STS-B", "test", ["index", "sentence1", "sentence2"], *pairs)
    return folder


@pytest.fixture(scope="module", autouse=True)
def surroundings():
    """One thread, here as in the processes that are started: with another number sums differ in
    their last digits."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.chdir(ROOT)
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


def run(*arguments):
    """(exit status, stdout, stderr) of glue.py, in this process."""
    return run_main(glue.main, "glue.py", arguments)


def start(*arguments):
    """glue.py as a process of its own."""
    return subprocess.Popen([sys.executable, "glue.py", *map(str, arguments)], cwd=ROOT,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def error_of(status, err):
    """The one line in which a command ended that its user can mend."""
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and "Traceback" not in err
    return last


def cells(folder):
    """{(task, rate, seed): scores} of the finished fine-tunings."""
    kept = json.loads((folder / "glue.json").read_text())["cells"]
    return {(cell["task"], cell["lr"], cell["seed"]): cell["scores"] for cell in kept}


def three_tasks(model, data, folder):
    """The command of most tests: `quick` over three tasks and two seeds."""
    return [model, "--data", data, "--tasks", "cola,sst2,stsb", "--seeds", 2, "--out", folder]


@pytest.fixture(scope="module")
def scored(model, data, tmp_path_factory):
    """(folder, stdout, stderr) of an undisturbed run."""
    folder = tmp_path_factory.mktemp("scored")
    status, out, err = run(*three_tasks(model, data, folder))
    assert status == 0, err
    return folder, out, err


# --------------------------------------------------------------------------------------------------
# Scores


def test_a_label_that_the_text_says_is_learned_and_shuffled_labels_are_not(scored):
    of_task = {"cola": [], "sst2": [], "stsb": []}
    for (task, *_), scores in cells(scored[0]).items():
        of_task[task].append(scores["dev"])
    assert all(len(scores) == 2 for scores in of_task.values())
    assert all(scores["matthews"] > 0.98 for scores in of_task["cola"])
    assert all(scores["pearson"] > 0.9 for scores in of_task["stsb"])
    # Three standard deviations of 300 coins.
    assert all(abs(scores["accuracy"] - 0.5) < 0.09 for scores in of_task["sst2"])


def test_the_table_says_score_spread_majority_and_what_was_averaged(scored):
    assert re.search(r"cola +dev +matthews +\d+\.\d \+- +\d+\.\d +0\.0", scored[1])
    assert "average over these 3 tasks, development sets" in scored[1]


def test_the_same_command_computes_nothing_anew(scored, model, data, monkeypatch):
    def fine_tune(*_):
        raise AssertionError("it was finished before")

    monkeypatch.setattr(glue, "fine_tune", fine_tune)
    before = (scored[0] / "glue.json").read_bytes()
    status, out, err = run(*three_tasks(model, data, scored[0]))
    assert status == 0 and "step/s" not in err and "average over these 3 tasks" in out
    assert (scored[0] / "glue.json").read_bytes() == before


def test_stopped_and_continued_the_scores_are_the_same(scored, model, data, tmp_path, monkeypatch):
    real, done = glue.fine_tune, []

    def fine_tune(*arguments):
        if len(done) == 3:
            raise cli.Stopped(signal.SIGTERM)
        done.append(1)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(glue, "fine_tune", fine_tune)
        assert run(*three_tasks(model, data, tmp_path))[0] == 143
    assert len(cells(tmp_path)) == 3
    status, out, err = run(*three_tasks(model, data, tmp_path))
    assert status == 0 and cells(tmp_path) == cells(scored[0])


@pytest.mark.slow
def test_killed_and_continued_the_scores_are_the_same(scored, model, data, tmp_path):
    for signum in (signal.SIGKILL, signal.SIGINT):
        before = len(cells(tmp_path)) if (tmp_path / "glue.json").exists() else 0
        process = start(*three_tasks(model, data, tmp_path))
        while process.poll() is None:
            if (tmp_path / "glue.json").exists() and len(cells(tmp_path)) > before:
                break
            time.sleep(0.02)
        process.send_signal(signum)
        _, err = process.communicate()
        assert process.returncode in (-9, 130, 0) and "Traceback" not in err
    status, out, err = run(*three_tasks(model, data, tmp_path))
    assert status == 0 and cells(tmp_path) == cells(scored[0])


# --------------------------------------------------------------------------------------------------
# The classifier


def test_the_pooled_classifier_is_transformers(model, tmp_path):
    # With our classifier's weights transformers' BertForSequenceClassification gives the same
    # logits, padding and pairs included.
    ours = glue.Classifier(model, 3, seed=0).eval()
    ours.bert.save_pretrained(tmp_path)
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path, num_labels=3)
    theirs.eval()
    with torch.no_grad():
        theirs.classifier.weight.copy_(ours.linear.weight)
        theirs.classifier.bias.copy_(ours.linear.bias)
    encoded = [([2, 7, 8, 3], [0] * 4), ([2, 9, 3, 10, 11, 3], [0, 0, 0, 1, 1, 1])]
    ids, mask, types = glue.collate(encoded, [0, 1], 0, "cpu")
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        torch.testing.assert_close(ours(ids, mask, types), expected, atol=1e-5, rtol=1e-4)
    assert ids.tolist()[0] == [2, 7, 8, 3, 0, 0] and mask.tolist()[0] == [1, 1, 1, 1, 0, 0]
    assert types.tolist()[1] == [0, 0, 0, 1, 1, 1]


def test_the_mean_is_over_tokens_and_not_over_padding(model):
    ours = glue.Classifier(model, 2, seed=0, pool="mean").eval()
    short, longer = ([2, 7, 8, 3], [0] * 4), ([2, 9, 10, 11, 12, 3], [0] * 6)
    with torch.no_grad():
        alone = ours(*glue.collate([short], [0], 0, "cpu"))
        padded = ours(*glue.collate([short, longer], [0, 1], 0, "cpu"))
        x = ours.bert(torch.tensor([short[0]])).last_hidden_state[0].mean(0)
        by_hand = ours.linear(torch.tanh(ours.bert.pooler(x)))
    torch.testing.assert_close(alone[0], padded[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone[0], by_hand, atol=1e-5, rtol=1e-4)


# --------------------------------------------------------------------------------------------------
# Batches


def test_each_epoch_holds_every_example_once_in_batches_of_similar_length():
    lengths = np.random.default_rng(0).integers(5, 60, 1000)

    def padding(batches):
        return sum(lengths[chosen].max() * len(chosen) - lengths[chosen].sum()
                   for chosen in batches)

    batches = glue.batches_by_length(lengths, 16, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert len(batches) == 1000 // 16 + 1
    shuffled = np.random.default_rng(1).permutation(1000)
    assert padding(batches) < padding(np.array_split(shuffled, 63)) / 5
    others = glue.batches_by_length(lengths, 16, np.random.default_rng(2))
    assert any(a[0] != b[0] for a, b in zip(batches, others))


def test_texts_longer_than_the_position_table_are_cut_and_said(model, tmp_path):
    lines = ["index\tsentence1\tsentence2\tlabel"]
    for i in range(8):
        text = "w1 " * (50 if i == 0 else 3)
        lines.append(f"{i}\t{text}\tw2\tentailment")
    (tmp_path / "RTE").mkdir()
    for part in ("train", "dev"):
        (tmp_path / "RTE" / f"{part}.tsv").write_text("\n".join(lines) + "\n")
    status, out, err = run(model, "--data", tmp_path, "--tasks", "rte", "--seeds", 1,
                           "--out", tmp_path / "out")
    assert status == 0
    assert "rte: 1 of 8 texts of train are longer than 32 tokens, and are cut" in out


# --------------------------------------------------------------------------------------------------
# The grid


def test_the_papers_grid_is_8_cells_of_5_epochs_whatever_the_width():
    args = glue.read_settings(["m", "--grid", "paper", "--seeds", "2"])
    task = gluefiles.Task("t", {"train": []}, None, (), ())

    def cells_at(h):
        return [cell for _, cell in glue.cells_of(args, [task], h, "0" * 64, "fp32", "cpu")]

    paper = cells_at(128)
    assert len(paper) == 16 and {cell["epochs"] for cell in paper} == {5}
    assert {(cell["lr"], cell["batch_size"]) for cell in paper} == {
        (lr, batch_size) for lr in (1e-5, 3e-5, 5e-5, 8e-5) for batch_size in (16, 32)}
    assert paper == cells_at(768)


# --------------------------------------------------------------------------------------------------
# Without fine-tuning


def test_minimal_pairs_are_scored_by_the_head_and_left_out_without_one(tmp_path):
    vocabulary = save_words(stories.WORDS, tmp_path, 64)
    torch.manual_seed(0)
    bert = Bert(BertConfig.of(budget.size("1x32h1"), vocab_size=len(vocabulary),
                              max_position_embeddings=64))
    with torch.no_grad():  # a head that always prefers "were" to "was"
        for word, value in (("were", 50.0), ("was", -50.0)):
            bert.mlm_head.bias[vocabulary.index(word)] = value
    bert.save_pretrained(tmp_path)
    rights = [right for _, right, _ in tasks.minimal_pairs()["agreement"]]
    expected = rights.count("were") / len(rights)
    assert glue.zero_shot(tmp_path)["agreement"] == pytest.approx(expected)
    Bert(bert.config, mlm_head=False).save_pretrained(tmp_path)
    assert glue.zero_shot(tmp_path) == {}


# --------------------------------------------------------------------------------------------------
# A command line that cannot be right


@pytest.mark.parametrize("arguments, message", [
    ([], "say which model"), (["no/such/run/at-all"], "no/such/run/at-all"),
    (["tests"], "config.json"), (["MODEL", "MODEL"], "one model at a time"),
    (["MODEL", "--tasks", "rte"], "'rte' is no task of stories"),
    (["MODEL", "--grid", "huge"], "--grid"),
    (["MODEL", "--data", "DATA", "--tasks", "rte"], "train.tsv is missing"),
    (["MODEL", "--data", "no-such-folder/x", "--tasks", "rte"], "no folder no-such-folder/x"),
    (["MODEL", "--seeds", "0"], "--seeds"),
    (["MODEL", "--gate", "--data", "DATA"], "--gate")])
def test_bad_input_ends_in_one_line(model, data, tmp_path, arguments, message):
    places = {"MODEL": str(model), "DATA": str(data)}
    arguments = [places.get(word, word) for word in arguments]
    status, out, err = run(*arguments, "--out", tmp_path / "out")
    assert message in error_of(status, err)
    assert not (tmp_path / "out" / "glue.json").exists()


def test_a_model_and_a_tokenizer_that_do_not_belong_together_are_refused(model, data, tmp_path):
    Bert.from_pretrained(model).save_pretrained(tmp_path)
    save_words([f"v{i}" for i in range(100)], tmp_path, 32)
    status, out, err = run(tmp_path, "--data", data, "--tasks", "cola")
    assert "do not belong together" in error_of(status, err)


def test_a_run_that_is_not_finished_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"finished": false}')
    status, out, err = run(tmp_path)
    line = error_of(status, err)
    assert f"error: {tmp_path} is a run that is not finished: give its own command again" in line


def test_the_progress_in_a_log_is_whole_lines(scored):
    first, *lines, last = scored[2].split("\n")
    assert first.startswith("0%|") and last == ""
    assert lines[-1].startswith("stsb lr ") and "(6/6): 100%|" in lines[-1]
    form = r"(cola|sst2|stsb) lr \S+ batch 16 seed [01] \([1-6]/6\): +\d+%\|.* \d+/\d+ \[.*\]"
    assert [line for line in lines if not re.fullmatch(form, line)] == []



def test_the_program_ends_as_the_function_does(tmp_path):
    process = start("tests", "--out", tmp_path)
    out, err = process.communicate(timeout=300)
    assert "config.json" in error_of(process.returncode, err)
