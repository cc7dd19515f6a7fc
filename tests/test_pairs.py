"""running/pairs.py: which student fits a teacher, what MiniLM takes where nothing is given, and
which weights a student begins with."""
from program.cli import UserError
from running import pairs

import pytest
import torch

import distill
from budget import size
from model import Bert, BertConfig

BASE, LARGE = size("12x768"), size("24x1024")


def test_minilm_has_48_relation_heads_for_bert_base_and_64_for_large():
    # Wang et al. 2021, section 4.1
    assert pairs.relation_heads(size("6x384"), BASE, distill.Options()) == 48
    assert pairs.relation_heads(size("6x384"), LARGE, distill.Options()) == 64


def test_relation_heads_divide_both_widths_and_are_at_least_16_wide():
    for student, teacher in (("2x96h3", "4x128"), ("4x312h12f1200", "12x768"), ("2x100h5", "4x64")):
        h, h_T = size(student).h, size(teacher).h
        R = pairs.relation_heads(size(student), size(teacher), distill.Options())
        assert h % R == h_T % R == 0 and h_T // R >= 16
        larger = range(R + 1, h_T // 16 + 1)
        assert not any(h % heads == h_T % heads == 0 for heads in larger)


def test_the_student_that_a_message_names_fits():
    with pytest.raises(UserError, match="--model 2x96h4$"):
        pairs.same_heads("tinybert", size("2x96h3"), size("4x128h4"))
    pairs.same_heads("tinybert", size("2x96h4"), size("4x128h4"))


@pytest.mark.parametrize("teacher, layer", [("6x384", 6), ("12x768", 12), ("24x1024", 21)])
def test_the_last_layer_teaches_and_in_deep_teachers_an_upper_middle_one(teacher, layer):
    assert pairs.teacher_layer(size(teacher), distill.Options()) == layer
    assert pairs.teacher_layer(size(teacher), distill.Options(teacher_layer=3)) == 3


# --------------------------------------------------------------------------------------------------
# The weights that a student begins with


def bert(model, seed=0):
    torch.manual_seed(seed)
    return Bert(BertConfig.of(size(model), vocab_size=40, max_position_embeddings=16)).eval()


def test_twelve_layers_give_six_as_in_distilberts_script():
    # transformers' examples/research_projects/distillation/scripts/extract_distilbert.py copies
    # layers 0, 2, 4, 7, 9, 11, counted from 0.
    assert [m - 1 for m in pairs.copied_layers(6, 12)] == [0, 2, 4, 7, 9, 11]
    assert pairs.copied_layers(4, 4) == [1, 2, 3, 4] and pairs.copied_layers(1, 4) == [1]


def test_a_student_is_given_layers_embeddings_and_head_of_its_teacher():
    teacher, student, x = bert("4x64", 1), bert("2x64"), torch.randint(5, 40, (3, 12))
    pairs.copy_teacher(student, teacher)
    for own, copied in zip(student.layers, (teacher.layers[0], teacher.layers[3]), strict=True):
        assert torch.equal(own.qkv.weight, copied.qkv.weight)
        assert torch.equal(own.output_norm.bias, copied.output_norm.bias)
    assert torch.equal(student.mlm_head.transform.weight, teacher.mlm_head.transform.weight)
    equal = bert("4x64")  # with as many layers it is the teacher itself
    pairs.copy_teacher(equal, teacher)
    assert torch.equal(equal(x).logits, teacher(x).logits)
