"""plumbing/pairs.py: which student fits a teacher, and what MiniLM takes where nothing is given."""
from program.cli import UserError
from running import pairs

import pytest

import distill
from budget import size

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
