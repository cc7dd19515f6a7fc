"""gate.py: what a task must show before strategies are compared by it."""
from plumbing import wordpiece
from plumbing.wordpiece import SPECIAL, save_tokenizer

import pytest
import torch

import budget
import glue
from model import Bert, BertConfig
from tools import gate
from world import stories, tasks


def rows(*pairs):
    return dict(zip(("untrained", "weak", "better", "teacher"), pairs))


def failed(pairs):
    return [words for words, holds in gate.passes(pairs).items() if not holds]


def test_a_task_that_tells_models_apart_passes():
    assert failed(rows((1.0, 2.0), (10.0, 8.0), (30.0, 9.0), (45.0, 1.0))) == []


def test_each_condition_can_fail_alone():
    assert failed(rows((9.0, 1.0), (20.0, 1.0), (30.0, 1.0), (45.0, 1.0)))[0].startswith("untrained at the majority")
    assert failed(rows((0.0, 1.0), (5.0, 1.0), (10.0, 1.0), (15.0, 1.0)))[0].startswith("teacher at least 20")
    assert failed(rows((0.0, 1.0), (30.0, 1.0), (20.0, 1.0), (45.0, 1.0)))[0].startswith("students in between")
    assert failed(rows((0.0, 1.0), (10.0, 1.0), (20.0, 1.0), (45.0, 9.0)))[0].startswith("seeds agree")


def test_the_table_gives_points_above_the_majority_answer():
    def result(score):
        return {"entailment": {"metrics": {"test": {"accuracy": [score, 0.01]}}, "majority": {"test": {"accuracy": 0.5}}}}
    text = gate.table({"runs/untrained": result(0.51), "runs/a": result(0.6), "runs/b": result(0.7), "runs/teacher": result(0.9)})
    assert "1.0 +-  1.0" in text and "40.0 +-  1.0" in text and "entailment                   passes" in text


def test_minimal_pairs_are_scored_by_the_head_and_left_out_without_one(tmp_path):
    vocabulary = [*SPECIAL, *stories.WORDS]
    torch.manual_seed(0)
    bert = Bert(BertConfig.of(budget.size("1x32h1"), vocab_size=len(vocabulary), max_position_embeddings=64))
    save_tokenizer(wordpiece({word: i for i, word in enumerate(vocabulary)}), tmp_path, 64)
    with torch.no_grad():  # a head that always prefers were to was, and she to he
        for word, value in (("were", 50.0), ("was", -50.0)):
            bert.mlm_head.bias[vocabulary.index(word)] = value
    bert.save_pretrained(tmp_path)
    found = glue.zero_shot(tmp_path)
    assert found["agreement"] == pytest.approx(sum(right == "were" for _, right, _ in tasks.minimal_pairs()["agreement"]) / 200)
    Bert(bert.config, mlm_head=False).save_pretrained(tmp_path)
    assert glue.zero_shot(tmp_path) == {}
