"""reporting/card.py: what a run says of itself is true."""
import math
from types import SimpleNamespace

import pytest

import budget
import distill
import train
from budget import size
from reporting import card


def record(val_loss, unigram=6.33, neighbours=3.37, **more):
    return {"val_loss": val_loss, "unigram_loss": unigram, "neighbour_loss": neighbours,
            "val_terms_before": {"minilm": 2.0}, "val_terms": {"minilm": 0.25}, **more}


@pytest.mark.parametrize("val_loss, unigram, neighbours, words", [
    (5.80, 6.333, 3.375, "ended on the plateau"), (5.40, 6.333, 3.375, "has left the plateau"),
    (4.85, 5.0, 4.8, "has left the plateau"), (4.95, 5.0, 4.8, "ended on the plateau"),
    (5.0, 6.0, 4.0, "50% of the way"), (3.0, 4.0, 4.0, "below that of knowing both"),
    (6.5, 6.0, 4.0, "not even learned how frequent words are"),
    (math.inf, 6.0, 4.0, "Nothing can be said"), (3.0, 6.0, math.nan, "Nothing can be said"),
    (None, 6.0, 4.0, "minilm from 2 to 0.25")])
def test_a_loss_is_judged_by_those_of_counting_words(val_loss, unigram, neighbours, words):
    verdict = card.verdict(record(val_loss, unigram, neighbours))
    assert words in verdict and (val_loss is not None or "plateau" not in verdict)
    assert ("--seq-len" in verdict) == ("ended on" in verdict)  # what to do


@pytest.mark.parametrize("validation, unknown, name, words, absent", [
    (100, 0, "books", "990 to train on, 10 held out for validation: 1.0% of the tokens", "much"),
    (3300, 50, "books", "25.0% of the tokens\n            That is much: empty", "[UNK]"),
    (100, 2000, "books", "40.0% of its words are [UNK]", "much"),
    (8500, 0, "stories", "7 tokens; 201 words", "documents")])
def test_the_plan_says_how_much_text_there_is(validation, unknown, name, words, absent):
    tokens = {"train": 9900, "validation": validation}
    info = {"tokens": tokens, "documents": {part: tokens[part] // 10 for part in tokens},
            "words": 5000, "unknown": unknown}
    corpus = SimpleNamespace(name=name, unique=7, vocabulary=SimpleNamespace(size=201), info=info)
    text = "\n".join(card.text_lines(corpus))
    assert words in text and absent not in text


def default_name(*words, start=None):
    """The name of the default folder of a run with these options, from scratch."""
    words = ["--flops", "1e13", *words]
    setup = train.Setup(train.read_settings(words), None, None, None, start,
                        SimpleNamespace(size=size("2x128")), None)
    return card.default_folder(setup).name


def test_runs_that_differ_in_a_common_setting_get_folders_of_their_own():
    lines = [[], ["--seed", "1"], ["--flops", "2e13"], ["--data", "a/book.txt"],
             ["--unique-tokens", "1e5"], ["--lr", "0.01"]]
    names = {default_name(*line) for line in lines}
    assert len(names) == len(lines) and "scratch-2x128-1.00e13-stories-32x32-seed0" in names
    name = default_name("--start-from", "S", start=SimpleNamespace(sha256="a" * 64))
    assert name == "scratch-2x128-1.00e13-stories-from-aaaaaa-32x32-seed0"


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u4e2d", "\U0001d7d8"])  # of 1 to 4 bytes
def test_the_name_of_a_folder_has_as_many_bytes_as_a_name_may_have(letter):
    name = default_name("--seed", str(2 ** 31 - 1), "--data", "x" + 100 * letter)
    assert len(name.encode()) <= 255 and name.endswith("-seed2147483647")
    assert name.startswith("scratch-2x128-1.00e13-x" + 50 * letter)


SETTINGS = {"strategy": "minilm", "model": "2x64", "flops_budget": 10 ** 10, "batch_size": 8,
            "seq_len": 16, "seed": 3, "start_sha256": "cd" * 32}


@pytest.mark.parametrize("val_loss, more, words, absent", [
    (5.0, {}, ["pipeline_tag: fill-mask", "AutoModelForMaskedLM.from_pretrained", "| 6.3300 |",
               "9,999,999,999 of a budget of 10,000,000,000"], ["begins with"]),
    (None, {}, ["feature-extraction", "AutoModel.from_pretrained", "0.2500"], ["fill-mask"]),
    (5.0, {"flops_before": 7 * 10 ** 9}, [
        f"| begins with | the weights of sha256 {'cd' * 8}, which cost 7,000,000,000 FLOPs"], [])])
def test_the_model_card_says_what_the_run_was_and_how_to_open_it(val_loss, more, words, absent):
    text = card.model_card(record(val_loss, settings=SETTINGS, parameters=12345, steps=7,
                                  flops_spent=9_999_999_999, tokens=896, **more), "stories")
    _, header, body = text.split("---\n", 2)  # the hub reads the header
    fields = dict(line.split(": ") for line in header.splitlines() if ": " in line)
    assert fields["library_name"] == "transformers" and body.count("```") == 2
    assert [part for part in words if part not in text] == []
    assert [part for part in absent if part in text] == []


@pytest.mark.parametrize("steps, validations", [(100, 11), (4, 5)])
def test_the_time_of_a_run_includes_its_validations(steps, validations):
    S, V, T, B = size("2x64"), 50, 16, 8
    step = budget.step_flops(S, V, T, B)
    setup = SimpleNamespace(
        student=SimpleNamespace(size=S, V=V, lesson=distill.lesson("scratch", S),
                                plan=budget.plan(steps * step, step, B, T)),
        settings=SimpleNamespace(seq_len=T), teacher_size=None,
        session=SimpleNamespace(flops_per_second=step))  # a step takes a second
    # A validation reads 40 blocks forward, which is a third of what a step does for each of 8.
    seconds = card.seconds_of(setup, SimpleNamespace(batch=[[None] * 40]))
    assert seconds == pytest.approx(steps + validations * (40 / 8) / 3)
