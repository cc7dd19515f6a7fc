"""model.py: our BERT is transformers' BERT. It gives the same numbers and the same gradients."""
import math

from program.cli import UserError

import pytest
import torch
import torch.nn.functional as F
import transformers
from peers import batch, peer, randomise, same

from budget import Size
from distill import Reads
from model import Bert, BertConfig


@pytest.fixture
def folder(tmp_path):
    """A folder with a BertForMaskedLM, saved by transformers."""
    peer().save_pretrained(tmp_path)
    return tmp_path


# --------------------------------------------------------------------------------------------------
# The same numbers


@pytest.mark.parametrize("seed", range(5))
@torch.no_grad()
def test_hidden_states_and_logits_are_transformers(tmp_path, seed):
    theirs = peer(seed)
    theirs.save_pretrained(tmp_path)
    ours = Bert.from_pretrained(tmp_path)
    ids, mask, types = batch(theirs.config, seed)
    expected, got = theirs(ids, mask, types, output_hidden_states=True), ours(ids, mask, types)
    real = mask.bool()  # what a model computes at padding is nobody's concern
    assert len(expected.hidden_states) == theirs.config.num_hidden_layers + 1
    assert len(got.hidden_states) == len(expected.hidden_states)
    for a, b in zip(got.hidden_states, expected.hidden_states):
        same(a[real], b[real])
    same(got.logits[real], expected.logits[real])
    assert torch.equal(got.last_hidden_state, got.hidden_states[-1])
    assert got.pooler_output is None


@torch.no_grad()
def test_without_mask_and_types_all_are_tokens_of_type_0(folder):
    theirs, ours = peer(), Bert.from_pretrained(folder)
    ids, _, _ = batch(theirs.config)
    same(ours(ids).logits, theirs(ids).logits)


def test_attention_written_out_in_bf16_is_the_fused_one(folder, monkeypatch):
    """On a CPU ours takes the faster of two ways. Transformers' fused one (sdpa) agrees within what
    bf16 resolves."""
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    ours = Bert.from_pretrained(folder)
    ids, mask, types = batch(theirs.config)
    fused = F.scaled_dot_product_attention

    def fused_in_fp32_only(Q, *others, **options):
        assert Q.dtype != torch.bfloat16, "fused"
        return fused(Q, *others, **options)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with monkeypatch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", fused_in_fp32_only)
            x = ours(ids, mask, types).last_hidden_state.float()
        y = theirs.bert(ids, mask, types).last_hidden_state.float()
    assert (x - y)[mask.bool()].abs().max() < 0.1 * y[mask.bool()].std()


def test_gradients_are_transformers(folder):
    theirs, ours = peer(), Bert.from_pretrained(folder)
    # No padding: transformers' embedding of [PAD] takes no gradient.
    ids = batch(theirs.config)[0].clamp(min=1)
    labels = ids.flip(1)
    F.cross_entropy(theirs(ids).logits.flatten(0, 1), labels.flatten()).backward()
    F.cross_entropy(ours(ids).logits.flatten(0, 1), labels.flatten()).backward()
    layer, own = theirs.bert.encoder.layer[1], ours.layers[1]
    embeddings, head = theirs.bert.embeddings, theirs.cls.predictions
    for got, expected in [
            (ours.embeddings.word_embeddings, embeddings.word_embeddings),  # tied: both uses
            (ours.embeddings.position_embeddings, embeddings.position_embeddings),
            (own.feed_forward_in, layer.intermediate.dense),
            (ours.mlm_head.transform, head.transform.dense)]:
        same(got.weight.grad, expected.weight.grad)
    same(own.output_norm.bias.grad, layer.output.LayerNorm.bias.grad)
    same(ours.mlm_head.bias.grad, head.bias.grad)
    attention = layer.attention.self
    parts = (attention.query, attention.key, attention.value)
    same(own.qkv.weight.grad, torch.cat([part.weight.grad for part in parts]))


