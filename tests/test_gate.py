"""tools/gate.py: what a task must show before strategies are compared by it."""
import sys

from files.wordpiece import SPECIAL, save_tokenizer, wordpiece
from program.cli import UserError

import pytest
import torch

import budget
import glue
from model import Bert, BertConfig
from tools import gate
from world import stories


@pytest.mark.parametrize("rows, condition", [
    # (mean, standard deviation) of an untrained network, two students and their teacher
    ([(1.0, 2.0), (10.0, 8.0), (30.0, 9.0), (45.0, 1.0)], None),
    ([(9.0, 1.0), (20.0, 1.0), (30.0, 1.0), (45.0, 1.0)], "untrained at the majority"),
    ([(0.0, 1.0), (5.0, 1.0), (10.0, 1.0), (15.0, 1.0)], "teacher at least 20"),
    ([(0.0, 1.0), (30.0, 1.0), (20.0, 1.0), (45.0, 1.0)], "students in between"),
    ([(0.0, 1.0), (10.0, 1.0), (20.0, 1.0), (45.0, 9.0)], "seeds agree")])
def test_each_condition_can_fail_alone(rows, condition):
    failed = [words for words, is_met in gate.passes(rows).items() if not is_met]
    assert len(failed) == bool(condition) and all(words.startswith(condition) for words in failed)


def result(score):
    """What glue.score returns for a task whose majority answer scores 0.5."""
    return {"entailment": {"metrics": {"test": {"accuracy": [score, 0.01]}},
                           "majority": {"test": {"accuracy": 0.5}}}}


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A tiny BERT's folder, with a tokenizer of the stories' words, in the current folder."""
    vocabulary = [*SPECIAL, *stories.WORDS]
    config = BertConfig.of(budget.size("1x32h1"), vocab_size=len(vocabulary),
                           max_position_embeddings=64)
    torch.manual_seed(0)
    Bert(config).save_pretrained(tmp_path / "model")
    save_tokenizer(wordpiece({word: i for i, word in enumerate(vocabulary)}), tmp_path / "model",
                   64)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gate.py", "model", "a", "b", "--seeds", "4"])
    return tmp_path / "model"


def test_the_gate_scores_an_untrained_model_of_the_same_size_first(model, monkeypatch, capsys):
    values, scored = iter([0.51, 0.6, 0.7, 0.9]), []

    def score(settings, name, folder):
        scored.append((str(name), str(folder)))
        assert (settings.seeds, settings.grid, settings.pool) == (4, "stories", "mean")
        return result(next(values))

    monkeypatch.setattr(glue, "score", score)
    gate.main()
    assert scored == [("runs/gate-untrained", "runs/gate-untrained"), ("model", "model"),
                      ("a", "runs/glue-a"), ("b", "runs/glue-b")]
    first, own = (Bert.from_pretrained(path) for path in ("runs/gate-untrained", model))
    assert first.config == own.config
    out = capsys.readouterr().out
    assert "40.0 +- 1.0" in out  # points above the majority answer
    assert "entailment passes" in out


def test_a_task_that_fails_is_the_exit_status(model, monkeypatch):
    monkeypatch.setattr(glue, "score", lambda *_: result(0.5))
    with pytest.raises(SystemExit, match="1"):
        gate.main()


@pytest.mark.parametrize("words, message", [
    (["a", "b"], "wants a weak student"), (["--seeds", "1"], "a whole number from 2")])
def test_what_makes_no_gate_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        gate.arguments(words)
