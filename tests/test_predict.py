"""tools/predict.py: it prints the probabilities that transformers computes."""
import shutil

from files.wordpiece import SPECIAL, save_tokenizer, wordpiece

import pytest
import torch
from conftest import run_main

import budget
from model import Bert, BertConfig
from tools import predict
from world import stories

SENTENCE = "nora was pushed by leo. [MASK] was mean."


def save(folder, words, mlm_head=True, positions=64, seed=0, padding=0):
    """Saves an untrained BERT 1x32 with a tokenizer of `words`. Its weights are large, so that its
    guesses differ clearly."""
    vocabulary = [*SPECIAL, *words]
    torch.manual_seed(seed)
    config = BertConfig.of(budget.size("1x32h1"), vocab_size=len(vocabulary) + padding,
                           max_position_embeddings=positions, initializer_range=0.5)
    Bert(config, mlm_head=mlm_head).save_pretrained(folder)
    save_tokenizer(wordpiece({word: i for i, word in enumerate(vocabulary)}), folder, positions)
    return folder


def run(*words):
    """(exit status, the lines on stdout, the lines on stderr) of the program."""
    status, out, err = run_main(predict.main, "predict.py", words)
    return status, out.splitlines(), err.splitlines()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a BERT that knows the words of the stories, which no test may change."""
    return save(tmp_path_factory.mktemp("model"), stories.WORDS)


# --------------------------------------------------------------------------------------------------
# The numbers


def expected(folder, sentence, top):
    """For each [MASK] the likeliest (word, probability) pairs as transformers computes them."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(sentence, return_tensors="pt")
    with torch.no_grad():
        logits = transformers.AutoModelForMaskedLM.from_pretrained(folder)(**inputs).logits[0]
    rows = logits[inputs["input_ids"][0] == tokenizer.mask_token_id].softmax(-1)  # (k, V)
    return [[(tokenizer.convert_ids_to_tokens(i.item()), p.item()) for p, i in zip(*row.topk(top))]
            for row in rows]


@pytest.mark.parametrize("sentence", [
    SENTENCE, "[MASK] was at the [MASK]. leo had a blue [MASK].", "Nora had a zork. [MASK] [MASK]"])
def test_the_probabilities_are_those_of_transformers(saved, sentence):
    predictor = predict.open_predictor(saved)
    rows = predict.probabilities(predictor, predict.encode(predictor, sentence))
    assert rows.shape == (sentence.count("[MASK]"), len(SPECIAL) + len(stories.WORDS))
    assert torch.allclose(rows.sum(1), torch.ones(len(rows)), atol=1e-5)
    for row, pairs in zip(rows, expected(saved, sentence, 7)):
        guesses = predict.best(predictor, row, 7)
        assert [word for word, _ in guesses] == [word for word, _ in pairs]
        assert [p for _, p in guesses] == pytest.approx([p for _, p in pairs], abs=1e-4)


def test_it_prints_the_five_likeliest_words_or_as_many_as_are_asked_for(saved):
    status, out, _ = run(saved, SENTENCE)
    pairs, = expected(saved, SENTENCE, 5)
    assert status == 0 and out[:3] == [SENTENCE, "", "[MASK]"]
    assert [line.split()[:2] for line in out[3:]] == [[word, f"{p:.1%}"] for word, p in pairs]
    assert [line.count("#") for line in out[3:]] == [round(30 * p) for _, p in pairs]
    assert run(saved, SENTENCE.replace("MASK", "mask").replace("nora", "NORA"))[1][1:] == out[1:]
    for top, n in ((2, 2), (1000, len(SPECIAL) + len(stories.WORDS))):
        assert len(run(saved, SENTENCE, "--top", top)[1]) == 3 + n


def test_embeddings_beyond_the_words_are_no_words_and_count(tmp_path):
    folder = save(tmp_path, ["leo"], padding=3)
    _, out, _ = run(folder, "leo [MASK]", "--top", 20)
    assert sum("(no word: " in line for line in out) == 3
    total = sum(float(line.split("%")[0].split()[-1]) for line in out[3:])
    assert len(out) == 3 + 9 and abs(total - 100) < 0.5


# --------------------------------------------------------------------------------------------------
# The table


def test_two_models_stand_side_by_side_and_each_cuts_the_text_itself(saved, tmp_path):
    other = save(tmp_path, ["no", "##ra", "was", "[", "]", "mean"], seed=1)
    status, out, _ = run(saved, "nora was [MASK].", "--compare", other)
    assert status == 0
    assert out[1] == f"{other} does not know ., and reads [UNK] instead"
    assert out[3:5] == ["[MASK]", f"  {saved}    {other}"]
    first, second = (run(folder, "nora was [MASK].")[1][-5:] for folder in (saved, other))
    assert [line.split() for line in out[5:]] == [
        left.split() + right.split() for left, right in zip(first, second)]
    assert run(saved, SENTENCE, "--compare", saved) == run(saved, SENTENCE)


# --------------------------------------------------------------------------------------------------
# What it cannot do


def test_what_a_model_cannot_read_well_is_a_remark(saved, tmp_path):
    model = shutil.copytree(saved, tmp_path / "model")
    (model / "run.json").write_text('{"finished": true, "settings": {"seq_len": 8}}')
    _, out, _ = run(model, "zork was by the Snow. [MASK] saw zork.")
    assert out[1] == f"{model} does not know zork, Snow, and reads [UNK] instead"
    assert "trained on blocks of 8 tokens, and the text has 12" in out[2]
    assert run(model, "nora was [MASK].")[1][1] == ""


def test_a_model_that_predicts_no_words_is_refused(saved, tmp_path):
    save(tmp_path / "encoder", stories.WORDS, mlm_head=False)
    save(tmp_path / "larger", [*stories.WORDS, "zork"])
    shutil.copy(saved / "model.safetensors", tmp_path / "larger")
    shutil.copy(saved / "config.json", tmp_path / "larger")
    for name, message in (("encoder", "--mlm-finish"), ("larger", "do not belong together")):
        status, out, err = run(tmp_path / name, SENTENCE)
        assert (status, out) == (2, []) and len(err) == 1
        assert err[0].startswith(f"error: {tmp_path / name} has ") and message in err[0]


@pytest.mark.parametrize("words, message", [
    (["nora was kind."], "the text has no [MASK]"), ([], "required: text"),
    (["[MASK] " + "leo " * 62], "the text has 65 tokens, and"),
    ([SENTENCE, "--compare", "no/such"], "there is no folder no/such"),
    ([SENTENCE, "--compare", ""], "an empty name"), ([SENTENCE, "--top", "0"], "--top")])
def test_what_makes_no_prediction_is_refused_in_one_line(saved, words, message):
    status, out, err = run(saved, *words)
    assert (status, out) == (2, []) and len(err) == 1
    assert err[0].startswith("error: ") and message in err[0]