@torch.no_grad()
def test_logits_at_positions_are_rows_of_all_logits(folder):
    ours = Bert.from_pretrained(folder)
    V = ours.config.vocab_size
    ids, mask, types = batch(ours.config)
    positions = torch.tensor([0, 79, 17, 17, 40])  # of 5 * 16 tokens: any order, and twice the same
    everywhere = ours(ids, mask, types).logits
    chosen = ours(ids, mask, types, positions=positions).logits
    assert everywhere.shape == (5, 16, V) and chosen.shape == (5, V)
    same(chosen, torch.stack([everywhere[p // 16, p % 16] for p in positions.tolist()]))


@torch.no_grad()
def test_scores_are_what_transformers_makes_its_attention_of(folder):
    eager = {"attn_implementation": "eager"}  # only this way returns the attention
    theirs = transformers.AutoModel.from_pretrained(folder, **eager).eval()
    ours = Bert.from_pretrained(folder)
    L = ours.config.num_hidden_layers
    ids = torch.randint(ours.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    attention = theirs(ids, attention_mask=mask, output_attentions=True).attentions
    output = ours(ids, mask, reads=Reads(hidden=(L,), scores=tuple(range(1, L + 1))))
    usual = ours(ids, mask)
    for m in range(1, L + 1):
        S = output.scores[m].masked_fill(mask[:, None, None, :] == 0, -math.inf)
        torch.testing.assert_close(S.softmax(dim=3), attention[m - 1], atol=1e-5, rtol=1e-4)
        # Whether the scores are written out or the kernel is fused, the hidden states are the same.
        torch.testing.assert_close(output.hidden_states[m], usual.hidden_states[m], atol=1e-5,
                                   rtol=1e-4)
    assert output.logits is None and usual.scores == {}


@torch.no_grad()
def test_queries_keys_and_values_are_those_of_transformers_layer(folder):
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    ours = Bert.from_pretrained(folder)
    ids = torch.randint(ours.config.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    x = theirs(ids, output_hidden_states=True).hidden_states[1]
    attention = theirs.encoder.layer[1].attention.self
    output = ours(ids, reads=Reads(qkv=(2,), relations=3))
    for own, their in zip(output.qkv[2], (attention.query, attention.key, attention.value)):
        torch.testing.assert_close(own, their(x), atol=1e-5, rtol=1e-4)
    # It stopped inside layer 2.
    assert output.last_hidden_state is None and len(output.hidden_states) == 3


def test_what_stands_at_padding_changes_nothing(folder):
    ours = Bert.from_pretrained(folder)
    ids, mask, types = batch(ours.config)
    real = mask.bool()
    other = torch.where(real, ids, 7)
    assert torch.equal(ours(ids, mask, types).logits[real], ours(other, mask, types).logits[real])
    # Without a mask it does change something.
    first, second = ours(ids, None, types).logits, ours(other, None, types).logits
    assert not torch.equal(first[real], second[real])
    # Row 1 has 9 tokens and 7 of padding. Alone and without padding it gives the same.
    alone = ours(ids[1:2, :9], None, types[1:2, :9]).logits[0]
    same(alone, ours(ids, mask, types).logits[1, :9])


def test_a_sequence_beyond_the_position_table_is_refused():
    config = BertConfig.of(Size(1, 8, 2, 9), vocab_size=11, max_position_embeddings=6)
    model = Bert(config).eval()
    assert model(torch.ones(1, 6, dtype=torch.long)).logits.shape == (1, 6, 11)
    with pytest.raises(UserError, match="7 tokens.* 6"):
        model(torch.ones(1, 7, dtype=torch.long))


def test_parameter_count_is_transformers_with_the_tied_weight_once(folder):
    assert Bert.from_pretrained(folder).parameter_count() == peer().num_parameters()


# --------------------------------------------------------------------------------------------------
# Initial weights and dropout


@pytest.mark.parametrize("size, std", [
    (Size(1, 768, 12, 3072), 0.02), (Size(2, 192, 3, 768), 0.04), (Size(1, 64, 4, 100), 0.0692820)])
def test_initial_weights_have_std_002_at_768_and_wider_for_narrower_models(size, std):
    torch.manual_seed(0)
    # 0.02 times sqrt(768 / h), which is 1, sqrt 4 and sqrt 12
    model = Bert(BertConfig.of(size, vocab_size=3000), pooler=True)
    for name, parameter in model.named_parameters():
        if "norm.weight" in name:
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            # Of n draws the std is uncertain by std / sqrt(2 n), the mean by std / sqrt(n).
            n = parameter.numel()
            assert parameter.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * n)), name
            assert abs(parameter.mean().item()) < 5 * std / math.sqrt(n), name


def test_the_default_configuration_is_transformers_bert_base():
    theirs = transformers.BertConfig()
    for name, value in vars(BertConfig()).items():
        assert value == getattr(theirs, name), name


@pytest.mark.parametrize("dropout", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@torch.no_grad()
def test_dropout_in_training_and_none_in_evaluation(dropout):
    size = Size(2, 24, 3, 40)
    config = {"vocab_size": 50, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = randomise(Bert(BertConfig.of(size, **{**config, dropout: 0.1})))
    without = randomise(Bert(BertConfig.of(size, **config)))
    torch.manual_seed(0)
    ids = torch.randint(50, (3, 12))
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train(), without.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    assert torch.equal(model.eval()(ids).logits, without(ids).logits)


def test_the_pooler_reads_cls_also_where_the_head_runs_at_chosen_positions():
    # A checkpoint may have both parts, and as many positions may be chosen as the model is wide.
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, max_position_embeddings=8)
    model = Bert(config, pooler=True).eval()
    ids = torch.arange(24).view(3, 8)
    everywhere, chosen = model(ids), model(ids, positions=torch.arange(8))
    assert torch.equal(chosen.pooler_output, everywhere.pooler_output)
    assert torch.allclose(chosen.logits, everywhere.logits.flatten(0, 1)[:8], atol=1e-6)
