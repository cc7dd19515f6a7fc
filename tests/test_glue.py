"""glue.py: a score that can be trusted. What can be learned is, what cannot is not; the same seed gives the same score, also after a kill."""
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from plumbing import gluefiles, options, wordpiece
from plumbing.wordpiece import SPECIAL, save_tokenizer

import numpy as np
import pytest
import torch
import transformers

import budget
import glue
from measure import scores
from model import Bert, BertConfig

ROOT = Path(glue.__file__).parent
WORDS = ["good", "bad", *(f"w{i}" for i in range(20))]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    vocabulary = [*SPECIAL, *WORDS]
    torch.manual_seed(0)
    Bert(BertConfig.of(budget.size("1x32h1"), vocab_size=len(vocabulary), max_position_embeddings=32, hidden_dropout_prob=0.1,
                       attention_probs_dropout_prob=0.1)).save_pretrained(folder)
    save_tokenizer(wordpiece({word: i for i, word in enumerate(vocabulary)}), folder, 32)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """CoLA, whose sentences say their label; SST-2, whose labels were shuffled; RTE, where both must say the same; STS-B: how many words are good."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)

    def sentence(*told):
        words = [*told, *(draw.choice(WORDS[2:]) for _ in range(draw.randint(1, 9)))]
        draw.shuffle(words)
        return " ".join(words)

    def write(name, part, header, rows):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{part}.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in ([header] if header else []) + rows))
    for part, n in (("train", 600), ("dev", 300), ("test", 40)):
        labels = [i % 2 for i in range(n)]
        texts = [sentence(("bad", "good")[y]) for y in labels]
        write("CoLA", part, None if part != "test" else ["index", "sentence"],
              [["x", y, "", t] for y, t in zip(labels, texts)] if part != "test" else list(enumerate(texts)))
        write("SST-2", part, ["sentence", "label"] if part != "test" else ["index", "sentence"],
              [[t, draw.randint(0, 1)] for t in texts] if part != "test" else list(enumerate(texts)))
        goods = [draw.randint(0, 5) for _ in range(n)]
        write("STS-B", part, ["index", "sentence1", "sentence2"] + ["score"] * (part != "test"),
              [[i, sentence(*["good"] * g, *["bad"] * (5 - g)), sentence()] + [g] * (part != "test") for i, g in enumerate(goods)])
    return folder


def start(*arguments):
    return subprocess.Popen([sys.executable, "glue.py", *map(str, arguments)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def run(*arguments):
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def cells(folder):
    return {(cell["task"], cell["lr"], cell["seed"]): cell["scores"] for cell in json.loads((folder / "glue.json").read_text())["cells"]}


@pytest.fixture(scope="module")
def scored(model, data, tmp_path_factory):
    """(folder, what was printed) of an undisturbed run of `quick` over three tasks and two seeds."""
    out_folder = tmp_path_factory.mktemp("scored")
    status, out, err = run(model, "--data", data, "--tasks", "cola,sst2,stsb", "--seeds", 2, "--out", out_folder, "--predict")
    assert status == 0, err
    return out_folder, out


def test_a_label_that_the_text_says_is_learned_and_shuffled_labels_are_not(scored):
    results = cells(scored[0])
    assert all(scores["dev"]["matthews"] > 0.98 for (task, *_), scores in results.items() if task == "cola")
    assert all(abs(scores["dev"]["accuracy"] - 0.5) < 0.09 for (task, *_), scores in results.items() if task == "sst2")  # 3 sigma of 300 coins
    assert all(scores["dev"]["pearson"] > 0.9 for (task, *_), scores in results.items() if task == "stsb")


def test_the_table_says_score_spread_majority_and_what_was_averaged(scored):
    assert re.search(r"cola +dev +matthews +\d+\.\d \+- +\d+\.\d +0\.0", scored[1])
    assert "average over these 3 tasks, development sets" in scored[1]


def test_the_same_command_computes_nothing_anew(scored, model, data):
    before = (scored[0] / "glue.json").read_bytes()
    began = time.perf_counter()
    status, out, err = run(model, "--data", data, "--tasks", "cola,sst2,stsb", "--seeds", 2, "--out", scored[0])
    assert status == 0 and "step/s" not in err and (scored[0] / "glue.json").read_bytes() == before and time.perf_counter() - began < 20


def test_killed_and_continued_the_scores_are_the_same(scored, model, data, tmp_path):
    for signum in (signal.SIGKILL, signal.SIGINT):
        process = start(model, "--data", data, "--tasks", "cola,sst2,stsb", "--seeds", 2, "--out", tmp_path)
        wanted = 1 if signum == signal.SIGKILL else 2
        while process.poll() is None and not ((tmp_path / "glue.json").exists() and len(cells(tmp_path)) >= wanted):
            time.sleep(0.02)
        process.send_signal(signum)
        _, err = process.communicate()
        assert process.returncode in (-9, 130, 0) and "Traceback" not in err
    status, out, err = run(model, "--data", data, "--tasks", "cola,sst2,stsb", "--seeds", 2, "--out", tmp_path)
    assert status == 0 and cells(tmp_path) == cells(scored[0])


def test_the_submission_has_headers_names_and_the_sizes_of_the_test_files(scored):
    with zipfile.ZipFile(scored[0] / "glue-submission.zip") as archive:
        files = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    assert files.keys() == {"CoLA.tsv", "SST-2.tsv", "STS-B.tsv"}
    assert all(lines[0] == "index\tprediction" and len(lines) == 41 for lines in files.values())
    assert [line.split("\t")[1] for line in files["CoLA.tsv"][1:]] == [str(i % 2) for i in range(40)]  # the text says it
    assert all(0 <= float(line.split("\t")[1]) <= 5 for line in files["STS-B.tsv"][1:])
    assert "CoLA.tsv has 40 rows, and the leaderboard wants 1,063" in scored[1] and "the leaderboard also wants MRPC.tsv" in scored[1]


def test_the_pooled_classifier_is_transformers(model, tmp_path):
    # Our classifier's weights in transformers' BertForSequenceClassification: the same logits, padding and pairs included.
    ours = glue.classifier(model, 3, seed=0).eval()
    ours.bert.save_pretrained(tmp_path)
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path, num_labels=3).eval()
    with torch.no_grad():
        theirs.classifier.weight.copy_(ours.linear.weight)
        theirs.classifier.bias.copy_(ours.linear.bias)
    encoded = [([2, 7, 8, 3], [0] * 4), ([2, 9, 3, 10, 11, 3], [0, 0, 0, 1, 1, 1])]
    ids, mask, types = glue.collate(encoded, [0, 1], 0, "cpu")
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        torch.testing.assert_close(ours(ids, mask, types), expected, atol=1e-5, rtol=1e-4)
    assert ids.tolist()[0] == [2, 7, 8, 3, 0, 0] and mask.tolist()[0] == [1, 1, 1, 1, 0, 0] and types.tolist()[1] == [0, 0, 0, 1, 1, 1]


def test_the_mean_is_over_tokens_and_not_over_padding(model):
    ours = glue.classifier(model, 2, seed=0, pool="mean").eval()
    short, longer = ([2, 7, 8, 3], [0] * 4), ([2, 9, 10, 11, 12, 3], [0] * 6)
    with torch.no_grad():
        alone, padded = ours(*glue.collate([short], [0], 0, "cpu")), ours(*glue.collate([short, longer], [0, 1], 0, "cpu"))
        x = ours.bert(torch.tensor([short[0]])).last_hidden_state[0].mean(0)
        by_hand = ours.linear(torch.tanh(ours.bert.pooler(x)))
    torch.testing.assert_close(alone[0], padded[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alone[0], by_hand, atol=1e-5, rtol=1e-4)


def test_each_epoch_holds_every_example_once_in_batches_of_similar_length():
    lengths = np.random.default_rng(0).integers(5, 60, 1000)
    batches = glue.order(lengths, 16, np.random.default_rng(1))
    assert sorted(np.concatenate(batches)) == list(range(1000)) and len(batches) == 1000 // 16 + 1
    padding = sum(lengths[batch].max() * len(batch) - lengths[batch].sum() for batch in batches)
    shuffled = np.random.default_rng(1).permutation(1000)
    at_random = sum(lengths[batch].max() * len(batch) - lengths[batch].sum() for batch in np.array_split(shuffled, 63))
    assert padding < at_random / 5
    assert any(a[0] != b[0] for a, b in zip(batches, glue.order(lengths, 16, np.random.default_rng(2))))


def test_texts_longer_than_the_position_table_are_cut_and_said(model, tmp_path):
    line = "index\tsentence1\tsentence2\tlabel\n" + "".join(f"{i}\t{'w1 ' * (50 if i == 0 else 3)}\tw2\tentailment\n" for i in range(8))
    (tmp_path / "RTE").mkdir()
    for part in ("train", "dev"):
        (tmp_path / "RTE" / f"{part}.tsv").write_text(line)
    status, out, err = run(model, "--data", tmp_path, "--tasks", "rte", "--seeds", 1, "--out", tmp_path / "out")
    assert status == 0 and "rte: 1 of 8 texts of train are longer than 32 tokens, and are cut" in out


def test_the_best_setting_is_chosen_by_the_first_part_and_its_seeds_are_averaged():
    task = gluefiles.Task("t", {"train": [("a", None, 0)], "dev": [("a", None, 0)], "test": [("a", None, 0)]}, ("no", "yes"), (), ("dev", "test"))
    def cell(lr, seed, dev, test):
        return {"lr": lr, "batch_size": 16, "epochs": 2, "seed": seed, "scores": {"dev": {"accuracy": dev}, "test": {"accuracy": test}}, "seconds": 1.0}
    best = scores.summary(task, [cell(1, 0, 0.9, 0.1), cell(1, 1, 0.5, 0.2), cell(2, 0, 0.8, 0.6), cell(2, 1, 0.7, 0.4)])
    assert best["lr"] == 2 and best["settings_tried"] == 2  # (0.8 + 0.7) / 2 beats (0.9 + 0.5) / 2, whatever the test says
    assert best["score"]["test"] == [pytest.approx(0.5), pytest.approx(np.std([0.6, 0.4], ddof=1))]


def test_the_papers_average_is_over_its_seven_tasks_and_another_one_says_what_it_is():
    def result(value):
        return {"score": {"dev": [value, None]}}
    seven = {task: result(i / 10) for i, task in enumerate(gluefiles.PAPER_SEVEN)}
    assert scores.average({**seven, "wnli": result(0.0)}) == ("average of the paper's seven tasks, development sets", pytest.approx(0.3))
    assert scores.average({"cola": result(0.5), "rte": result(0.7)}) == ("average over these 2 tasks, development sets", pytest.approx(0.6))


def test_the_papers_grid_is_8_cells_of_5_epochs_whatever_the_width():
    args = options.glue(["m", "--grid", "paper", "--seeds", "2"])
    task = gluefiles.Task("t", {}, None, (), ())
    task = task._replace(parts={"train": []})
    def settings(h):
        return [cell for _, cell in glue.cells_of(args, [task], h, "0" * 64, "fp32", "cpu")]
    cells_ = settings(128)
    assert len(cells_) == 16 and {(cell["lr"], cell["batch_size"]) for cell in cells_} == {(lr, b) for lr in (1e-5, 3e-5, 5e-5, 8e-5) for b in (16, 32)}
    assert {cell["epochs"] for cell in cells_} == {5} and cells_ == settings(768)


@pytest.mark.parametrize("arguments, message", [
    ([], "say which model"), (["no/such/run/at-all"], "no/such/run/at-all"), (["tests"], "config.json"), (["MODEL", "MODEL"], "one model at a time"),
    (["MODEL", "--tasks", "rte"], "'rte' is no task of stories"), (["MODEL", "--grid", "huge"], "--grid"),
    (["MODEL", "--data", "DATA", "--tasks", "rte"], "train.tsv is missing"), (["MODEL", "--data", "no-such-folder/x", "--tasks", "rte"], "rte"),
    (["MODEL", "--seeds", "0"], "--seeds"), (["MODEL", "--gate", "--data", "DATA"], "--gate"), (["MODEL", "--predict"], "no leaderboard"), (["a", "b", "--gate"], "at least a weak student")])
def test_bad_input_ends_in_one_line(model, data, tmp_path, arguments, message):
    arguments = [{"MODEL": str(model), "DATA": str(data)}.get(word, word) for word in arguments]
    status, out, err = run(*arguments, "--out", tmp_path / "out")
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and message in last and "Traceback" not in err
    assert not (tmp_path / "out" / "glue.json").exists()


def test_a_model_and_a_tokenizer_that_do_not_belong_together_are_refused(model, data, tmp_path):
    vocabulary = [*SPECIAL, *(f"v{i}" for i in range(100))]
    Bert.from_pretrained(model).save_pretrained(tmp_path)
    save_tokenizer(wordpiece({word: i for i, word in enumerate(vocabulary)}), tmp_path, 32)
    status, out, err = run(tmp_path, "--data", data, "--tasks", "cola")
    assert status == 2 and "do not belong together" in err
