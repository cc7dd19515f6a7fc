"""learner.py: a student and its teacher on one batch; the teacher stays as it is, and the student comes closer to it."""
from plumbing import disk

import pytest
import torch

import distill
from budget import size
from distill import lesson
from model import Bert, BertConfig
from train import PLAIN, Learner, adamw, copied_layers, copy_teacher

V, T, B = 40, 12, 8


def bert(model, seed=0, **options):
    torch.manual_seed(seed)
    return Bert(BertConfig.of(size(model), vocab_size=V, max_position_embeddings=16, hidden_dropout_prob=0.0,
                              attention_probs_dropout_prob=0.0), **options)


def batch(seed):
    """blocks, inputs, positions, labels of random words; 2 of each block's 12 are masked by word 4."""
    draw = torch.Generator().manual_seed(seed)
    blocks = torch.randint(5, V, (B, T), generator=draw)
    positions = torch.arange(B).repeat_interleave(2) * T + torch.tensor([3, 7]).repeat(B)
    inputs = blocks.flatten().index_fill(0, positions, 4).view(B, T)
    return blocks, inputs, positions, blocks.flatten()[positions]


@pytest.mark.parametrize("name", [name for name in distill.STRATEGIES if name != "scratch"])
def test_no_gradient_reaches_the_teacher_and_dropout_is_off_in_it(name):
    teacher = bert("2x64", 1)
    for module in teacher.modules():
        if hasattr(module, "hidden_dropout"):
            module.hidden_dropout = 0.5
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    learner = Learner(bert("1x64"), lesson(name, size("1x64"), size("2x64")), teacher).train()
    optimizer = adamw(learner)
    first = learner(*batch(0))
    assert all(torch.equal(first[key], value) for key, value in learner(*batch(0)).items())  # twice the same: no dropout
    for step in range(3):
        sum(learner(*batch(step)).values()).backward()
        optimizer.step()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert not any("teacher" in key or "others" in key for key in learner.state_dict())


@pytest.mark.parametrize("name, student", [("kd", "1x64"), ("tinybert", "2x32h1"), ("minilm", "2x32h1"), ("minilm-v1", "2x32h1")])
def test_a_student_comes_closer_to_its_teacher_than_it_was_and_than_scratchs(name, student):
    # Random words have no structure to learn but the teacher's own: what the student gains, it has from the teacher.
    teacher = bert("2x64", 1)
    taught = lesson(name, size(student), size("2x64"))
    distance = {}
    for how in (taught, PLAIN):
        learner = Learner(bert(student), taught, teacher).train()
        optimizer = torch.optim.AdamW(learner.parameters(), lr=2e-3)

        def measured():
            with torch.no_grad():
                terms = learner(*batch(10 ** 6), taught)
            return list(terms.values())[-1].item()  # the distillation term: kd's, after mlm's
        before = measured()
        for step in range(200):
            sum(learner(*batch(step), how).values()).backward()
            optimizer.step()
            optimizer.zero_grad()
        distance[how] = measured()
        assert how is PLAIN or distance[how] < before - 1e-6
    assert distance[taught] < distance[PLAIN]


def test_the_projection_is_trained_and_not_saved_with_the_student(tmp_path):
    learner = Learner(bert("2x32h1"), lesson("tinybert", size("2x32h1"), size("2x64")), bert("2x64", 1)).train()
    before = learner.projection.weight.clone()
    assert before.shape == (64, 32)
    sum(learner(*batch(0)).values()).backward()
    adamw(learner).step()
    assert not torch.equal(before, learner.projection.weight)
    learner.model.save_pretrained(tmp_path)
    assert not any("projection" in key for key in disk.load_tensors(tmp_path / "model.safetensors")[0])


