"""card.py: what a run says of itself is true."""
import math
import re
import shlex
from types import SimpleNamespace

import pytest

import budget
import distill
import train
from budget import size
from reporting import card


def record(val_loss, unigram_loss=6.33, neighbour_loss=3.37):
    return {"val_loss": val_loss, "unigram_loss": unigram_loss, "neighbour_loss": neighbour_loss}


@pytest.mark.parametrize("unigram, neighbours, val_loss, plateau", [
    # books, 2,048 pieces: before and after attention found the neighbours
    (6.333, 3.375, 5.80, True), (6.333, 3.375, 5.40, False),
    # books, BERT's 30,522 pieces
    (6.655, 5.291, 6.17, True),
    # stories
    (3.978, 1.302, 3.70, True), (3.978, 1.302, 1.36, False),
    # a text whose neighbours say little: half of that is learned, or not
    (5.0, 4.8, 4.85, False), (5.0, 4.8, 4.95, True)])
def test_a_run_that_knows_little_but_word_frequencies_is_told_so(unigram, neighbours, val_loss,
                                                                 plateau):
    words = card.verdict(record(val_loss, unigram, neighbours))
    assert ("ended on the plateau" in words) == plateau
    assert not plateau or "--seq-len" in words  # and what to do


def corpus_of(train, validation, n=100, available=100, name="books"):
    """A Corpus with so many tokens, all documents of ten."""
    tokens = {"train": train, "validation": validation}
    documents = {part: tokens[part] // 10 for part in tokens}
    return SimpleNamespace(name=name, n=n, available=available,
                           info={"tokens": tokens, "documents": documents})


def test_the_plan_says_how_many_documents_there_are_and_how_much_is_held_out():
    assert card.documents_lines(corpus_of(9900, 100)) == [
        "documents   990 to train on, 10 held out for validation: 1.0% of the tokens"]
    much = "\n".join(card.documents_lines(corpus_of(3000, 1000)))
    assert "25.0% of the tokens" in much and "That is much." in much
    assert "of the whole text" in card.documents_lines(corpus_of(9900, 100, n=10))[1]
    assert card.documents_lines(corpus_of(1340, 8500, name="stories")) == []


def test_the_plan_says_how_many_words_the_tokenizer_does_not_know():
    corpus = corpus_of(9900, 100)
    for unknown, said in ((0, None), (50, None), (51, "1.0%"), (2000, "40.0%")):
        corpus.info.update(words=5000, unknown=unknown)
        lines = "\n".join(card.unknown_lines(corpus))
        assert f"{said} of its words are [UNK]" in lines if said else lines == ""


def test_the_way_to_both_neighbours_is_given_in_percent():
    assert "50% of the way" in card.verdict(record(5.0, 6.0, 4.0))
    assert "below that of knowing both" in card.verdict(record(3.9, 6.0, 4.0))
    # The difference of the two counting losses may be 0: nothing is divided by it.
    assert "below that of knowing both" in card.verdict(record(3.0, 4.0, 4.0))


def test_a_run_that_is_above_the_unigram_loss_is_told_so():
    assert "not even learned how frequent words are" in card.verdict(record(6.5, 6.0, 4.0))


def default_name(words, start=None):
    """The name of the default folder of a run with this command line, from scratch."""
    setup = train.Setup(train.read_settings(words), None, None, None, start,
                        SimpleNamespace(size=size("2x128")), None)
    return card.default_folder(setup).name


@pytest.mark.parametrize("losses", [(math.nan, 6.0, 4.0), (5.0, math.nan, math.nan),
                                    (math.inf, 6.0, 4.0), (3.0, 6.0, math.nan)])
def test_a_loss_that_is_no_number_gets_no_verdict(losses):
    assert card.verdict(record(*losses)).startswith("Nothing can be said")


def test_runs_that_differ_in_a_common_setting_get_folders_of_their_own():
    lines = [[], ["--seed", "1"], ["--flops", "2e13"], ["--data", "a/book.txt"],
             ["--unique-tokens", "1e5"], ["--lr", "0.01"]]
    names = {default_name(["--flops", "1e13", *line]) for line in lines}
    assert len(names) == len(lines) and "scratch-2x128-1.00e13-stories-32x32-seed0" in names
    assert all(name.replace("-", "").replace(".", "").isalnum() for name in names)


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u4e2d", "\U0001d7d8"])  # of 1 to 4 bytes
def test_the_name_of_a_folder_has_as_many_bytes_as_a_name_may_have(letter):
    lines = ["--flops", "1e13", "--seed", str(2 ** 31 - 1), "--data", "x" + 100 * letter]
    name = default_name(lines)
    assert len(name.encode()) <= 255 and name.endswith("-seed2147483647")
    assert name.startswith("scratch-2x128-1.00e13-x" + 50 * letter)


def test_a_run_that_begins_with_other_weights_gets_a_folder_of_its_own():
    names = {default_name(["--flops", "1e13", "--start-from", "S"],
                          SimpleNamespace(sha256=letter * 64)) for letter in "ab"}
    assert names == {f"scratch-2x128-1.00e13-stories-from-{letter * 6}-32x32-seed0"
                     for letter in "ab"}


def test_a_student_without_an_mlm_head_gets_no_masked_word_loss():
    words = card.verdict({**record(None), "val_terms_before": {"minilm": 2.0},
                          "val_terms": {"minilm": 0.25}})
    assert "minilm from 2 to 0.25" in words
    assert "plateau" not in words and "--mlm-finish" in words


def test_the_model_card_begins_with_a_header_that_the_hub_reads():
    settings = {"strategy": "scratch", "model": "2x64", "flops_budget": 10 ** 10, "batch_size": 8,
                "seq_len": 16, "seed": 3}
    text = card.model_card({
        **record(5.0), "settings": settings, "parameters": 12345, "flops_spent": 9_999_999_999,
        "steps": 7, "tokens": 896, "val_terms": {"mlm": 5.0}}, "stories")
    _, header, body = text.split("---\n", 2)
    fields = dict(line.split(": ") for line in header.splitlines() if ": " in line)
    assert fields["library_name"] == "transformers"
    assert "9,999,999,999 of a budget of 10,000,000,000" in body and "5.0000" in body


SETTINGS = {"strategy": "minilm", "model": "2x64", "flops_budget": 10 ** 10, "batch_size": 8,
            "seq_len": 16, "seed": 3, "teacher_model": "4x128", "teacher_sha256": "ab" * 32}


@pytest.mark.parametrize("val_loss, calls, calls_not", [
    (5.0, ["fill-mask", "tools.predict"], ["AutoModel"]),
    (None, ["AutoModel"], ["fill-mask", "tools.predict"])])
def test_the_model_card_shows_how_to_predict_only_where_there_is_a_head(val_loss, calls, calls_not):
    text = card.model_card({
        **record(val_loss), "settings": SETTINGS, "parameters": 1, "flops_spent": 1, "steps": 1,
        "tokens": 1, "val_terms": {"minilm": 0.5}, "val_terms_before": {"minilm": 2.0}}, "stories")
    blocks = text.split("```")[1::2]
    assert text.count("```") == 2 * len(blocks) and all("\n" in block for block in blocks)
    assert all(any(call in block for block in blocks) for call in calls)
    assert not any(call in block for block in blocks for call in calls_not)


def test_a_card_without_a_head_gives_the_command_that_would_have_trained_one():
    text = card.model_card({
        **record(None), "settings": SETTINGS, "parameters": 1, "flops_spent": 1, "steps": 1,
        "tokens": 1, "val_terms": {"minilm": 0.5}, "val_terms_before": {"minilm": 2.0}}, "stories")
    assert "It has no head that predicts words" in text
    line, = re.findall("^python train.py (.*)$", text, re.MULTILINE)
    args = train.read_settings(shlex.split(line))
    assert (args.strategy, str(args.model), args.flops) == ("minilm", "2x64", 10 ** 10)
    # Only with this share does train.py give a head to a student whose loss reads no logits.
    assert args.mlm_finish == 0.1


@pytest.mark.parametrize("before, words", [(7 * 10 ** 9, "7,000,000,000"),
                                           (None, "FLOPs that no run.json tells")])
def test_the_model_card_says_which_weights_it_began_with_and_what_they_had_cost(before, words):
    known = {**record(5.0), "parameters": 1, "flops_spent": 1, "steps": 1, "tokens": 1,
             "val_terms": {"mlm": 5.0}}
    settings = {**SETTINGS, "start_sha256": "cd" * 32}
    text = card.model_card({**known, "settings": settings, "flops_before": before}, "stories")
    assert f"| begins with | the weights of sha256 {'cd' * 8} |\n| FLOPs before | {words} |" in text
    assert "before" not in card.model_card({**known, "settings": SETTINGS}, "stories")


# --------------------------------------------------------------------------------------------------
# The plateau

def test_a_run_leaves_the_plateau_where_its_training_loss_stays_below_nine_tenths_of_unigram():
    losses = [4.0] * 20 + [3.0] + [4.0] * 20 + [3.0] * 20  # one low row is noise
    log = [{"flops": 100 * i, "terms": {"mlm": loss}} for i, loss in enumerate(losses)]
    # Ten rows with the mean 3.6 are six of 4.0 and four of 3.0: the mean of rows 35 to 44 is 3.6,
    # and that of rows 36 to 45 is below it.
    assert card.left_plateau_at(log, 4.0) == 4500
    assert card.left_plateau_at(log[:40], 4.0) is None
    assert card.left_plateau_at([{"flops": 1, "terms": {"hidden": 0.1}}] * 30, 4.0) is None


# --------------------------------------------------------------------------------------------------
# How long it takes

@pytest.mark.parametrize("steps, validations", [(100, 11), (4, 5)])
def test_the_time_of_a_run_includes_its_validations(steps, validations):
    S, V, T, B, sequences = size("2x64"), 50, 16, 8, 40
    step = budget.step_flops(S, V, T, B)
    plan = budget.plan(steps * step, step, B, T)
    student = SimpleNamespace(size=S, V=V, lesson=distill.lesson("scratch", S), plan=plan)
    validation = SimpleNamespace(batch=[[None] * sequences])
    setup = SimpleNamespace(
        student=student, settings=SimpleNamespace(seq_len=T), teacher_size=None,
        session=SimpleNamespace(flops_per_second=step))  # a step takes a second
    # A validation reads 40 blocks forward, which is a third of what a step does for each of 8.
    expected = steps + validations * (40 / 8) / 3
    assert card.seconds_of(setup, validation) == pytest.approx(expected)
