"""What the check knows of each exercise: cases, the right answer (the project's own function), the classic mistakes, and the project's tests.

A mistake is a function that makes it. Where a student's numbers are those of a mistake in every case, and not the right ones, that is the diagnosis.
To write an exercise of your own, add an Exercise to EXERCISES, its file beside the others, and a test of each mistake comes by itself.
"""
import math
import statistics
from typing import Callable, NamedTuple, Optional

import torch

import budget
import data
import distill


class Exercise(NamedTuple):
    file: str
    function: str
    right: Callable                # the project's answer to a case
    cases: Callable                # () -> [(names of sizes {"B": 2, ...}, arguments)]
    mistakes: list                 # (name, the function that makes it, what to reread)
    install: Callable              # puts a student's function in the place of the project's
    tests: tuple                   # the project's own tests that it must pass
    judge: Optional[Callable] = None   # where answers are random: student -> a diagnosis, or None
    learns: tuple = ()             # the arguments by which a loss has a gradient
    hints: dict = {}               # {words of an exception: what to say of it}
    parts: tuple = ()              # names of an answer's numbers, where it has several
    install_loop: Optional[Callable] = None  # `install` for --train, where another place shows more


def swap(module, name, wrap=lambda student, real: student):
    """install: the student's function as module.name."""
    def install(student):
        setattr(module, name, wrap(student, getattr(module, name)))
    return install


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------------------
# 1. FLOPs of a block

def block(T, h, f, real=budget.encoder_flops):
    return sum(flops for _, _, flops in real(budget.Size(1, h, 1, f), T))


def install_block(student, real=budget.encoder_flops):
    def encoder_flops(size, T, reads=budget.MLM):
        n = reads.depth(size.L)  # a layer that is left half way is none of the exercise's
        return [("blocks", "", n.whole * student(T, size.h, size.f))] if n.qkv == n.whole else real(size, T, reads)
    budget.encoder_flops = encoder_flops