def test_minilm_leaves_the_last_layers_feed_forward_and_output_projection_alone():
    student = bert("2x64", mlm_head=False)
    sum(Learner(student, lesson("minilm", size("2x64"), size("2x64")), bert("2x64", 1))(*batch(0)).values()).backward()
    untouched = {name for name, p in student.named_parameters() if p.grad is None}
    assert untouched == {f"layers.1.{part}.{kind}" for part in ("attention_output", "attention_norm", "feed_forward_in", "feed_forward_out",
                                                                "output_norm") for kind in ("weight", "bias")}


def test_students_of_all_strategies_begin_with_the_same_weights():
    states = [bert("2x64", 5, mlm_head=head) for head in (True, False)]
    for model in states:
        torch.manual_seed(7)
        model.initialise(model)
    with_head, without = (model.state_dict() for model in states)
    assert all(torch.equal(value, with_head[key]) for key, value in without.items()) and len(without) < len(with_head)


def test_twelve_layers_give_six_as_in_distilberts_script():
    # transformers' examples/research_projects/distillation/scripts/extract_distilbert.py copies layers 0, 2, 4, 7, 9, 11, counted from 0.
    assert [m - 1 for m in copied_layers(6, 12)] == [0, 2, 4, 7, 9, 11]
    assert copied_layers(4, 4) == [1, 2, 3, 4] and copied_layers(1, 4) == [1]


def test_init_teacher_copies_layers_embeddings_and_head():
    teacher, student = bert("4x64", 1), bert("2x64")
    copy_teacher(student, teacher)
    assert torch.equal(student.layers[1].qkv.weight, teacher.layers[3].qkv.weight)
    assert torch.equal(student.layers[0].output_norm.bias, teacher.layers[0].output_norm.bias)
    assert torch.equal(student.mlm_head.transform.weight, teacher.mlm_head.transform.weight)
    x = batch(0)[0]
    copy_teacher(whole := bert("4x64"), teacher)
    assert torch.equal(whole.eval()(x).logits, teacher.eval()(x).logits)  # as many layers: the teacher itself


def test_a_bf16_teacher_gives_what_autocast_gives():
    x, (teacher, rounded) = batch(0), (bert("2x64", 1), bert("2x64", 1))
    learners = [Learner(bert("1x64"), lesson("kd", size("1x64"), size("2x64")), model, dtype) for model, dtype in
                ((teacher, "fp32"), (rounded, "bf16"))]
    with torch.autocast("cpu", torch.bfloat16):
        first, second = (learner.eval()(*x)["kd"].item() for learner in learners)
    assert first == second and rounded.layers[0].qkv.weight.dtype == torch.bfloat16


def test_the_strategy_of_ones_own_in_the_docstring_trains():
    # The ten lines that distill.py shows, run as they stand there.
    lines = distill.__doc__.split("compared like the others:\n\n")[1].split("\n\nNothing of torch")[0]
    scope = {**vars(distill), "STRATEGIES": {}}
    exec("\n".join(line[4:] for line in lines.splitlines()), scope)
    taught = scope["STRATEGIES"]["last-layer"](size("2x32h1"), size("3x64"), distill.Options())
    learner = Learner(bert("2x32h1", mlm_head=False), taught, bert("3x64", 1)).train()
    optimizer, losses = torch.optim.AdamW(learner.parameters(), lr=1e-3), []
    for step in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            terms = learner(*batch(0))
        losses.append(sum(terms.values()))
        losses[-1].backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0] and losses[0].dtype == torch.float32


def test_validation_is_the_mean_over_all_masked_words_whatever_the_portions():
    import contextlib
    learner = Learner(bert("2x64"), PLAIN)
    blocks, inputs, positions, labels = batch(0)
    labels[3:9] = -100
    with torch.no_grad():
        logits = learner.model(inputs).logits.flatten(0, 1)[positions]
    expected = torch.nn.functional.cross_entropy(logits, labels).item()
    for rows in (1, 3, 8):
        assert learner.validate((blocks, inputs, positions, labels), contextlib.nullcontext, rows=rows)["mlm"] == pytest.approx(expected, rel=1e-5)
