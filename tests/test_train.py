"""train.py: a run obeys its budget, opens in transformers, and cannot be lost."""
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from plumbing import disk, teacher

import numpy as np
import pytest
import torch

import budget
import data
import train
from model import Bert

ROOT = Path(train.__file__).parent
# Small enough for a few seconds, dropout included: a resumed run must repeat that, too.
TINY = ["--flops", "4e10", "--model", "2x64", "--vocab-size", "200", "--seq-len", "16", "--batch-size", "16", "--dropout", "0.1"]


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A text with some grammar: who, does what, to what."""
    rng = random.Random(0)
    lines = [" ".join(f"{rng.choice(['the cat', 'a dog', 'one boy'])} {rng.choice(['sees', 'likes', 'takes'])} "
                      f"{rng.choice(['the ball', 'a fish', 'red bread'])}." for _ in range(4)) for _ in range(3000)]
    path = tmp_path_factory.mktemp("text") / "book.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    os.environ["ISOFLOP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["ISOFLOP_CACHE"]


def start(*arguments, **options):
    # One thread: so small a model gains nothing from two, and threads that wait for each other crawl on a busy machine.
    return subprocess.Popen([sys.executable, "train.py", *map(str, arguments)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


def run(*arguments):
    """(exit status, stdout, stderr) of the program."""
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def finished(book, tmp_path_factory):
    """The folder of an undisturbed run, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    status, out, err = run(*TINY, "--data", book, "--out", folder)
    assert status == 0, err
    return folder, out


def losses(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(row["step"], row.get("loss"), row.get("val_loss")) for row in rows]


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_a_run_spends_whole_steps_and_never_more_than_its_budget(finished):
    record = json.loads((finished[0] / "run.json").read_text())
    V = json.loads((finished[0] / "config.json").read_text())["vocab_size"]
    step = budget.step_flops(budget.size("2x64"), V, 16, 16)  # tests/test_budget.py compares this with torch's own count
    assert record["steps"] * step == record["flops_spent"] <= record["settings"]["flops_budget"] == 4 * 10 ** 10
    assert record["flops_spent"] + step > 4 * 10 ** 10
    assert record["tokens"] == record["steps"] * 16 * 16


def test_a_run_learns_and_says_what_counting_words_would_have_achieved(finished):
    record = json.loads((finished[0] / "run.json").read_text())
    assert record["neighbour_loss"] < record["unigram_loss"]
    assert record["val_loss"] < record["unigram_loss"] - 0.3
    assert f"unigram {record['unigram_loss']:.3f}" in finished[1]


def test_what_a_run_leaves_opens_in_transformers(finished):
    transformers = pytest.importorskip("transformers")
    model, loading = transformers.AutoModelForMaskedLM.from_pretrained(finished[0], output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(finished[0])
    encoded = tokenizer("the cat sees [MASK] ball.", return_tensors="pt")
    ours = Bert.from_pretrained(finished[0])
    with torch.no_grad():
        assert torch.allclose(model(**encoded).logits, ours(**encoded).logits, atol=1e-5)
    assert tokenizer.mask_token_id in encoded["input_ids"]


def test_the_validation_loss_is_what_transformers_computes(finished, book):
    transformers = pytest.importorskip("transformers")
    corpus = data.open_corpus([str(book)], 16, 0, vocab_size=200)
    _, (inputs, positions, labels) = corpus.validation()
    model = transformers.AutoModelForMaskedLM.from_pretrained(finished[0]).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(inputs)).logits.flatten(0, 1)[positions]
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    record = json.loads((finished[0] / "run.json").read_text())
    assert abs(loss - record["val_loss"]) < (0.02 if record["settings"]["dtype"] == "bf16" else 1e-4)


