"""The bill of a training step is what torch counts, to the integer, and a plan never spends more
than its budget."""
import json
import random
import re
from fractions import Fraction

from program import cli
from program.cli import UserError

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import budget
import distill
from budget import Size
from distill import Lesson, Reads
from model import Bert, BertConfig
from train import Learner

# --------------------------------------------------------------------------------------------------
# The formula


def random_case(seed):
    """A small size and (V, T, B). Odd numbers are as good as any: 7 heads of 5, a feed-forward
    narrower than h, one sequence."""
    draw = random.Random(seed).randint
    A = draw(1, 7)
    size = Size(draw(1, 3), A * draw(1, 11), A, draw(1, 90))
    return size, draw(6, 300), draw(4, 60), draw(1, 4)


def counted(step):
    """What torch counts while `step` runs.

    Attention runs as its mathematics, two products forward and four backward, for that is what the
    formula charges. The flash kernels compute Q K^T once more in their backward pass, and the
    counter charges it: five products rather than four. The fused CPU kernel is unknown to the
    counter, and would be charged nothing."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def random_batch(V, T, B):
    """ids (B, T), and k positions of each sequence in the flattened batch, with their labels. k is
    15%, as in the paper."""
    k = int(0.15 * T + 0.5)
    positions = torch.cat([b * T + torch.randperm(T)[:k] for b in range(B)])
    return torch.randint(V, (B, T)), positions, torch.randint(V, (B * k,))


@pytest.mark.parametrize("seed", range(12))
def test_a_step_costs_what_torch_counts(seed):
    size, V, T, B = random_case(seed)
    ids, positions, labels = random_batch(V, T, B)
    model = Bert(BertConfig.of(size, vocab_size=V)).train()

    def step():
        logits = model(ids, torch.ones_like(ids), positions=positions).logits
        F.cross_entropy(logits, labels).backward()
    assert counted(step) == budget.step_flops(size, V, T, B)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("seed", range(100, 104))
def test_a_step_of_transformers_bert_costs_the_same(seed, attention):
    size, V, T, B = random_case(seed)
    ids, positions, labels = random_batch(V, T, B)
    model = transformers.BertForMaskedLM(transformers.BertConfig(
        vocab_size=V, hidden_size=size.h, num_hidden_layers=size.L, num_attention_heads=size.A,
        intermediate_size=size.f, attn_implementation=attention)).train()

    def step():  # the encoder everywhere, the head at the masked positions only
        hidden = model.bert(ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        F.cross_entropy(model.cls(hidden.flatten(0, 1)[positions]), labels).backward()
    assert counted(step) == budget.step_flops(size, V, T, B)


PAIRS = [("2x64", "4x64"), ("1x64", "2x128h1"), ("2x48h3f50", "4x60h3"), ("3x64", "3x64")]


@pytest.mark.parametrize("student, teacher", PAIRS)
@pytest.mark.parametrize("strategy", distill.STRATEGIES)
def test_every_strategys_step_costs_what_torch_counts(strategy, student, teacher):
    # Student and teacher, the products inside the loss, the projection: forward and backward, as
    # deep as they are read.
    S, S_T, V, T, B = budget.size(student), budget.size(teacher), 90, 20, 2
    lesson = distill.lesson(strategy, S, S_T)
    ids, positions, labels = random_batch(V, T, B)
    model, teacher_model = (Bert(BertConfig.of(one, vocab_size=V)) for one in (S, S_T))
    learner = Learner(model, lesson, teacher_model)

    def step():
        sum(learner(ids, ids, positions, labels).values()).backward()

    def whole_step():
        # What the released code computes: both passes to their end with both heads, which the loss
        # does not read. Here it reads them with a weight of 0, so that backward runs them, too.
        student, teacher = lesson.charged()
        s = model(ids, positions=positions, reads=student)
        with torch.no_grad():
            t = teacher_model(ids, positions=positions, reads=teacher)
        terms = lesson.terms(s, t, labels, learner.projection)
        (sum(terms.values()) + 0 * s.logits.sum()).backward()
    whole_step = whole_step if lesson.whole else step
    assert counted(whole_step) == budget.step_flops(S, V, T, B, lesson, S_T)


def test_a_strategy_of_ones_own_is_priced_by_what_it_declares():
    # The hidden states of a layer and of the embeddings: 1 of the student's layers, 2 of the
    # teacher's, and no head.
    lesson = Lesson(Reads(hidden=(0, 1)), Reads(hidden=(0, 2)), None, False)
    layer = 24 * 20 * 64 ** 2 + 4 * 20 ** 2 * 64  # T = 20, h = 64, f = 4h: 24 T h^2 + 4 T^2 h
    assert budget.bill(budget.size("3x64"), 90, 20, lesson, budget.size("4x64")) == {
        "student_forward": layer, "student_backward": 2 * layer, "teacher_forward": 2 * layer,
        "loss": 0}


@pytest.mark.parametrize("reads, depth", [
    (Reads(logits=True), (6, 6, 6)),
    (Reads(hidden=(0, 4)), (4, 4, 4)),
    (Reads(hidden=(2,), scores=(5,)), (5, 5, 4)),
    (Reads(qkv=(6,)), (6, 5, 5)),
    (Reads(qkv=(3,), scores=(3,)), (3, 3, 2)),
    (Reads(hidden=(0,)), (0, 0, 0)),
    (Reads(qkv=(6,), logits=True), (6, 6, 6)),
    (Reads(qkv=(6,), hidden=(6,)), (6, 6, 6))])
def test_a_pass_ends_where_nothing_more_is_read(reads, depth):
    assert reads.depth(6) == depth


BASE_PAIR = ["--model", "6x768", "--teacher", "12x768", "--flops", "1e17"]


def test_the_papers_shares_of_scratchs_tokens(python):
    # A 6-layer student and BERT-base, T = 128: KD buys 61% of scratch's tokens, TinyBERT 65%.
    rows = json.loads(python("budget.py", *BASE_PAIR, "--json").stdout)["strategies"]
    assert rows["kd"]["share_of_scratch_tokens"] == pytest.approx(0.61, abs=0.005)
    assert rows["tinybert"]["share_of_scratch_tokens"] == pytest.approx(0.65, abs=0.005)
    assert rows["kd"]["flops_per_token"] == pytest.approx(4.65e8, rel=2e-3)
    assert rows["tinybert"]["flops_per_token"] == pytest.approx(4.36e8, rel=2e-3)
    assert rows["scratch"]["share_of_scratch_tokens"] == 1
    # The released code runs both passes whole whatever its loss reads: all its methods cost what
    # KD costs, but for the products in the loss.
    for name in ("kd-released", "tinybert-released", "minilm-released"):
        without_loss = rows[name]["flops_per_token"] - rows[name]["loss_per_token"]
        assert without_loss == rows["kd"]["flops_per_token"]


def test_the_teachers_training_is_shared_by_its_students(python):
    # With C_T = 1e17 for 4 students, scratch may spend 1.25e17 where KD spends 1e17: 61% / 1.25.
    line = ["budget.py", *BASE_PAIR, "--teacher-flops", "1e17", "--students", "4"]
    row = json.loads(python(*line, "--json").stdout)["strategies"]["kd"]
    expected = row["share_of_scratch_tokens"] / 1.25
    assert row["share_with_teacher_training"] == pytest.approx(expected, rel=1e-3)
    assert "2.50e16 for each of 4 students" in python(*line).stdout


def test_a_finish_of_another_price_is_planned_into_the_budget():
    plan = budget.plan(1_000_000, 70, 4, 8, finish=(0.1, 30))
    assert plan.finish_steps == 3333 and plan.steps == 3333 + (1_000_000 - 99_990) // 70
    assert plan.flops_spent == plan.spent(plan.steps) <= 1_000_000 < plan.flops_spent + 70
    assert plan.spent(10) == 700 and plan.spent(plan.steps - 1) == plan.flops_spent - 30


def test_bert_base_by_hand():
    # A layer at h = 768, f = 3072, T = 128: 24 T h^2 = 1,811,939,328 for the weights, and
    # 4 T^2 h = 50,331,648 for attention: 1,862,270,976 together.
    # The head at k = 19: 19 (2 * 768^2 + 2 * 768 * 30522) = 913,167,360.
    # The whole: 12 * 1,862,270,976 + 913,167,360 =
    forward, base = 23_260_419_072, Size(12, 768, 12, 3072)
    assert sum(cost for _, _, cost in budget.forward_flops(base, 30522, 128)) == forward
    assert budget.step_flops(base, 30522, 128, 1) == 3 * forward
    assert budget.step_flops(base, 30522, 128, 256) == 256 * 3 * forward
    # With 15% of 128 unrounded, 19.2 positions, one gets the usual 2.327e10 and 6.981e10: k is 1%
    # less, and a step 0.04%.
    assert forward == pytest.approx(2.327e10, rel=1e-3)
    assert 3 * forward == pytest.approx(6.981e10, rel=1e-3)


def test_six_layers_cost_283_million_a_token():
    # 3 (6 * 1,862,270,976 + 913,167,360) / 128, the numbers of the test above
    assert budget.step_flops(budget.size("6x768"), 30522, 128, 1) / 128 == 283_284_216


def test_15_percent_are_masked_rounded_half_up():
    assert budget.masked_positions(128) == 19  # 19.2
    assert budget.masked_positions(32) == 5    # 4.8
    assert budget.masked_positions(10) == 2    # 1.5: half goes up
    for T in range(1, 4097):
        assert budget.masked_positions(T) == int(Fraction(15, 100) * T + Fraction(1, 2))


def test_int_of_0_15_T_plus_a_half_never_falls_short():
    # 0.15 is a little less than 15/100 in binary. So at T = 10, 30, 50, ..., where 0.15 T + 0.5 is
    # a whole number, the expression might come out one too small. Up to 4096 it nowhere does: who
    # writes k that way gets the same steps.
    assert Fraction(0.15) < Fraction(15, 100)
    assert all(budget.masked_positions(T) == int(0.15 * T + 0.5) for T in range(1, 4097))


# --------------------------------------------------------------------------------------------------
# Sizes


@pytest.mark.parametrize("text, expected", [
    ("2x128", (2, 128, 2, 512)),
    ("6x768", (6, 768, 12, 3072)),
    ("12x768", (12, 768, 12, 3072)),
    ("4x64h4", (4, 64, 4, 256)),
    ("4x312h12f1200", (4, 312, 12, 1200)),
    ("3x128f100", (3, 128, 2, 100)),
    (" 2x128 ", (2, 128, 2, 512)),
])
def test_a_size_is_read_as_written(text, expected):
    assert budget.size(text) == Size(*expected)


def test_a_size_survives_being_written():
    draw = random.Random(0)
    for _ in range(2000):
        A, width = draw.randint(1, 24), draw.choice([64, draw.randint(1, 99)])
        h = A * width
        written = Size(draw.randint(1, 48), h, A, draw.choice([4 * h, draw.randint(1, 9999)]))
        assert budget.size(str(written)) == written


def test_the_usual_sizes_are_written_short():
    assert str(Size(2, 128, 2, 512)) == "2x128"
    assert str(Size(6, 768, 12, 3072)) == "6x768"
    assert str(Size(4, 312, 12, 1200)) == "4x312h12f1200"
    assert str(Size(4, 64, 4, 256)) == "4x64h4"


@pytest.mark.parametrize("text", [
    "", "6", "x", "6x", "x768", "6*768", "-6x768", "6x768h", "6x768f", "6x768f3072h12", "6x76.8",
    "0x768", "6x0", "6x768h0", "6x768f0", "6x768h7", "6x100", "6x7680000", "٦x768", "6x768 12"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UserError):
        budget.size(text)


@pytest.mark.parametrize("h", [32, 96, 100, 300, 312, 700, 1000, 1023])
def test_the_size_that_an_error_recommends_is_a_size(h):
    with pytest.raises(UserError) as refusal:
        budget.size(f"4x{h}")  # no multiple of 64: how many heads?
    recommended = re.search(r"like (\S+)$", str(refusal.value))[1]
    assert budget.size(recommended).h == h


def test_encoder_parameters_are_the_weights_of_transformers_linear_layers():
    config = transformers.BertConfig(hidden_size=36, num_hidden_layers=3, num_attention_heads=4,
                                     intermediate_size=50)
    encoder = transformers.BertModel(config, add_pooling_layer=False).encoder
    linear = [module for module in encoder.modules() if isinstance(module, torch.nn.Linear)]
    weights = sum(module.weight.numel() for module in linear)
    assert Size(3, 36, 4, 50).encoder_parameters == weights


# --------------------------------------------------------------------------------------------------
# Plans


def test_a_plan_is_whole_steps_within_the_budget_and_less_than_one_step_below_it():
    draw = random.Random(0)
    for _ in range(2000):
        cost = draw.randint(1, 10 ** draw.randint(1, 15))
        B, T = draw.randint(1, 512), draw.randint(4, 512)
        C = cost + draw.randint(0, 10 ** draw.randint(1, 20))
        plan = budget.plan(C, cost, B, T)
        assert type(plan.steps) is int and plan.steps >= 1
        assert plan.flops_spent == plan.steps * cost
        assert plan.flops_spent <= C < plan.flops_spent + cost
        assert plan.tokens == plan.steps * B * T


def test_a_budget_of_exactly_n_steps_buys_n_even_where_floats_cannot_tell():
    cost = 10 ** 17 + 1  # no float: 3e17 // cost would buy 3 steps of it, one unit too dear
    assert budget.plan(3 * cost, cost, 1, 1).steps == 3
    assert budget.plan(3 * cost - 1, cost, 1, 1).steps == 2


def test_epochs_are_tokens_over_the_tokens_there_are():
    assert budget.plan(1000, 10, 4, 25, unique_tokens=4000).epochs == 2.5  # 100 steps of 100 tokens
    # Text without an end is never repeated.
    assert budget.plan(1000, 10, 4, 25).epochs == 0.0


@pytest.mark.parametrize("C", [1, 99])
def test_a_budget_below_one_step_is_refused(C):
    with pytest.raises(UserError, match="below one step"):
        budget.plan(C, 100, 1, 8)


@pytest.mark.parametrize("C", [10 ** e for e in (1, 9, 12, 13, 14, 15, 16, 17, 19, 21)])
@pytest.mark.parametrize("V, T", [(30522, 128), (4096, 32)])
def test_the_chosen_student_is_the_largest_that_sees_20_tokens_a_parameter(C, V, T):
    k, chosen = int(0.15 * T + 0.5), budget.LADDER[0]
    for L, h, A, f in budget.LADDER:
        layer = 8 * T * h * h + 4 * T * T * h + 4 * T * h * f
        a_token = 3 * (L * layer + k * (2 * h * h + 2 * h * V)) / T
        if C / a_token >= 20 * L * (4 * h * h + 2 * h * f):
            chosen = Size(L, h, A, f)
    assert budget.choose(C, V, T) == chosen


@pytest.mark.parametrize("smaller, larger", list(zip(budget.LADDER, budget.LADDER[1:])))
def test_one_flop_below_20_tokens_a_parameter_buys_the_rung_below(smaller, larger):
    (L, h, _, f), T, k, V = larger, 100, 15, 1000
    layer = 8 * T * h * h + 4 * T * T * h + 4 * T * h * f
    sequence = 3 * (L * layer + k * (2 * h * h + 2 * h * V))
    enough = -(-20 * L * (4 * h * h + 2 * h * f) // 100) * sequence  # whole sequences, rounded up
    assert budget.choose(enough, 1000, 100) == larger
    assert budget.choose(enough - 1, 1000, 100) == smaller


def test_the_ladder_climbs():
    parameters = [size.encoder_parameters for size in budget.LADDER]
    assert parameters == sorted(set(parameters))


# --------------------------------------------------------------------------------------------------
# How numbers are written


@pytest.mark.parametrize("n, text", [
    (0, "0"), (7, "7"), (999, "999"), (12345, "1.23e4"), (6_981_000_000, "6.98e9"),
    (10 ** 17, "1.00e17"), (10 ** 30, "1.00e30"), (283284216.5, "2.83e8")])
def test_flops_have_three_digits(n, text):
    assert cli.flops(n) == text


def test_flops_are_written_one_way_and_read_back_within_half_a_percent():
    for n in [*range(1, 20000, 7), *(random.Random(0).randint(1, 10 ** e) for e in range(4, 31))]:
        text = cli.flops(n)
        # 42 or 5000, and 1.23e4: never 5e+03
        assert re.fullmatch(r"\d{1,4}|\d\.\d\de[1-9]\d?", text), text
        assert float(text) == pytest.approx(n, rel=0.0051)


@pytest.mark.parametrize("seconds, text", [
    (0.04, "0.0 s"), (3.21, "3.2 s"), (42, "42 s"), (60, "1 min 0 s"), (185, "3 min 5 s"),
    (3599, "59 min 59 s"), (3600, "1 h 0 min"), (26400, "7 h 20 min"), (47 * 3600, "47 h 0 min"),
    (48 * 3600, "2 days 0 h"), (12 * 86400 + 3 * 3600, "12 days 3 h"),
    (400 * 86400, "400 days 0 h"), (1900 * 365.25 * 86400, "1,900 years")])
def test_durations_in_words(seconds, text):
    assert cli.duration(seconds) == text


# --------------------------------------------------------------------------------------------------
# The program


def test_json_is_one_object_on_stdout(python):
    done = python("budget.py", "--model", "6x768", "--flops", "1e15", "--batch-size", "2",
                  "--rate", "1e12", "--json")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("\n") == 1
    printed = json.loads(done.stdout)
    scratch = printed["strategies"]["scratch"]
    step = 2 * 128 * 283_284_216  # the hand number from above
    assert scratch["flops_per_step"] == step == 72_520_759_296
    assert scratch["flops_per_token"] == 283_284_216
    assert scratch["steps"] == 13_789                  # 1e15 / 72,520,759,296 = 13,789.2
    assert scratch["tokens"] == 13_789 * 2 * 128
    assert scratch["flops_spent"] == 13_789 * 72_520_759_296
    assert scratch["seconds"] == pytest.approx(1000, rel=1e-3)
    assert sum(scratch["components"].values()) * 3 * 2 == step


def test_the_tables_rows_add_up(python):
    done = python("budget.py", "--model", "12x768", "--flops", "1e18")
    assert done.returncode == 0 and done.stderr == ""
    rows = re.findall(r"^(.*?) +([\d,]{4,}) +([\d.]+)%$", done.stdout, re.MULTILINE)
    costs = [int(cost.replace(",", "")) for _, cost, _ in rows]
    shares = [float(share) for _, _, share in rows]
    # Five rows of a layer, two of the head, and their sum.
    assert len(rows) == 8 and rows[-1][0].startswith("forward")
    assert sum(costs[:-1]) == costs[-1] == 23_260_419_072            # BERT-base by hand
    assert shares[-1] == 100.0
    assert sum(shares[:-1]) == pytest.approx(100, abs=0.05 * 7)      # seven, each rounded to 0.1
    for cost, share in zip(costs, shares):
        assert share == pytest.approx(100 * cost / costs[-1], abs=0.051)


def test_the_table_multiplies_out(python):
    """Each formula in the table, evaluated as it is printed, gives the number beside it."""
    done = python("budget.py", "--model", "4x312h12f1200", "--vocab-size", "1001",
                  "--seq-len", "36")
    symbols = {"L": 4, "h": 312, "f": 1200, "V": 1001, "T": 36, "k": 5}
    rows = re.findall(r"^.{24} (\S.*?)  +([\d,]+) +[\d.]+%$", done.stdout, re.MULTILINE)[:-1]
    assert len(rows) == 7
    for formula, cost in rows:
        # 2 k h^2 -> 2 * k * h**2
        product = re.sub(r"(?<=[\w)]) (?=\w)", " * ", formula).replace("^", "**")
        assert eval(product, symbols) == int(cost.replace(",", "")), formula


@pytest.mark.parametrize("arguments", [
    ["--model", "6*768"], ["--model", "2x100"], ["--flops", "many"], ["--flops", "-1e15"],
    ["--flops", "nan"], ["--flops", "1e31"], ["--flops", "1e6", "--model", "6x768"],
    ["--flops", "1e6", "--model", "6x768", "--json"], ["--vocab-size", "0"], ["--seq-len", "1.5"],
    ["--batch-size", "0"], ["--rate", "0"], ["--flop", "1e15"], ["--colour", "red"], ["surplus"],
    ["--model"]])
def test_a_bad_value_ends_in_one_line_and_status_2(python, arguments):
    done = python("budget.py", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert done.stderr.count("error: ") == 1 and "Traceback" not in done.stderr


def test_importing_budget_does_not_import_torch(python):
    # The bill is arithmetic: it prints at once, and on a machine that has no torch.
    done = python("-c", "import sys, budget; print('torch' in sys.modules, 'numpy' in sys.modules)")
    assert done.stdout == "False False\n"
