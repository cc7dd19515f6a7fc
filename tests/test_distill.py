"""The losses, against float64 numpy, torch's own, and numbers computed by hand."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from distill import mlm_loss


def softmax(z):
    """Row-wise, in float64."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


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
    assert mlm_loss(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(10, 20))
def test_mlm_loss_is_torchs_cross_entropy(seed):
    logits, labels = map(torch.tensor, random_case(seed))
    torch.testing.assert_close(mlm_loss(logits, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("seed", range(20, 30))
def test_the_gradient_is_the_prediction_less_the_truth(seed):
    # dL/dz = (softmax(z) - onehot(y)) / N at the N labelled positions, and exactly 0 at the others. Finite differences
    # (torch's gradcheck) would need float64, and the loss computes in fp32 whatever it is given.
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
    # Odds of 3 : 1 for the first word of two, and 1 : 1 : 2 : 4 for the third of four: p = 3/4 and 2/8.
    assert mlm_loss(torch.tensor([[math.log(3), 0.0]]), torch.tensor([0])).item() == pytest.approx(math.log(4 / 3))
    both = torch.tensor([[math.log(3), 0.0, -math.inf, -math.inf], [0.0, 0.0, math.log(2), math.log(4)]])
    assert mlm_loss(both, torch.tensor([0, 2])).item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


@pytest.mark.parametrize("V", [2, 7, 30522])
def test_uniform_logits_give_log_V(V):
    assert mlm_loss(torch.full((5, V), 1.7), torch.tensor([0, 1, -100, V - 1, 1])).item() == pytest.approx(math.log(V))


def test_a_position_without_a_label_does_not_count():
    logits = torch.randn(4, 9)
    labels = torch.tensor([3, -100, 8, -100])
    alone = F.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    torch.testing.assert_close(mlm_loss(logits, labels), alone)
    torch.testing.assert_close(mlm_loss(logits.index_fill(0, torch.tensor([1, 3]), 1e4), labels), alone)


def test_huge_logits_do_not_overflow():
    # exp(1e4) is beyond fp32, and the loss is the difference of the logits: 0 where the label is the largest, else 2e4.
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