def test_a_run_leaves_curve_card_log_and_no_checkpoints(finished):
    names = set(os.listdir(finished[0]))
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "run.json", "log.jsonl",
                     "curve.png", "README.md", "lock"}
    assert (finished[0] / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (finished[0] / "README.md").read_text().startswith("---\nlibrary_name: transformers\n")
    log = [json.loads(line) for line in (finished[0] / "log.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in log if "loss" in row]
    assert steps == sorted(set(steps)) and sum("val_loss" in row for row in log) == 11


def test_killed_at_any_moment_the_same_command_ends_with_the_same_weights(finished, book, tmp_path):
    rng, kills = random.Random(), 0
    while kills < 6:
        process = start(*TINY, "--data", book, "--out", tmp_path / "run")
        # Wait until it is in the loop, then a random while more: that reaches the loop, the saves and the end.
        for line in process.stderr:
            if "FLOP" in line:
                break
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        kills += 1
        process.communicate()
    status, out, err = run(*TINY, "--data", book, "--out", tmp_path / "run")
    assert status == 0, err
    assert weights(tmp_path / "run") == weights(finished[0])
    assert losses(tmp_path / "run") == losses(finished[0])  # the log lost no line, and has none twice


@pytest.mark.parametrize("signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_continue_and_loses_no_step(finished, book, tmp_path, signum, status):
    process = start(*TINY, "--data", book, "--out", tmp_path / "run")
    for line in process.stderr:
        if re.search(r"loss \d", line):
            break
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in err
    assert "the same command continues" in out
    stopped = int(re.search(r"stopped at step ([\d,]+)", out)[1].replace(",", ""))
    status, out, err = run(*TINY, "--data", book, "--out", tmp_path / "run")
    assert status == 0 and f"continuing at step {stopped:,} of" in out
    assert weights(tmp_path / "run") == weights(finished[0])


def test_the_same_command_on_a_finished_run_prints_its_result_and_changes_nothing(finished, book):
    before = {path.name: path.stat().st_mtime_ns for path in finished[0].iterdir() if path.name != "lock"}
    status, out, err = run(*TINY, "--data", book, "--out", finished[0])
    assert status == 0 and out.startswith("finished ")
    assert before == {path.name: path.stat().st_mtime_ns for path in finished[0].iterdir() if path.name != "lock"}


def test_a_finished_run_whose_model_is_damaged_says_so(finished, book, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    status, out, err = run(*TINY, "--data", book, "--out", tmp_path / "run")
    assert status == 2 and "model.safetensors is damaged, or was edited" in err


def test_other_settings_in_the_same_folder_are_an_error_that_names_them(finished, book):
    status, out, err = run(*TINY, "--data", book, "--out", finished[0], "--seed", 7, "--lr", 0.5)
    assert status == 2 and "seed was 0 and is now 7" in err and "lr was" in err and len(err.strip().splitlines()) == 1


def test_a_reader_that_goes_away_does_not_stop_a_run(finished, book, tmp_path):
    process = start(*TINY, "--data", book, "--out", tmp_path / "run")
    process.stdout.readline()  # the plan begins; then the reader leaves, as `| head -1` does
    while "steps" not in process.stdout.readline():
        pass
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=120)
    assert "Traceback" not in err and weights(tmp_path / "run") == weights(finished[0])


def test_seeds_and_steps_differ_in_their_dropout():
    masks = []
    for seed, step in ((0, 5), (1, 5), (0, 6)):
        torch.manual_seed(train.dropout_seed(seed, step, 0))
        masks.append(torch.nn.functional.dropout(torch.ones(1000), 0.5))
    # Half of the places agree by chance, give or take 0.016.
    assert all(0.4 < (masks[a] == masks[b]).float().mean() < 0.6 for a, b in ((0, 1), (0, 2), (1, 2)))


# Every strategy's step, and the change of phase in --mlm-finish, with a matrix between the widths where one is needed.
TAUGHT = {"kd": ["--model", "1x64", "--temperature", "2"], "tinybert": ["--model", "2x32h1"], "minilm": ["--model", "2x64", "--mlm-finish", "0.3"],
          "minilm-v1": ["--model", "1x64"], "kd-released": ["--model", "2x64", "--init", "teacher"]}


def taught(strategy, teacher, book):
    return ["--strategy", strategy, "--teacher", teacher, "--data", book, "--flops", "2e10", "--seq-len", "16", "--batch-size", "16",
            "--dropout", "0.1", *TAUGHT[strategy]]


@pytest.mark.parametrize("strategy", TAUGHT)
def test_a_distilled_student_obeys_its_budget_and_survives_kills_bit_for_bit(finished, book, tmp_path, strategy):
    line = taught(strategy, finished[0], book)
    status, out, err = run(*line, "--out", tmp_path / "undisturbed")
    assert status == 0, err
    record = json.loads((tmp_path / "undisturbed" / "run.json").read_text())
    assert sum(record["bill"].values()) == record["flops_spent"] <= 2 * 10 ** 10 and record["bill"]["teacher_forward"] > 0
    has_head = strategy in ("kd", "kd-released") or "--mlm-finish" in line
    assert (record["val_loss"] is not None) == has_head  # never a number from a head that nothing trains
    assert ("mlm_head.bias" in Bert.from_pretrained(tmp_path / "undisturbed", mlm_head=has_head).state_dict()) == has_head
    rng = random.Random()
    for _ in range(2):
        process = start(*line, "--out", tmp_path / "killed")
        for text in process.stderr:
            if "FLOP" in text:
                break
        time.sleep(rng.uniform(0, 1.0))
        process.kill()
        process.communicate()
    status, out, err = run(*line, "--out", tmp_path / "killed")
    assert status == 0, err
    assert weights(tmp_path / "killed") == weights(tmp_path / "undisturbed")
    assert (tmp_path / "killed" / "log.jsonl").read_text().count("val_terms") == (11 if "--mlm-finish" not in line else 12)


def test_all_strategies_see_the_same_batches_whatever_they_are(finished, book):
    # The blocks and masks of a step depend on (seed, step) and the text: a strategy has no say in them.
    corpora = [data.open_corpus([str(book)], 16, 0, tokenizer) for tokenizer in
               (str(finished[0]), teacher.tokenizer_of(teacher.load_teacher(finished[0], 16), None))]
    for step in (0, 7):
        first, second = (train.masked_batch(corpus, 0, step, 8, torch.device("cpu")) for corpus in corpora)
        assert all(torch.equal(a, b) for a, b in zip(first, second))


def test_another_teacher_in_the_same_folder_is_refused(finished, book, tmp_path):
    shutil.copytree(finished[0], tmp_path / "teacher")
    line = taught("kd", tmp_path / "teacher", book)
    status, out, err = run(*line, "--out", tmp_path / "student")
    assert status == 0, err
    model = Bert.from_pretrained(tmp_path / "teacher")
    torch.nn.init.zeros_(model.layers[0].qkv.bias)
    model.save_pretrained(tmp_path / "teacher")
    status, out, err = run(*line, "--out", tmp_path / "student")
    assert status == 2 and "is damaged, or was edited" in err  # its run.json says what it left
    (tmp_path / "teacher" / "run.json").unlink()
    status, out, err = run(*line, "--out", tmp_path / "student")
    assert status == 2 and "another teacher" in err and len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("arguments, message", [
    (["--strategy", "kd"], "--teacher"), (["--teacher", "TEACHER"], "--teacher is for a student that is taught"),
    (["--mlm-finish", "0.1"], "--mlm-finish is for"), (["--init", "teacher"], "--init teacher is for"),
    (["--strategy", "kd", "--teacher", "no/such/teacher"], "no/such/teacher does not exist"),
    (["--strategy", "kd", "--teacher", "tests"], "config.json"),
    (["--strategy", "kd", "--teacher", "TEACHER", "--vocab-size", "300"], "--vocab-size"),
    (["--strategy", "kd", "--teacher", "TEACHER", "--seq-len", "256"], "128 positions"),
    (["--strategy", "tinybert", "--teacher", "TEACHER", "--model", "3x64"], "1, 2 layers"),
    (["--strategy", "tinybert", "--teacher", "TEACHER", "--model", "2x64h2"], "--model 2x64h1"),
    (["--strategy", "minilm", "--teacher", "TEACHER", "--model", "2x64", "--teacher-layer", "9"], "2 layers"),
    (["--strategy", "kd", "--teacher", "TEACHER", "--out", "TEACHER"], "the teacher's own folder"),
    (["--strategy", "kd", "--teacher", "TEACHER", "--model", "2x128", "--init", "teacher"], "--model 2x64")])
def test_a_teacher_that_does_not_fit_ends_in_one_line(finished, book, tmp_path, arguments, message):
    arguments = [str(finished[0]) if word == "TEACHER" else word for word in arguments]
    before = weights(finished[0])
    out_flag = [] if "--out" in arguments else ["--out", str(tmp_path / "run")]
    status, out, err = run("--flops", "1e11", "--data", book, *arguments, *out_flag)
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and message in last and "Traceback" not in err
    assert not (tmp_path / "run").exists() and weights(finished[0]) == before


def test_nan_stops_with_the_step_and_keeps_the_last_good_checkpoint(finished, book, tmp_path):
    process = start(*TINY, "--data", book, "--out", tmp_path / "run")
    while process.poll() is None and not list((tmp_path / "run").glob("checkpoint-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate()
    path = max((tmp_path / "run").glob("checkpoint-*"))
    tensors, metadata = disk.load_tensors(path)
    good, told = {key: tensor.clone() for key, tensor in tensors.items()}, {key: value for key, value in metadata.items() if key not in ("format", "sha256")}
    tensors["model.layers.1.qkv.weight"][3, 5] = math.nan  # as a weight would be after a gradient overflowed
    disk.save_tensors(path, tensors, **told)
    status, out, err = run(*TINY, "--data", book, "--out", tmp_path / "run")
    assert status == 2 and f"the loss is nan at step {int(metadata['step']):,}" in err and "--lr" in err and "Traceback" not in err
    disk.save_tensors(path, good, **told)
    status, out, err = run(*TINY, "--data", book, "--out", tmp_path / "run")
    assert status == 0 and weights(tmp_path / "run") == weights(finished[0])


def test_a_full_disk_is_one_line_and_loses_nothing_earlier(finished, book, tmp_path):
    import resource
    limit = 400_000  # bytes in one file, below a checkpoint's: what a full disk does to a write, without filling a disk
    process = start(*TINY, "--data", book, "--out", tmp_path / "run",
                    preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2 and err.splitlines()[-1].startswith("error: File too large") and "Traceback" not in err
    assert not list((tmp_path / "run").glob(".*tmp"))
    status, out, err = run(*TINY, "--data", book, "--out", tmp_path / "run")
    assert status == 0 and weights(tmp_path / "run") == weights(finished[0])


def test_stories_need_no_files_and_no_network(tmp_path):
    status, out, err = run("--flops", "2e10", "--model", "2x64", "--batch-size", "8", "--out", tmp_path / "run")
    assert status == 0, err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["epochs"] == 0.0 and "without end" in out


def test_limited_data_is_repeated(tmp_path):
    status, out, err = run("--flops", "2e10", "--model", "2x64", "--batch-size", "8", "--unique-tokens", "3200", "--out", tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert status == 0 and record["epochs"] == record["tokens"] / 3200 > 2
    for flops, warned in (("2e10", False), ("1e12", True)):
        status, out, err = run("--flops", flops, "--model", "2x64", "--batch-size", "8", "--unique-tokens", "3200", "--dry-run")
        assert status == 0 and ("times: a student may learn so few words by heart" in out) == warned


def test_a_dry_run_prints_the_plan_and_writes_nothing(book, tmp_path):
    status, out, err = run("--flops", "1e17", "--data", book, "--vocab-size", "200", "--out", tmp_path / "run", "--dry-run")
    assert status == 0 and not (tmp_path / "run").exists()
    assert "<- this one" in out and "a step" in out and "budget" in out
    assert "continued by the same command" in out  # 1e17 FLOPs are days here


@pytest.mark.parametrize("arguments, message", [
    ([], "the following arguments are required: --flops"),
    (["--flops", "1"], "below one step"), (["--flops", "-1e13"], "--flops"), (["--flops", "nan"], "--flops"),
    (["--flops", "lots"], "--flops"), (["--flops", "inf"], "--flops"), (["--flops", "1e9", "--model", "6x70"], "not a multiple of 64"),
    (["--flops", "1e9", "--model", "0x64"], "at least 1"), (["--flops", "1e13", "--seq-len", "2"], "--seq-len"),
    (["--flops", "1e13", "--vocab-size", "4"], "--vocab-size"), (["--flops", "1e13", "--dtype", "fp8"], "--dtype"),
    (["--flops", "1e13", "--device", "cuda:7"], "--device"), (["--flops", "1e13", "--device", "abacus"], "--device"),
    (["--flops", "1e13", "--data", "nothing/here.txt"], "no such file"), (["--flops", "1e13", "--out", "LICENSE/x"], "--out"),
    (["--flops", "1e13", "--unique-tokens", "100"], "one batch"), (["--flops", "1e13", "--nonsense"], "there is no option --nonsense"),
    (["--flops", "1e13", "--strategy", "magic"], "--strategy"), (["--flops", "1e13", "--lr", "nan"], "--lr"),
])
def test_bad_input_ends_in_one_line_before_anything_is_written(tmp_path, arguments, message):
    out_flag = [] if "--out" in arguments else ["--out", str(tmp_path / "run")]
    status, out, err = run(*arguments, *out_flag)
    last = err.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: ") and message in last and "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_link_to_itself_in_the_place_of_a_run_is_said(finished, book, tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "run")
    status, out, err = run(*taught("kd", finished[0], book), "--out", tmp_path / "run")
    assert status == 2 and err.strip().splitlines()[-1].startswith("error: ") and "Traceback" not in err


def test_the_rate_rises_for_6_percent_then_falls_to_zero():
    rates = [train.learning_rate(step, 1000, 2.0, 0.06) for step in range(1000)]
    assert np.argmax(rates) == 60 and abs(max(rates) - 2.0) < 1e-9
    assert np.allclose(np.diff(rates[:60]), 2.0 / 61) and np.allclose(np.diff(rates[61:]), -2.0 / 940)
    assert 0 < rates[-1] < 2.0 / 900 and rates[0] == pytest.approx(2.0 / 61)


def test_help_comes_without_importing_torch():
    program = "import sys, train\ntry: options.train(['--help'])\nexcept SystemExit: print('torch' in sys.modules, 'datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout.endswith("False False\n")


@pytest.mark.parametrize("delay, least, most", [(0.0, 3, 21), (0.5, 1, 2)])
def test_a_slow_disk_gets_a_fiftieth_of_the_time(tmp_path, delay, least, most):
    # Of 20 saves that a run would like to make a slow disk sees one, the next would be due after 25 seconds; and the last, which must be.
    done = subprocess.run([sys.executable, "-c", f"""
import runs, sys, time, train
real, saves = runs.Run.save_checkpoint, []
def save(*arguments):
    saves.append(time.sleep({delay}))
    real(*arguments)
runs.Run.save_checkpoint = save
sys.argv = ["train.py", "--flops", "1e10", "--model", "1x64", "--seq-len", "16", "--batch-size", "8", "--out", {str(tmp_path / 'run')!r}]
train.main()
print("saves:", len(saves))
"""], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert least <= int(done.stdout.split("saves:")[1]) <= most