BLOCK = Exercise(
    "1_block.py", "block_flops", block,
    lambda: [({"T": T, "h": h, "f": f}, (T, h, f)) for T, h, f in ((2, 4, 16), (128, 768, 3072), (32, 312, 1200), (512, 128, 512))],
    [("a multiplication and an addition counted as one", lambda T, h, f: block(T, h, f) // 2, "assumption 1 in budget.py: (m x k)(k x n) costs 2 m n k, twice the multiply-adds that some papers count"),
     ("one projection instead of three", lambda T, h, f: block(T, h, f) - 4 * T * h * h, "queries, keys and values are three products (T, h) @ (h, h): 6 T h^2 together"),
     ("the T^2 products of attention left out", lambda T, h, f: block(T, h, f) - 4 * T * T * h, "scores and weighted sum: 2 T^2 h each. The rule of thumb '2 FLOPs a weight and token' leaves them out, since no weight is in them"),
     ("the weighted sum of the values left out", lambda T, h, f: block(T, h, f) - 2 * T * T * h, "after the scores Q K^T come the weights times V: again 2 T^2 h"),
     ("the attention output left out", lambda T, h, f: block(T, h, f) - 2 * T * h * h, "the joined heads go through one more (T, h) @ (h, h)"),
     ("one of the two feed-forward products left out", lambda T, h, f: block(T, h, f) - 2 * T * h * f, "up to f, and down to h again: 4 T h f together"),
     ("f taken to be 4 h", lambda T, h, f: block(T, h, 4 * h), "f is a size of its own: TinyBERT's student has h = 312 and f = 1200"),
     ("the backward pass included", lambda T, h, f: 3 * block(T, h, f), "the exercise asks for the forward pass; backward costs twice that again"),
     ("a token instead of a sequence", lambda T, h, f: block(T, h, f) // T, "the products have T rows"),
     ("the scores multiplied by the number of heads", lambda T, h, f: block(T, h, f) + 2 * T * T * h * (max(1, h // 64) - 1), "each head is d = h / A wide: A times 2 T^2 d is 2 T^2 h, A cancels")],
    install_block, ("test_budget.py::test_bert_base_by_hand", "test_budget.py::test_six_layers_cost_283_million_a_token", "test_budget.py::test_a_step_costs_what_torch_counts",
                    "test_budget.py::test_a_step_of_transformers_bert_costs_the_same"))


# ---------------------------------------------------------------------------------------------------------------------
# 2. From a budget to steps and tokens

def planned(C, F_S, F_T, B, T, real=budget.plan):
    step = (3 * F_S + F_T) * B
    bought = real(C, step, B, T)
    return step, bought.steps, bought.tokens


def wrong_plan(price, steps=lambda C, step: C // step, tokens=lambda steps, B, T: steps * B * T):
    def plan(C, F_S, F_T, B, T):
        step = price(F_S, F_T, B)
        n = steps(C, step)
        return step, n, tokens(n, B, T)
    return plan


def right_price(F_S, F_T, B):
    return (3 * F_S + F_T) * B


def install_plan(student):
    def forward(size, V, T, reads, width=None):
        return sum(flops for _, _, flops in budget.forward_flops(size, V, T, reads, width))

    def step_flops(size, V, T, B, lesson=budget.Lesson(), teacher=None):
        return student(10 ** 40, forward(size, V, T, lesson.student, lesson.width), forward(teacher, V, T, lesson.teacher) if lesson.teacher else 0, B, T)[0]

    def plan(C, flops_per_step, B, T, *rest, real=budget.plan):
        if rest or C < flops_per_step:
            return real(C, flops_per_step, B, T, *rest)
        _, steps, _ = student(C, 0, flops_per_step, 1, T)  # a step of another price: as one sequence that only a teacher reads
        return real(C, flops_per_step, B, T)._replace(steps=steps, flops_spent=steps * flops_per_step, tokens=steps * B * T)
    budget.step_flops, budget.plan = step_flops, plan


PLAN = Exercise(
    "2_budget.py", "plan", planned,
    lambda: [({}, case) for case in ((1000, 10, 20, 2, 4), (10 ** 12, 1_234_567, 7_654_321, 32, 32), (10 ** 19 - 1, 3, 1, 1, 128), (10 ** 17, 36_271_816_704, 0, 256, 128), (1199, 10, 20, 2, 4))],
    [("the teacher's backward charged", wrong_plan(lambda F_S, F_T, B: 3 * (F_S + F_T) * B), "assumption 6 in budget.py: nobody trains the teacher, it has no backward pass"),
     ("the teacher not charged", wrong_plan(lambda F_S, F_T, B: 3 * F_S * B), "the teacher reads every batch, too: its forward pass is what distillation costs"),
     ("the backward pass forgotten", wrong_plan(lambda F_S, F_T, B: (F_S + F_T) * B), "assumption 3 in budget.py: backward costs twice forward"),
     ("backward as dear as forward", wrong_plan(lambda F_S, F_T, B: (2 * F_S + F_T) * B), "of Y = X W backward computes two products, dX and dW: twice forward, three times in all"),
     ("a sequence instead of a step", wrong_plan(lambda F_S, F_T, B: 3 * F_S + F_T), "a step reads B sequences"),
     ("steps rounded up, above the budget", wrong_plan(right_price, lambda C, step: -(-C // step)), "a run never spends more than C: cut the fraction off"),
     ("steps rounded to the nearest", wrong_plan(right_price, lambda C, step: (2 * C + step) // (2 * step)), "a run never spends more than C: cut the fraction off"),
     ("divided as floats", wrong_plan(right_price, lambda C, step: int(C / step)), "a float has 53 binary digits, and 10^19 needs 64: divide with //"),
     ("steps and the price of a step exchanged", lambda *a: (lambda step, steps, tokens: (steps, step, tokens))(*planned(*a)), "(FLOPs of a step, steps, tokens), in this order"),
     ("F taken to be of a token", lambda C, F_S, F_T, B, T: planned(C, F_S * T, F_T * T, B, T), "F_S and F_T are FLOPs of a sequence of T tokens: T is not in the price of a step"),
     ("tokens of a part of a step", lambda C, F_S, F_T, B, T: (right_price(F_S, F_T, B), C // right_price(F_S, F_T, B), C / right_price(F_S, F_T, B) * B * T), "tokens are read in whole steps: steps B T"),
     ("sequences instead of tokens", wrong_plan(right_price, tokens=lambda steps, B, T: steps * B), "each sequence has T tokens"),
     ("the budget's tokens, not those of whole steps", lambda C, F_S, F_T, B, T: (right_price(F_S, F_T, B), C // right_price(F_S, F_T, B), C * B * T // right_price(F_S, F_T, B)),
      "tokens are read in whole steps: steps B T")],
    install_plan, ("test_budget.py::test_every_strategys_step_costs_what_torch_counts", "test_budget.py::test_a_plan_is_whole_steps_within_the_budget_and_less_than_one_step_below_it",
                   "test_budget.py::test_a_budget_of_exactly_n_steps_buys_n_even_where_floats_cannot_tell"),
    parts=("FLOPs of a step", "steps", "tokens"))


# ---------------------------------------------------------------------------------------------------------------------
# 3. Masking: answers are random, so what is compared are their properties

class Words(NamedTuple):
    size: int = 1000
    mask: int = 103
    special: list = [0, 100, 101, 102, 103]  # as in bert-base-uncased: not the first five


def judge_masking(student):
    import numpy as np
    for T, V in ((32, 1000), (30, 1000), (128, 112)):  # of few words each must come up
        B, k, words = 1024, budget.masked_positions(T), Words(V)
        blocks = data.generator(T).choice(np.setdiff1d(np.arange(words.size), words.special), (B, T))
        blocks[:, ::7], blocks[:, 0] = 102, 101
        before = blocks.copy()
        answer = student(blocks, data.generator(1), words)
        if not isinstance(answer, tuple) or len(answer) != 3 or not all(isinstance(part, np.ndarray) for part in answer):
            return "wrong form: wanted are three numpy arrays, inputs (B, T), positions (N,), labels (N,)"
        inputs, positions, labels = answer
        if not np.array_equal(blocks, before):
            return "the blocks given were changed: work on a copy, since they are read again in the next epoch"
        if inputs.shape != (B, T):
            return f"wrong shape: inputs are {inputs.shape}, wanted (B, T) = {(B, T)}"
        if labels.shape == (B, T) or labels.shape == (B * T,):
            return "labels at all positions: wanted are those of the N = B k chosen ones only, so that the head computes 15% of the logits"
        if positions.ndim != 1 or positions.shape != labels.shape:
            return f"wrong shape: positions are {positions.shape}, labels {labels.shape}, both wanted (N,)"
        if len(positions) and positions.max() < T:
            return "positions are columns: wanted are places in the flattened blocks, row b, column t is b T + t"
        if any(part.dtype != np.int64 for part in answer):
            return f"wrong dtype: {', '.join(str(part.dtype) for part in answer)}, and int64 is wanted for all three"
        there = before.reshape(-1)[positions] if len(positions) and 0 <= positions.min() and positions.max() < B * T else None
        if there is None:
            return "positions lie outside of the flattened blocks: row b, column t is b T + t"
        if not np.array_equal(labels, there):
            return "labels are what the inputs show, not what stood there" if np.array_equal(labels, inputs.reshape(-1)[positions]) else \
                "labels are not the words that stood at the positions: row b, column t of the blocks is position b T + t"
        if np.isin(there, words.special).any():
            return "special tokens masked: [CLS] and [SEP] are never chosen (vocabulary.special has their numbers)"
        counts = np.bincount(positions // T, minlength=B)
        if len(set(counts)) > 1:
            return "blocks differ in the number of their masked words: wanted are always k ordinary ones, so that all steps cost the same. Neither a chance of 15% for each token, nor choosing k of all and leaving out the special ones"
        if counts[0] != k:
            how = "0.15 T cut off: round half up, int(0.15 T + 0.5)" if counts[0] == int(0.15 * T) else "0.15 T rounded up" if counts[0] == math.ceil(0.15 * T) else "reread how many"
            return f"{counts[0]} of {T} tokens are masked, wanted {k}: {how}"
        if len(set(positions.tolist())) < len(positions):
            return "a position chosen twice: choose without replacement"
        if (np.diff(positions) < 0).any():
            return "positions are not in rising order: sort them"
        rest = np.delete(np.arange(B * T), positions)
        if not np.array_equal(inputs.reshape(-1)[rest], before.reshape(-1)[rest]):
            return "words that were not chosen are changed, too"
        seen = inputs.reshape(-1)[positions]
        masked, kept = (seen == words.mask).mean(), (seen == there).mean()
        other = seen[(seen != words.mask) & (seen != there)]
        if masked > 0.99:
            return "all chosen words become [MASK]: 80% do, 10% become a random word, 10% stay. In fine-tuning there is no [MASK]"
        if abs(masked - 0.8) > 0.04 or abs(kept - 0.1) > 0.03:
            return f"{masked:.0%} become [MASK], {kept:.0%} stay, {len(other) / len(seen):.0%} become a random word: wanted 80, 10 and 10"
        half = len(seen) // 2  # of the positions in rising order, and of the columns
        for part in (seen[:half], seen[half:], seen[positions % T < T // 2], seen[positions % T >= T // 2]):
            if abs((part == words.mask).mean() - 0.8) > 0.07:
                return "what becomes of a word depends on its place: let chance decide for each chosen word, not its number in the row"
        if np.isin(other, words.special).any():
            return "a random word is a special token: draw from the others only, wherever their numbers are"
        ordinary = np.setdiff1d(np.arange(V), words.special)
        if len(np.unique(other)) < 0.5 * min(len(other), V) or abs((other > V // 2).mean() - (ordinary > V // 2).mean()) > 0.12:
            return "random words are few: each chosen word needs one of its own, drawn from the whole vocabulary"
        if V < 200 and len(np.unique(other)) < len(ordinary):
            return f"the word {np.setdiff1d(ordinary, other)[0]} of {V} never comes as a random one: all words from 0 to V - 1 that are no special tokens have the same chance"
        again, another = student(before.copy(), data.generator(1), words), student(before.copy(), data.generator(2), words)
        same_fate = np.array_equal(another[0].reshape(-1)[another[1]] == words.mask, seen == words.mask)
        if not np.array_equal(again[1], positions) or not np.array_equal(again[0], inputs) or np.array_equal(another[1], positions) or same_fate:
            return "not drawn from rng: the same generator must give the same masks, another one others"
        if abs(np.bincount(positions % T, minlength=T)[1:7].mean() / (B * k / (T - len(range(0, T, 7)))) - 1) > 0.25:
            return "some positions are chosen more often than others: every ordinary word has the same chance"
    return None


def masking(k=budget.masked_positions, mask_special=False, fate=(0.8, 0.9), labels_of="blocks", wrong_words=(), by_chance=False, flat=True, by_place=False, own_randomness=None, less=False, dtype="int64", last=1):
    """A mask_tokens that makes the named mistakes."""
    def mask_tokens(blocks, rng, vocabulary):
        import numpy as np
        B, T = blocks.shape
        words = np.setdiff1d(np.arange(vocabulary.size), wrong_words or vocabulary.special)
        keys = rng.random((B, T)) + (0 if mask_special or less else np.isin(blocks, vocabulary.special))
        chosen = keys < 0.15 if by_chance else np.zeros((B, T), bool)
        if not by_chance:
            np.put_along_axis(chosen, np.argsort(keys, axis=1)[:, :k(T)], True, axis=1)
        positions = np.flatnonzero(chosen & ~np.isin(blocks, vocabulary.special) if less else chosen)
        rng = np.random.default_rng(*own_randomness) if own_randomness is not None else rng
        inputs, draw = blocks.copy().reshape(-1), np.arange(len(positions)) / len(positions) if by_place else rng.random(len(positions))
        inputs[positions] = np.where(draw < fate[0], vocabulary.mask, np.where(draw < fate[1], rng.choice(words[:round(last * len(words))], len(positions)), inputs[positions]))
        labels = (blocks.reshape(-1) if labels_of == "blocks" else inputs)[positions]
        return inputs.reshape(B, T), (positions if flat else positions % T).astype(dtype), labels
    return mask_tokens


MASKING = Exercise(
    "3_masking.py", "mask_tokens", data.mask_tokens, list,
    [("masked, wanted", masking(k=lambda T: int(0.15 * T)), ""), ("Neither a chance of 15% for each token", masking(by_chance=True), ""), ("nor choosing k of all", masking(less=True), ""), ("special tokens masked", masking(mask_special=True), ""),
     ("all chosen words become [MASK]", masking(fate=(1, 1)), ""), ("wanted 80, 10 and 10", masking(fate=(0.8, 1)), ""), ("labels are what the inputs show", masking(labels_of="inputs"), ""),
     ("a random word is a special token", masking(wrong_words=(0, 1, 2, 3, 4)), ""), ("what becomes of a word depends on its place", masking(by_place=True), ""),
     ("not drawn from rng", masking(own_randomness=()), ""), ("not drawn from rng", masking(own_randomness=(0,)), ""), ("wrong dtype", masking(dtype="int32"), ""),
     ("random words are few", masking(last=0.5), ""), ("never comes as a random one", masking(last=0.992), ""), ("0.15 T cut off", masking(k=lambda T: round(0.15 * T)), ""), ("positions are columns", masking(flat=False), "")],
    swap(data, "mask_tokens"), ("test_data.py::test_each_block_has_exactly_k_masked_positions", "test_data.py::test_labels_are_the_words_that_stood_there_and_other_words_stay",
                                "test_data.py::test_80_percent_become_mask_10_a_random_word_10_stay", "test_data.py::test_special_tokens_are_never_masked_and_never_the_random_word",
                                "test_data.py::test_every_word_is_masked_equally_often"), judge_masking)


# ---------------------------------------------------------------------------------------------------------------------
# 4. MLM, 5. KD: logits (N, V)

def surprise(z, y, dim=1):
    return -z.log_softmax(dim).gather(1, (y % z.shape[1])[:, None]).squeeze(1)


def mlm_cases():
    y = torch.tensor([1, -100, 4, 0, -100, 2, 3])
    return [({"N": 7, "V": 5}, (draw(1, 7, 5), y)), ({"N": 1, "V": 2}, (torch.tensor([[math.log(3), 0.0]]), torch.tensor([0]))), ({"N": 7, "V": 11}, (3 * draw(2, 7, 11), y)),
            ({"N": 2, "V": 3}, (torch.tensor([[1e4, -1e4, 0.0], [1e4, -1e4, 0.0]]), torch.tensor([0, 1]))), ({"N": 3, "V": 4}, (draw(3, 3, 4), torch.tensor([-100, -100, -100]))),
            ({"N": 3, "V": 4096}, (torch.zeros(3, 4096, dtype=torch.bfloat16), torch.tensor([0, 1, 2])))]


MLM = Exercise(
    "4_mlm.py", "mlm_loss", distill.mlm_loss, mlm_cases,
    [("exp overflows", lambda z, y: -(z.exp().gather(1, y.clamp(min=0)[:, None]).squeeze(1) / z.exp().sum(1)).log()[y >= 0].sum() / (y >= 0).sum().clamp(min=1),
      "log softmax(z)[y] = z_y - logsumexp(z): the library's logsumexp subtracts the largest score first"),
     ("exp overflows", lambda z, y: ((distill.exact(z).exp().sum(1).log() - distill.exact(z).gather(1, y.clamp(min=0)[:, None]).squeeze(1)) * (y >= 0)).sum() / (y >= 0).sum().clamp(min=1),
      "log softmax(z)[y] = z_y - logsumexp(z): the library's logsumexp subtracts the largest score first"),
     ("word 0 taken for no label", lambda z, y: distill.mlm_loss(z, torch.where(y > 0, y, -100)), "0 is a word like others: only negative labels are left out (y >= 0)"),
     ("nothing to guess gives NaN", lambda z, y: surprise(distill.exact(z), y)[y >= 0].mean(), "without any label the loss is 0: divide by at least 1"),
     ("positions without a label counted in N", lambda z, y: (surprise(distill.exact(z), y) * (y >= 0)).mean(), "divide by the number of labels, not by the number of positions"),
     ("labels clamped, but not left out", lambda z, y: surprise(distill.exact(z), y.clamp(min=0)).mean(), "after clamping -100 to 0 those positions must still be taken out of sum and N"),
     ("the sum instead of the mean", lambda z, y: distill.mlm_loss(z, y) * (y >= 0).sum(), "divide by N, the number of labels"),
     ("the mean over the vocabulary, too", lambda z, y: distill.mlm_loss(z, y) / z.shape[1], "only the label's word is read of each row; as in the released code's KD term, a mean over V makes the loss V times smaller"),
     ("softmax over the positions", lambda z, y: (surprise(distill.exact(z), y, 0) * (y >= 0)).sum() / (y >= 0).sum().clamp(min=1), "a distribution is over the words: dim=1"),
     ("the sign forgotten", lambda z, y: -distill.mlm_loss(z, y), "a probability's log is negative: the surprise is minus that"),
     ("the logarithm forgotten", lambda z, y: -(distill.exact(z).softmax(1).gather(1, y.clamp(min=0)[:, None]).squeeze(1) * (y >= 0)).sum() / (y >= 0).sum().clamp(min=1), "the surprise is -log p, not -p"),
     ("in bits", lambda z, y: distill.mlm_loss(z, y) / math.log(2), "losses are in nats: the natural logarithm")],
    swap(distill, "mlm_loss"), tuple(f"test_distill.py::test_{name}" for name in (
        "mlm_loss_is_the_mean_surprise_at_the_labelled_positions", "mlm_loss_is_torchs_cross_entropy", "the_gradient_is_the_prediction_less_the_truth", "two_tokens_by_hand",
        "uniform_logits_give_log_V", "a_position_without_a_label_does_not_count", "huge_logits_do_not_overflow", "bf16_logits_are_summed_in_fp32")), learns=(0,), hints=dict.fromkeys(("out of bounds", "out of range"), "-100 is no word: take positions without a label out before you index"))


def cross_entropy(p, z, dim=1):
    return -(p * z.log_softmax(dim)).sum(1)


def kd_cases():
    return [({"N": 7, "V": 5}, (draw(1, 7, 5), draw(2, 7, 5), 1.0)), ({"N": 1, "V": 2}, (torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]]))), ({"N": 3, "V": 11}, (2 * draw(3, 3, 11), draw(4, 3, 11), 2.0)),
            ({"N": 4, "V": 9}, (draw(5, 4, 9).bfloat16(), draw(6, 4, 9).bfloat16(), 0.5)), ({"N": 2, "V": 3}, (torch.tensor([[300.0, -300.0, 0.0]] * 2), torch.tensor([[0.0, 1.0, 300.0]] * 2), 1.0)),
            ({"N": 6, "V": 4}, (draw(7, 6, 4), draw(8, 6, 4), 3.0))]


def kd_with(change):
    """kd_loss as change(z_S, z_T, t) computes it, in fp32 at least."""
    return lambda z_S, z_T, t=1.0: change(distill.exact(z_S), distill.exact(z_T), t)


KD = Exercise(
    "5_kd.py", "kd_loss", distill.kd_loss, kd_cases,
    [("the mean over the vocabulary, too", kd_with(lambda s, t_, t: t * t * cross_entropy((t_ / t).softmax(1), s / t).mean() / s.shape[1]),
      "sum over V, mean over N only. The paper's released code averages over both: 1/V of the loss (kd_released_loss in distill.py), and little more than MLM is left"),
     ("torch's kl_div with its own mean", kd_with(lambda s, t_, t: t * t * torch.nn.functional.kl_div((s / t).log_softmax(1), (t_ / t).softmax(1), reduction="mean")),
      "its default mean is over positions and words, and it subtracts the teacher's entropy: write the sum over V and the mean over N"),
     ("student and teacher exchanged", kd_with(lambda s, t_, t: t * t * cross_entropy((s / t).softmax(1), t_ / t).mean()), "the teacher gives the probabilities, the student the logarithm: KL reversed would let the student ignore words"),
     ("t^2 forgotten", kd_with(lambda s, t_, t: cross_entropy((t_ / t).softmax(1), s / t).mean()), "Hinton et al., end of section 2: gradients shrink with 1/t^2, so multiply"),
     ("t instead of t^2", kd_with(lambda s, t_, t: t * cross_entropy((t_ / t).softmax(1), s / t).mean()), "each of the two softmaxes brings a 1/t: t squared"),
     ("KL instead of cross-entropy", kd_with(lambda s, t_, t: t * t * (cross_entropy((t_ / t).softmax(1), s / t) - cross_entropy((t_ / t).softmax(1), t_ / t)).mean()),
      "the gradients are equal, the number is not: do not subtract the teacher's entropy"),
     ("the temperature on the teacher only", kd_with(lambda s, t_, t: t * t * cross_entropy((t_ / t).softmax(1), s).mean()), "both are divided by t"),
     ("the temperature on the student only", kd_with(lambda s, t_, t: t * t * cross_entropy(t_.softmax(1), s / t).mean()), "both are divided by t"),
     ("another temperature by default", lambda s, t_, t=2.0: distill.kd_loss(s, t_, t), "without a temperature it is 1"),
     ("the temperature ignored", kd_with(lambda s, t_, t: cross_entropy(t_.softmax(1), s).mean()), "divide both scores by t before the softmax, and multiply by t^2"),
     ("multiplied by the temperature", kd_with(lambda s, t_, t: t * t * cross_entropy((t_ * t).softmax(1), s * t).mean()), "softened: divided by t"),
     ("softmax over the positions", kd_with(lambda s, t_, t: t * t * cross_entropy((t_ / t).softmax(0), s / t, 0).mean()), "a distribution is over the words: dim=1"),
     ("the sum over positions", kd_with(lambda s, t_, t: t * t * cross_entropy((t_ / t).softmax(1), s / t).sum()), "the mean over the N positions"),
     ("hard labels from the teacher", kd_with(lambda s, t_, t: t * t * surprise(s / t, t_.argmax(1)).mean()), "all of the teacher's probabilities count, not its favourite word alone"),
     ("logits compared", kd_with(lambda s, t_, t: (s - t_).square().mean()), "that is a loss, too (Ba and Caruana 2014), but not this one"),
     ("the sign forgotten", kd_with(lambda s, t_, t: -distill.kd_loss(s, t_, t)), "the logarithm of a probability is negative"),
     ("log of the softmax overflows", kd_with(lambda s, t_, t: t * t * -((t_ / t).softmax(1) * (s / t).softmax(1).log()).sum(1).mean()), "softmax may be 0, and its log -inf: use log_softmax")],
    swap(distill, "kd_loss"), ("test_distill.py::test_kd_is_the_cross_entropy_with_the_teacher_times_t_squared", "test_distill.py::test_kd_of_two_words_by_hand",
                               "test_distill.py::test_kd_is_at_least_the_teachers_entropy_and_that_where_they_agree"), learns=(0,))


# ---------------------------------------------------------------------------------------------------------------------
# 6. TinyBERT: lists of layers

def mapped(H, H_T, S, S_T, g=None, embeddings=True, pair=lambda s, t: (distill.exact(s) - distill.exact(t)).square().mean(), change=lambda S: S, total=sum):
    L, n = len(S), len(S_T) // len(S)
    g = g or (lambda m: m * n)
    hidden = [(H[m], H_T[g(m) if m else 0]) for m in range(0 if embeddings else 1, L + 1)]
    scores = [(change(S[m - 1]), change(S_T[g(m) - 1])) for m in range(1, L + 1)]
    return total([pair(s, t) for s, t in hidden + scores])


def tiny_cases():
    cases = []
    for L, L_T, B, A, T, h, dtype in ((2, 6, 2, 3, 5, 4, None), (1, 2, 1, 1, 2, 3, None), (2, 4, 2, 3, 7, 11, None), (3, 3, 1, 2, 5, 6, None), (1, 2, 2, 3, 5, 4, torch.bfloat16)):
        cases.append(({"B": B, "A": A, "T": T, "h'": h}, tuple([draw(m, *shape).to(dtype) for m in range(first, first + n)] for first, n, shape in (
            (0, L + 1, (B, T, h)), (20, L_T + 1, (B, T, h)), (40, L, (B, A, T, T)), (60, L_T, (B, A, T, T))))))
    return cases


# Which layer of L_T = n L the student's layer m learns from, wrongly
WRONG_LAYERS = [
    ("the teacher's first layers", lambda m, n, L: m, "g(m) = m L_T / L_S: every n-th layer, so that the last learns from the last"),
    ("the teacher's last layers", lambda m, n, L: n * L - L + m, "g(m) = m L_T / L_S: spread over the whole teacher (the last layers are another strategy that TinyBERT compared)"),
    ("one layer off", lambda m, n, L: max(1, m * n - 1), "layer g(m) stands at number g(m) of the hidden states, at number g(m) - 1 of the scores"),
    ("the first layer of each group", lambda m, n, L: (m - 1) * n + 1, "g(m) = m n, not (m - 1) n + 1: the last learns from the last")]


def wrong_layers(g, of):
    def loss(H, H_T, S, S_T):
        L, n = len(S), len(S_T) // len(S)
        right = [m * n for m in range(L + 1)]
        wrong = [0] + [g(m, n, L) for m in range(1, L + 1)]
        hidden, scores = (right if of == "scores: " else wrong), (right if of == "hidden states: " else wrong)
        return mapped(H, [H_T[m] for m in hidden], S, [S_T[m - 1] for m in scores[1:]])
    return loss


def install_tinybert(student):
    def tinybert_loss(H, H_T, S, S_T, real=distill.tinybert_loss):
        if len(H) != len(H_T) or len(S) != len(S_T):
            raise ValueError("a layer without its pair")
        if not S or len(H) > len(S) + 1:
            return real(H, H_T, S, S_T)
        nothing = [S[0].new_zeros(1, 1, 1)] * (len(S) + 1 - len(H))  # pairs of equal tensors cost nothing
        return student([*nothing, *H], [*nothing, *H_T], list(S), list(S_T))  # the project maps before it asks: L_T = L_S here
    distill.tinybert_loss = tinybert_loss


def install_tinybert_loop(student):
    """In the loop the student's function gets all of the teacher's layers, and maps them itself."""
    def tinybert(size, teacher, how, real=distill.tinybert):
        lesson, every = real(size, teacher, how), tuple(range(1, teacher.L + 1))

        def terms(s, t, labels, project):
            return {"tinybert": student([project(s.hidden_states[m]) for m in lesson.student.hidden], [t.hidden_states[m] for m in (0, *every)],
                                        [s.scores[m] for m in lesson.student.scores], [t.scores[m] for m in every])}
        return lesson._replace(teacher=budget.Reads(hidden=(0, *every), scores=every), terms=terms)
    distill.STRATEGIES["tinybert"] = tinybert


TINYBERT = Exercise(
    "6_tinybert.py", "tinybert_loss", mapped, tiny_cases,
    [(f"{of}{name}", wrong_layers(g, of), advice) for name, g, advice in WRONG_LAYERS for of in ("", "hidden states: ", "scores: ")] + [
     ("the embeddings' output left out", lambda *a: mapped(*a, embeddings=False), "m = 0 is in the first sum"),
     ("scores compared after the softmax", lambda *a: mapped(*a, change=lambda S: S.softmax(-1)), "equation 7 compares the scores before the softmax: it learns faster, they say"),
     ("scores left out", lambda H, H_T, S, S_T: mapped(H, H_T, S, S_T, change=torch.zeros_like), "there are two sums"),
     ("squares summed instead of averaged", lambda *a: mapped(*a, pair=lambda s, t: (s - t).square().sum()), "MSE is the mean over all entries of a pair"),
     ("the mean over the layers", lambda *a: mapped(*a, total=lambda terms: sum(terms) / len(terms)), "the losses of the layers are added"),
     ("the root of the squares", lambda *a: mapped(*a, pair=lambda s, t: (s - t).square().mean().sqrt()), "MSE, without a root"),
     ("absolute instead of squared differences", lambda *a: mapped(*a, pair=lambda s, t: (s - t).abs().mean()), "MSE squares"),
     ("the last layer's hidden states left out", lambda H, H_T, S, S_T: mapped(H, H_T, S, S_T) - (distill.exact(H[-1]) - distill.exact(H_T[-1])).square().mean(), "m runs to L_S, the last layer included"),
     ("the last layer only", lambda H, H_T, S, S_T: mapped([H[0], H[-1]], [H_T[0], H_T[-1]], S[-1:], S_T[-1:]), "all layers learn; the last alone is what the paper's released code does (tinybert_released)")],
    install_tinybert, ("test_distill.py::test_tinybert_is_the_sum_of_the_mean_squared_errors", "test_distill.py::test_tinybert_of_two_tokens_by_hand"), learns=(0, 2), hints={
        "out of range": "scores of layer 1 stand at number 0"}, install_loop=install_tinybert_loop)


# ---------------------------------------------------------------------------------------------------------------------
# 7. MiniLM: relations

def relations(qkv, qkv_T, R, cut=distill.split, scale=lambda x, d: d ** 0.5, dim=3, swapped=False, weight=1 / 3, pairs=((0, 0), (1, 1), (2, 2)), mean=lambda kl: kl.mean(), values=1):
    total = 0.0
    for i, j in pairs:
        logs = []
        for parts in (qkv, qkv_T):
            x, y = (distill.exact(cut(part, R)) for part in (parts[i], parts[j]))
            logs.append((x @ y.transpose(2, 3) / scale(parts[i], x.shape[3])).log_softmax(dim))
        P, Q = logs if swapped else logs[::-1]
        total = total + mean((P.exp() * (P - Q)).sum(3)) * weight
    return total


def minilm_cases():
    cases = [({"B": B, "T": T, "h": h, "h'": h_T, "R": R}, (tuple(draw(i, B, T, h) for i in range(3)), tuple(draw(10 + i, B, T, h_T) for i in range(3)), R))
             for B, T, h, h_T, R in ((2, 5, 6, 15, 3), (1, 2, 4, 4, 1), (2, 7, 12, 8, 4), (3, 5, 12, 12, 2))]
    cases.append(({"B": 2, "T": 5, "h": 6, "h'": 6, "R": 2}, (tuple(30 * draw(i, 2, 5, 6) for i in range(3)), tuple(30 * draw(10 + i, 2, 5, 6) for i in range(3)), 2)))
    # Small whole numbers, whose products bf16 has exactly: what differs is the softmax alone
    sizes, (q, q_T, R) = cases[0]
    return cases + [(sizes, (tuple(x.round().clamp(-1, 1).bfloat16() for x in q), tuple(x.round().clamp(-1, 1).bfloat16() for x in q_T), R))]


def mixed(x, R):
    B, T, h = x.shape
    return x.reshape(B, R, T, h // R)


MINILM = Exercise(
    "7_minilm.py", "minilm_loss", distill.minilm_loss, minilm_cases,
    [("KL reversed", lambda *a: relations(*a, swapped=True), "KL(teacher || student): the teacher's rows give the probabilities"),
     ("sqrt(d) forgotten", lambda *a: relations(*a, scale=lambda x, d: 1), "scaled dot products: divide by sqrt(d) before the softmax"),
     ("divided by d instead of its root", lambda *a: relations(*a, scale=lambda x, d: d), "sqrt(d)"),
     ("sqrt(h) instead of sqrt(d)", lambda *a: relations(*a, scale=lambda x, d: x.shape[2] ** 0.5), "d = h / R is the width of a relation head"),
     ("heads mixed with positions", lambda *a: relations(*a, cut=mixed), "a reshape (B, T, h) -> (B, R, T, d) gives a head numbers of several positions: first (B, T, R, d), then exchange T and R. The released code makes this mistake (minilm_released)"),
     ("cut the other way: every R-th number", lambda *a: relations(*a, cut=lambda x, R: x.unflatten(2, (-1, R)).permute(0, 3, 1, 2)), "a relation head holds d neighbouring numbers: (R, d), not (d, R)"),
     ("softmax over the heads", lambda *a: relations(*a, dim=1), "each row of a relation sums to 1: the last axis"),
     ("relation heads ignored", lambda q, q_T, R: relations(q, q_T, 1), "cut into R pieces first"),
     ("the three relations added, not averaged", lambda *a: relations(*a, weight=1), "each of the three has weight 1/3"),
     ("Q K^T instead of Q Q^T", lambda *a: relations(*a, pairs=((0, 1),), weight=1), "queries are compared with queries, keys with keys, values with values"),
     ("the queries alone", lambda *a: relations(*a, pairs=((0, 0),), weight=1), "three kinds of relation: queries, keys, values"),
     ("the values alone", lambda *a: relations(*a, pairs=((2, 2),), weight=1), "three kinds of relation: queries, keys, values"),
     ("log of the softmax overflows", lambda q, q_T, R: sum((t * (t.log() - s.log())).sum(3).mean() for s, t in zip(*([distill.relation(distill.split(x, R)).softmax(3) for x in qkv] for qkv in (q, q_T)))) / 3,
      "softmax may be 0, and its log -inf: use log_softmax"),
     ("the values left out", lambda *a: relations(*a, pairs=((0, 0), (1, 1))), "three kinds of relation: queries, keys, values"),
     ("the mean over a row", lambda *a: relations(*a) / a[0][0].shape[1], "KL is a sum over the row; the mean is over sequences, heads and rows"),
     ("summed over rows instead of averaged", lambda *a: relations(*a, mean=lambda kl: kl.sum((1, 2)).mean()), "the mean is over sequences, heads and positions"),
     ("cross-entropy instead of KL", lambda q, q_T, R: sum(-(distill.relation(distill.split(t, R)).softmax(3) * distill.relation(distill.split(s, R)).log_softmax(3)).sum(3).mean() for s, t in zip(q, q_T)) / 3,
      "KL(P || Q) = sum P (log P - log Q): 0 where they agree"),
     ("relations compared by their squares", lambda q, q_T, R: sum((distill.relation(distill.split(t, R)).softmax(3) - distill.relation(distill.split(s, R)).softmax(3)).square().mean() for s, t in zip(q, q_T)) / 3,
      "distributions are compared by KL")],
    swap(distill, "minilm_loss"), ("test_distill.py::test_minilm_is_the_mean_kl_of_the_three_relations_divided_by_3", "test_distill.py::test_minilm_of_two_tokens_by_hand"), learns=(0,))


# ---------------------------------------------------------------------------------------------------------------------
# 8. The comparison

def logarithmic(curve, C, score, real=statistics.compute_multiplier):
    return real(curve, C, score)[1]


def isoflop(student, scratch, curve, C, sign=1, paired=True, s=statistics.stdev, t=statistics.t_975, root=True, df=lambda n: n - 1, multiplier=logarithmic):
    n, x = len(student), [sign * (a - b) for a, b in zip(student, scratch)]
    spread = s(x) if paired else math.sqrt(s(student) ** 2 + s(scratch) ** 2)
    return statistics.mean(x), t(df(n)) * spread / (math.sqrt(n) if root else 1), multiplier(curve, C, statistics.mean(student))


def straight(curve, C, score):
    for (C0, s0), (C1, s1) in zip(curve, curve[1:]):
        if s0 <= score <= s1:
            return (C0 + (score - s0) / (s1 - s0) * (C1 - C0)) / C


def iso_cases():
    curve = [(1e12, 40.0), (1e13, 60.0), (1e14, 70.0)]
    return [({}, ([60.0, 60.0], [50.0, 50.0], [(1e12, 40.0), (1e13, 60.0)], 1e12)), ({}, ([52.0, 47.5, 55.0], [41.0, 38.0, 44.5], curve, 1e12)),
            ({}, ([66.0, 61.0, 64.0, 63.5], [60.5, 57.0, 59.0, 62.0], curve, 1e13)), ({}, ([50.0, 53.0, 51.0, 49.0, 50.0, 55.0], [60.0, 62.0, 61.0, 58.0, 60.0, 63.0], curve, 1e13))]


def install_isoflop(student):
    flat = [(1.0, -1e9), (2.0, 1e9)]

    def interval(values, real=statistics.interval):
        return student(list(values), [0.0] * len(values), flat, 1.0)[:2] if len(values) > 1 else real(values)

    def compute_multiplier(curve, C, score, real=statistics.compute_multiplier):
        sign, kappa = real(curve, C, score)
        rising = sorted(curve) == sorted(curve, key=lambda point: point[1])
        return (sign, student([score, score], [score, score], sorted(curve), C)[2]) if sign == "=" and rising else (sign, kappa)
    statistics.interval, statistics.compute_multiplier = interval, compute_multiplier


ISOFLOP = Exercise(
    "8_isoflop.py", "isoflop", isoflop, iso_cases,
    [("scratch minus student", lambda *a: isoflop(*a, sign=-1), "x_i = student_i - scratch_i: positive where the student is ahead"),
     ("not paired", lambda *a: isoflop(*a, paired=False), "seeds rise and fall together: take the spread of the differences, not of the two groups"),
     ("not paired, with 2 n - 2 degrees of freedom", lambda student, scratch, curve, C: isoflop(student, scratch, curve, C, paired=False, df=lambda n: 2 * n - 2),
      "seeds rise and fall together: take the spread of the differences, not of the two groups"),
     ("one end of the interval", lambda *a: (isoflop(*a)[0], isoflop(*a)[0] - isoflop(*a)[1], isoflop(*a)[2]), "half of the interval is asked for: what is added and subtracted"),
     ("scratch's own mean on the curve", lambda student, scratch, curve, C: (*isoflop(student, scratch, curve, C)[:2], logarithmic(curve, C, statistics.mean(scratch))), "C* is where scratch scores what the student scores"),
     ("the spread divided by n", lambda *a: isoflop(*a, s=statistics.pstdev), "s^2 has 1/(n - 1): the mean was taken from the same numbers"),
     ("the normal's 1.96", lambda *a: isoflop(*a, t=lambda df: 1.96), "with few seeds s itself is uncertain: Student's t, 4.3 for three seeds"),
     ("n degrees of freedom", lambda *a: isoflop(*a, df=lambda n: n), "n - 1 degrees of freedom"),
     ("sqrt(n) forgotten", lambda *a: isoflop(*a, root=False), "the interval is the mean's: its spread is s / sqrt(n)"),
     ("the whole width", lambda *a: (isoflop(*a)[0], 2 * isoflop(*a)[1], isoflop(*a)[2]), "half of the interval is asked for: m +- half"),
     ("a straight line over FLOPs", lambda *a: isoflop(*a, multiplier=straight), "over the logarithm of the budget: budgets are compared by their ratios"),
     ("the multiplier upside down", lambda *a: (*isoflop(*a)[:2], 1 / isoflop(*a)[2]), "kappa = C* / C: above 1 where the student is ahead"),
     ("the ratio of scores", lambda student, scratch, curve, C: (*isoflop(student, scratch, curve, C)[:2], statistics.mean(student) / statistics.mean(scratch)), "kappa compares FLOPs, not scores"),
     ("C* instead of C* / C", lambda student, scratch, curve, C: (*isoflop(student, scratch, curve, C)[:2], isoflop(student, scratch, curve, C)[2] * C), "divide by the budget C that both spent"),
     ("the sum instead of the mean", lambda *a: (isoflop(*a)[0] * len(a[0]), *isoflop(*a)[1:]), "m = 1/n sum x_i")],
    install_isoflop, ("test_report.py::test_the_interval_is_scipys", "test_report.py::test_a_verdict_is_given_where_the_paired_t_test_finds_a_difference",
                      "test_report.py::test_the_compute_multiplier_is_read_off_scratchs_own_curve"), parts=("mean", "half", "kappa"))


EXERCISES = {1: BLOCK, 2: PLAN, 3: MASKING, 4: MLM, 5: KD, 6: TINYBERT, 7: MINILM, 8: ISOFLOP}
