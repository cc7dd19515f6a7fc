"""tools/gate.py: what a task must show before strategies are compared by it."""
import subprocess
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


def rows(*pairs):
    return dict(zip(("untrained", "weak", "better", "teacher"), pairs))


def failed(pairs):
    return [words for words, is_met in gate.passes(pairs).items() if not is_met]


def test_a_task_that_tells_models_apart_passes():
    assert failed(rows((1.0, 2.0), (10.0, 8.0), (30.0, 9.0), (45.0, 1.0))) == []


@pytest.mark.parametrize("pairs, condition", [
    (rows((9.0, 1.0), (20.0, 1.0), (30.0, 1.0), (45.0, 1.0)), "untrained at the majority"),
    (rows((0.0, 1.0), (5.0, 1.0), (10.0, 1.0), (15.0, 1.0)), "teacher at least 20"),
    (rows((0.0, 1.0), (30.0, 1.0), (20.0, 1.0), (45.0, 1.0)), "students in between"),
    (rows((0.0, 1.0), (10.0, 1.0), (20.0, 1.0), (45.0, 9.0)), "seeds agree")])
def test_each_condition_can_fail_alone(pairs, condition):
    assert len(failed(pairs)) == 1 and failed(pairs)[0].startswith(condition)


def result(score):
    """What glue.score returns for a task whose majority answer scores 0.5."""
    return {"entailment": {"metrics": {"test": {"accuracy": [score, 0.01]}},
                           "majority": {"test": {"accuracy": 0.5}}}}


def test_the_table_gives_points_above_the_majority_answer():
    text = gate.table({"runs/untrained": result(0.51), "runs/a": result(0.6),
                       "runs/b": result(0.7), "runs/teacher": result(0.9)})
    assert "1.0 +-  1.0" in text and "40.0 +-  1.0" in text
    assert "entailment                   passes" in text


@pytest.fixture
def model(tmp_path):
    """A tiny BERT's folder, with a tokenizer of the stories' words."""
    folder = tmp_path / "model"
    vocabulary = [*SPECIAL, *stories.WORDS]
    torch.manual_seed(0)
    config = BertConfig.of(budget.size("1x32h1"), vocab_size=len(vocabulary),
                           max_position_embeddings=64)
    Bert(config).save_pretrained(folder)
    save_tokenizer(wordpiece({word: i for i, word in enumerate(vocabulary)}), folder, 64)
    return folder


def test_the_gate_scores_an_untrained_model_of_the_same_size_first(model, tmp_path, monkeypatch,
                                                                   capsys):
    scores = iter([0.5, 0.6, 0.7, 0.9])
    scored = []

    def score(args, name, folder):
        scored.append((str(name), str(folder)))
        assert args.seeds == 4 and args.grid == "stories" and args.pool == "mean"
        return result(next(scores))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(glue, "score", score)
    monkeypatch.setattr(sys, "argv", ["gate.py", str(model), "a", "b", "--seeds", "4"])
    gate.main()
    assert scored == [("runs/gate-untrained", "runs/gate-untrained"), (str(model), str(model)),
                      ("a", "runs/glue-a"), ("b", "runs/glue-b")]
    first, own = (Bert.from_pretrained(path) for path in (tmp_path / "runs/gate-untrained", model))
    assert first.config == own.config
    assert (tmp_path / "runs/gate-untrained/tokenizer.json").exists()
    assert "entailment                   passes" in capsys.readouterr().out


def test_a_task_that_fails_is_the_exit_status(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(glue, "score", lambda *_: result(0.5))
    monkeypatch.setattr(sys, "argv", ["gate.py", str(model), "a", "b"])
    with pytest.raises(SystemExit) as end:
        gate.main()
    assert end.value.code == 1


def test_without_models_it_trains_its_own_weakest_first(monkeypatch):
    commands = []

    def run(command):
        commands.append(command[2:])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    assert gate.train_models() == list(gate.MODELS)
    assert [command[1] for command in commands] == ["3e12", "1e13", "1e14"]
    assert [command[-1] for command in commands] == list(gate.MODELS)


@pytest.mark.parametrize("words, message", [
    (["a", "b"], "at least a weak student"), (["--seeds", "1"], "compares seeds"),
    (["--grid", "huge"], "--grid"), (["--data", "glue_data"], "there is no option --data")])
def test_what_makes_no_gate_is_refused(words, message, capsys):
    with pytest.raises(UserError, match=message):
        gate.arguments(words)


@pytest.mark.slow
def test_it_is_a_program_that_runs_from_the_root(python):
    done = python("-m", "tools.gate", "a", "b")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: the gate wants at least a weak")
