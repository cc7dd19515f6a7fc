"""The losses, against float64 numpy, torch's own, and numbers computed by hand; the strategies and
what they read."""
import math

from program.cli import UserError

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import distill
from budget import size
from distill import (
    Reads,
    kd_loss,
    kd_released_loss,
    minilm_loss,
    minilm_released_loss,
    minilm_v1_loss,
    mlm_loss,
    tinybert_loss,
)


def softmax(z):
    """Over the last axis, in float64."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def random_case(seed):
    """logits (N, V) and labels (N,), about a third of them -100 and at least one not."""
    rng = np.random.default_rng(seed)
    N, V = rng.integers(1, 40), rng.integers(2, 300)
    labels = np.where(rng.random(N) < 0.3, -100, rng.integers(0, V, N))
    labels[rng.integers(N)] = rng.integers(V)
    return (rng.normal(size=(N, V)) * 3).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(10))
def test_mlm_loss_is_the_mean_surprise_at_the_labelled_positions(seed):
    logits, labels = random_case(seed)
    rows = np.flatnonzero(labels >= 0)
    expected = -np.log(softmax(logits.astype(np.float64))[rows, labels[rows]]).mean()
    loss = mlm_loss(torch.tensor(logits), torch.tensor(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(10, 20))
def test_mlm_loss_is_torchs_cross_entropy(seed):
    logits, labels = map(torch.tensor, random_case(seed))
    torch.testing.assert_close(mlm_loss(logits, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("seed", range(20, 30))
def test_the_gradient_is_the_prediction_less_the_truth(seed):
    # dL/dz = (softmax(z) - onehot(y)) / N at the N labelled positions, and exactly 0 at the others.
    logits, labels = random_case(seed)
    rows = np.flatnonzero(labels >= 0)
    expected = np.zeros(logits.shape)
    expected[rows] = softmax(logits.astype(np.float64))[rows] / len(rows)
    expected[rows, labels[rows]] -= 1 / len(rows)
    z = torch.tensor(logits, requires_grad=True)
    mlm_loss(z, torch.tensor(labels)).backward()
    np.testing.assert_allclose(z.grad.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert not z.grad[torch.tensor(labels) < 0].any()


def test_two_tokens_by_hand():
    # Odds of 3 : 1 for the first of two words: p = 3/4.
    first = mlm_loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]))
    assert first.item() == pytest.approx(math.log(4 / 3))
    # The same, and odds of 1 : 1 : 2 : 4 for the third of four words: p = 2/8.
    both = torch.tensor([[math.log(3), 0.0, -math.inf, -math.inf],
                         [0.0, 0.0, math.log(2), math.log(4)]])
    loss = mlm_loss(both, torch.tensor([0, 2]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


@pytest.mark.parametrize("V", [2, 7, 30522])
def test_uniform_logits_give_log_V(V):
    loss = mlm_loss(torch.full((5, V), 1.7), torch.tensor([0, 1, -100, V - 1, 1]))
    assert loss.item() == pytest.approx(math.log(V))


def test_a_position_without_a_label_does_not_count():
    logits = draw(0, 4, 9)
    labels = torch.tensor([3, -100, 8, -100])
    alone = F.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(mlm_loss(logits, labels), alone)
    others_changed = logits.index_fill(0, torch.tensor([1, 3]), 1e4)
    torch.testing.assert_close(mlm_loss(others_changed, labels), alone)


def test_huge_logits_do_not_overflow():
    # exp(1e4) is beyond fp32. The loss is the difference of the logits: 0 where the label is the
    # largest, else 2e4.
    logits = torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]], requires_grad=True)
    loss = mlm_loss(logits, torch.tensor([0, 1]))
    assert loss.item() == 1e4
    loss.backward()
    assert torch.equal(logits.grad, torch.tensor([[0.0, 0.0, 0.0], [0.5, -0.5, 0.0]]))


def test_bf16_logits_are_summed_in_fp32():
    # 4096 equal words: in bf16, with its 8 digits, log 4096 = 8.3178 could at best be 8.3125.
    logits = torch.zeros(3, 4096, dtype=torch.bfloat16)
    loss = mlm_loss(logits, torch.tensor([0, 17, 4095]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(4096), rel=1e-6)


# --------------------------------------------------------------------------------------------------
# Distillation losses


def draw(seed, *shape, scale=2.0):
    return torch.tensor(np.random.default_rng(seed).normal(size=shape) * scale)  # float64


def relation_by_loops(x, heads):
    """softmax(X X^T / sqrt(d)) of (B, T, h), head by head and position by position, in numpy
    -> (B, heads, T, T)."""
    B, T, h = x.shape
    d = h // heads
    out = np.zeros((B, heads, T, T))
    for b in range(B):
        for a in range(heads):
            for i in range(T):
                head = x[b, :, a * d:(a + 1) * d]  # (T, d)
                products = [head[i] @ head[j] for j in range(T)]
                out[b, a, i] = softmax(np.array(products) / math.sqrt(d))
    return out


def three(seed, *shape):
    """Queries, keys and values."""
    return [draw(seed + i, *shape, scale=1.0) for i in range(3)]


def mean_kl(p, q):
    return (p * np.log(p / q)).sum(axis=-1).mean()


@pytest.mark.parametrize("t", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("N, V", [(1, 2), (7, 5), (13, 301)])
def test_kd_is_the_cross_entropy_with_the_teacher_times_t_squared(N, V, t):
    z_S, z_T = draw(N, N, V), draw(V, N, V)
    p, q = softmax(z_T.numpy() / t), softmax(z_S.numpy() / t)
    entropies = [-sum(p[n, v] * math.log(q[n, v]) for v in range(V)) for n in range(N)]
    assert kd_loss(z_S, z_T, t).item() == pytest.approx(t * t * np.mean(entropies), rel=1e-12)


def test_kd_of_two_words_by_hand():
    # Teacher 3 : 1, student 1 : 1: -(3/4 log 1/2 + 1/4 log 1/2) = log 2.
    # The other way: -1/2 (log 3/4 + log 1/4) = log 4 - log(3) / 2.
    three, one = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    assert kd_loss(one, three).item() == pytest.approx(math.log(2))
    assert kd_loss(three, one).item() == pytest.approx(math.log(4) - math.log(3) / 2)


def test_kd_is_at_least_the_teachers_entropy_and_that_where_they_agree():
    z = draw(0, 9, 40)
    p = softmax(z.numpy())
    entropy = -(p * np.log(p)).sum(axis=1).mean()
    assert kd_loss(z, z).item() == pytest.approx(entropy)
    for seed in range(1, 6):
        assert kd_loss(z + draw(seed, 9, 40, scale=0.3), z).item() > entropy


@pytest.mark.parametrize("V", [2, 7, 30522])
def test_kd_as_released_is_kd_divided_by_the_vocabulary(V):
    z_S, z_T = draw(1, 3, V), draw(2, 3, V)
    assert kd_released_loss(z_S, z_T).item() * V == pytest.approx(kd_loss(z_S, z_T).item())
    product = -softmax(z_T.numpy()) * np.log(softmax(z_S.numpy()))
    # The mean is over positions and words.
    assert kd_released_loss(z_S, z_T).item() == pytest.approx(product.mean())


def test_tinybert_is_the_sum_of_the_mean_squared_errors():
    hidden = [(draw(i, 2, 5, 6), draw(10 + i, 2, 5, 6)) for i in range(3)]
    scores = [(draw(20 + i, 2, 3, 5, 5), draw(30 + i, 2, 3, 5, 5)) for i in range(2)]
    expected = sum(float(np.square(s.numpy() - t.numpy()).sum()) / s.numel()
                   for s, t in hidden + scores)
    (S_h, T_h), (S_s, T_s) = zip(*hidden), zip(*scores)
    assert tinybert_loss(S_h, T_h, S_s, T_s).item() == pytest.approx(expected, rel=1e-12)
    assert tinybert_loss(T_h, T_h, T_s, T_s).item() == 0.0
    with pytest.raises(ValueError):
        tinybert_loss(S_h, T_h[:2], S_s, T_s)  # a layer without its pair is no silent zip


def test_tinybert_of_two_tokens_by_hand():
    # Hidden states (1, 2), (3, 4) against (1, 0), (0, 4): (0 + 4 + 9 + 0) / 4.
    H, H_T = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 4.0]]])
    # Scores all 2 against all 5: 9.
    S, S_T = torch.full((1, 1, 2, 2), 2.0), torch.full((1, 1, 2, 2), 5.0)
    assert tinybert_loss([H], [H_T], [S], [S_T]).item() == 13 / 4 + 9


@pytest.mark.parametrize("h, h_T, R", [(6, 6, 2), (6, 15, 3), (4, 10, 1), (12, 8, 4)])
def test_minilm_is_the_mean_kl_of_the_three_relations_divided_by_3(h, h_T, R):
    student, teacher = three(0, 2, 5, h), three(10, 2, 5, h_T)
    kls = [mean_kl(relation_by_loops(t.numpy(), R), relation_by_loops(s.numpy(), R))
           for s, t in zip(student, teacher)]
    assert minilm_loss(student, teacher, R).item() == pytest.approx(sum(kls) / 3, rel=1e-10)
    assert minilm_loss(teacher, teacher, R).item() == pytest.approx(0.0, abs=1e-14)


def test_minilm_of_two_tokens_by_hand():
    # One head of width 1: x = (a, 0) gives X X^T = [[a^2, 0], [0, 0]], so the rows are (s, 1 - s)
    # with s = 1 / (1 + exp(-a^2)), and (1/2, 1/2). With the teacher's a^2 = log 3 the first row is
    # (3/4, 1/4), with the student's a = 0 it is (1/2, 1/2). The second row's KL is 0.
    x = torch.tensor([[[math.sqrt(math.log(3))], [0.0]]])
    first_row = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    zero = torch.zeros(1, 2, 1)
    one_of_three = minilm_loss((zero, zero, zero), (x, zero, zero), 1)
    assert one_of_three.item() == pytest.approx(first_row / 2 / 3)
    assert minilm_loss((zero, zero, zero), (x, x, x), 1).item() == pytest.approx(first_row / 2)


def test_minilm_as_released_is_3_times_minilm_where_head_counts_agree():
    # The released code sums the three relations, where the paper takes their mean.
    student, teacher = three(0, 2, 6, 12), three(10, 2, 6, 24)
    released = minilm_released_loss(student, teacher, 4, 4)
    assert released.item() == pytest.approx(3 * minilm_loss(student, teacher, 4).item())


def test_minilm_as_released_mixes_positions_with_heads_where_they_do_not():
    # Numpy's reshape of (A, T, d) to (A', T, h/A'), as the released code has it, and the loops on
    # what comes out.
    student, teacher = three(0, 1, 6, 12), three(10, 1, 6, 12)
    expected = 0.0
    for s, t in zip(student, teacher):
        # (T, A, d) -> (A, T, d): 2 heads of 6. Then (A', T, d'): 3 heads of 4, joined again.
        per_head = s.numpy()[0].reshape(6, 2, 6).swapaxes(0, 1)
        mixed = np.concatenate(per_head.reshape(3, 6, 4), axis=1)[None]
        expected += mean_kl(relation_by_loops(t.numpy(), 3), relation_by_loops(mixed, 3))
    released = minilm_released_loss(student, teacher, 2, 3).item()
    assert released == pytest.approx(expected, rel=1e-10)
    assert abs(released - 3 * minilm_loss(student, teacher, 3).item()) > 0.01


def test_minilm_v1_is_the_kl_of_attention_and_of_value_relations():
    S, S_T = draw(0, 2, 3, 5, 5), draw(1, 2, 3, 5, 5)
    v, v_T = draw(2, 2, 5, 6, scale=1.0), draw(3, 2, 5, 12, scale=1.0)
    attention = mean_kl(softmax(S_T.numpy()), softmax(S.numpy()))
    values = mean_kl(relation_by_loops(v_T.numpy(), 3), relation_by_loops(v.numpy(), 3))
    loss = minilm_v1_loss(S, S_T, v, v_T)
    assert loss.item() == pytest.approx(attention + values, rel=1e-10)
    assert minilm_v1_loss(S, S, v, v).item() == pytest.approx(0.0, abs=1e-14)


# --------------------------------------------------------------------------------------------------
# What the peers' own code gives on the same tensors, run once in float64 with their functions
# unmodified: TextBrewer (kd_ce_loss), huawei-noah's TinyBERT (general_distill.py), bloomberg's
# minilmv2.bb, and the code that Bui et al. released (predictions_ce, minilm_v2, att_val_kl).


def wave(shape, a):
    """1.5 sin(a + 0.7 i + 0.05 i^1.5) for the elements i = 0, 1, ... in C order: anybody can make
    the same tensor."""
    i = np.arange(np.prod(shape), dtype=np.float64)
    return torch.tensor(1.5 * np.sin(a + 0.7 * i + 0.05 * i ** 1.5)).reshape(shape)


def waves(shape, *phases):
    return [wave(shape, a) for a in phases]


def test_kd_is_textbrewers():
    z_S, z_T = waves((3, 11), 1, 2)
    assert kd_loss(z_S, z_T).item() == pytest.approx(2.3850495230, abs=1e-10)
    assert kd_loss(z_S, z_T, 2.0).item() == pytest.approx(9.5319352864, abs=1e-10)  # theirs x t^2


def test_kd_as_released_is_the_released_codes():
    assert kd_released_loss(*waves((3, 11), 1, 2)).item() == pytest.approx(0.2168226839, abs=1e-10)


def test_tinybert_is_huaweis():
    # L_S = 2, L_T = 4: the student's layers 0, 1, 2 learn from the teacher's 0, 2, 4.
    H, H_T = waves((2, 5, 8), 3, 4, 5), waves((2, 5, 8), 6, 7, 8, 9, 10)
    S, S_T = waves((2, 2, 5, 5), 11, 12), waves((2, 2, 5, 5), 13, 14, 15, 16)
    loss = tinybert_loss(H, H_T[::2], S, S_T[1::2])
    assert loss.item() == pytest.approx(17.9970830447, abs=1e-9)


QKV, QKV_T = ((2, 5, 12), 17, 18, 19), ((2, 5, 24), 20, 21, 22)


def test_minilm_is_bloombergs():
    loss = minilm_loss(waves(*QKV), waves(*QKV_T), 3)
    assert loss.item() == pytest.approx(0.6270820387, abs=1e-10)


@pytest.mark.parametrize("heads, expected", [(2, 2.3006389834), (4, 1.8135077757)])
def test_minilm_as_released_is_the_released_codes(heads, expected):
    loss = minilm_released_loss(waves(*QKV), waves(*QKV_T), heads, 4)
    assert loss.item() == pytest.approx(expected, abs=1e-10)


def test_minilm_v1_is_the_released_codes():
    S, S_T = waves((2, 4, 5, 5), 23, 24)
    v, v_T = wave((2, 5, 12), 27), wave((2, 5, 12), 30)
    loss = minilm_v1_loss(S, S_T, v, v_T)
    assert loss.item() == pytest.approx(0.3979591353, abs=1e-10)


def test_the_gradients_are_those_of_finite_differences():
    def grad(seed, *shape):
        return draw(seed, *shape, scale=1.0).requires_grad_(True)
    z, t = grad(0, 4, 6), draw(1, 4, 6)
    labels = torch.tensor([1, -100, 5, 0])
    check = torch.autograd.gradcheck
    assert check(lambda z: mlm_loss(z, labels), z)
    assert check(lambda z: kd_loss(z, t, 2.0), z) and check(lambda z: kd_released_loss(z, t), z)
    H_T, S_T = draw(2, 2, 3, 4), draw(3, 2, 2, 3, 3)
    assert check(lambda H, S: tinybert_loss([H], [H_T], [S], [S_T]),
                 (grad(4, 2, 3, 4), grad(5, 2, 2, 3, 3)))
    qkv, qkv_T = [grad(6 + i, 2, 3, 4) for i in range(3)], [draw(10 + i, 2, 3, 6) for i in range(3)]
    assert check(lambda *qkv: minilm_loss(qkv, qkv_T, 2), qkv)
    assert check(lambda *qkv: minilm_released_loss(qkv, qkv_T, 1, 2), qkv)
    S_T, v_T = draw(20, 2, 2, 3, 3), draw(21, 2, 3, 6)
    assert check(lambda S, v: minilm_v1_loss(S, S_T, v, v_T),
                 (grad(22, 2, 2, 3, 3), grad(23, 2, 3, 4)))


@pytest.mark.parametrize("loss", [
    lambda x: kd_loss(x[0], x[0]), lambda x: tinybert_loss([x], [x * 2], [], []),
    lambda x: minilm_loss((x, x, x), (x, x, x), 2)])
def test_bf16_is_computed_in_fp32(loss):
    assert loss(torch.randn(2, 3, 4, dtype=torch.bfloat16)).dtype == torch.float32


# --------------------------------------------------------------------------------------------------
# Strategies

BASE, LARGE = size("12x768"), size("24x1024")


def test_tinybert_maps_layer_m_to_m_times_L_T_over_L_S():
    lesson = distill.lesson("tinybert", size("6x768"), BASE)
    assert lesson.student == Reads(hidden=(0, 1, 2, 3, 4, 5, 6), scores=(1, 2, 3, 4, 5, 6))
    assert lesson.teacher == Reads(hidden=(0, 2, 4, 6, 8, 10, 12), scores=(2, 4, 6, 8, 10, 12))
    assert lesson.width is None and not lesson.masked
    papers_student = size("4x312h12f1200")
    assert distill.lesson("tinybert", papers_student, BASE).width == 768


def test_minilm_reads_the_last_layer_of_base_teachers_and_the_21st_of_large_ones():
    assert distill.lesson("minilm", size("6x384"), BASE).teacher.qkv == (12,)
    assert distill.lesson("minilm", size("6x384"), LARGE).teacher.qkv == (21,)
    chosen = distill.Options(teacher_layer=19)
    assert distill.lesson("minilm", size("6x384"), LARGE, chosen).teacher.qkv == (19,)


def test_only_kd_reads_the_heads():
    for name in distill.STRATEGIES:
        lesson = distill.lesson(name, size("6x768"), BASE)
        assert lesson.student.logits == (name in ("scratch", "kd", "kd-released"))
        assert lesson.teacher is None or lesson.teacher.logits == lesson.student.logits


def test_the_papers_layers_learn_from_whole_text_and_the_released_ones_from_masked_text():
    for name in distill.STRATEGIES:
        whole_text = name in ("tinybert", "minilm", "minilm-v1")
        assert distill.lesson(name, size("6x768"), BASE).masked != whole_text


def test_minilm_as_released_learns_from_the_last_layer_also_of_large_teachers():
    # Their scripts: layer_selection -1.
    assert distill.lesson("minilm-released", size("6x768"), LARGE).teacher.qkv == (24,)


def test_what_is_released_is_charged_for_both_passes_whole_with_both_heads():
    for name in distill.STRATEGIES:
        lesson = distill.lesson(name, size("6x768"), BASE)
        if name in ("tinybert-released", "minilm-released"):
            student, teacher = lesson.charged()
            assert student.depth(6) == (6, 6, 6) and teacher.depth(12) == (12, 12, 12)
            assert student.logits and teacher.logits
        else:
            assert lesson.charged() == (lesson.student, lesson.teacher)


@pytest.mark.parametrize("name, student, teacher, message", [
    ("kd", "2x128", None, "--teacher"),
    ("tinybert", "5x768", "12x768", "1, 2, 3, 4, 6, 12 layers"),
    ("tinybert", "24x768", "12x768", "1, 2, 3, 4, 6, 12 layers"),
    ("tinybert", "6x384", "12x768", "--model 6x384h12"),
    ("tinybert-released", "6x384", "12x768", "--model 6x384h12"),
    ("minilm-v1", "6x384", "12x768", "--model 6x384h12"),
    ("minilm-released", "2x100h5", "12x768", "12 heads")])
def test_a_pair_that_does_not_fit_is_refused_and_the_message_says_what_does(name, student, teacher,
                                                                            message):
    with pytest.raises(UserError, match=message):
        distill.lesson(name, size(student), teacher and size(teacher))


@pytest.mark.parametrize("options, message", [
    (distill.Options(teacher_layer=13), "12 layers"),
    (distill.Options(relation_heads=5), "does not divide")])
def test_an_option_beyond_the_teacher_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        distill.lesson("minilm", size("6x384"), BASE, options)


@pytest.mark.parametrize("name, options, flag", [
    ("kd", distill.Options(relation_heads=4), "--relation-heads"),
    ("minilm", distill.Options(temperature=2.0), "--temperature"),
    ("scratch", distill.Options(temperature=2.0), "--temperature"),
    ("minilm-v1", distill.Options(relation_heads=4), "--relation-heads")])
def test_an_option_that_a_strategy_does_not_use_is_refused(name, options, flag):
    with pytest.raises(UserError, match=f"{name} does not use {flag}: remove it"):
        distill.lesson(name, size("6x768"), BASE, options)


def test_the_losses_need_no_torch_to_be_declared(python):
    done = python("-c", "import sys, distill; print('torch' in sys.modules)")
    assert done.stdout == "False\n"
