"""Our BERT is transformers' BERT: the same numbers and the same files. What is no BERT is refused by name."""
import json
import math
import random
import time
import warnings

from plumbing.cli import UserError

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from budget import Size
from distill import Reads
from model import Bert, BertConfig


@torch.no_grad()
def randomise(model, seed=0):
    """All weights at random, biases and LayerNorms too: at their initial 0 and 1, two that are swapped go unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        center = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        parameter.copy_(center + 0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def peer(seed=0, architecture=transformers.BertForMaskedLM):
    """A small BERT of transformers, of random sizes: heads need not be h / 64, and f need not be 4 h."""
    draw = random.Random(seed).randint
    A = draw(2, 5)
    config = transformers.BertConfig(
        vocab_size=draw(30, 99), hidden_size=A * draw(3, 9), num_hidden_layers=draw(2, 4), num_attention_heads=A,
        intermediate_size=draw(10, 70), max_position_embeddings=draw(17, 30), type_vocab_size=draw(2, 3))
    return randomise(architecture(config), seed)


def batch(config, seed=0):
    """ids, mask and token types (5, 16), with 0 to 9 tokens of padding."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, config.vocab_size, (5, 16), generator=generator)
    mask = (torch.arange(16) < torch.tensor([16, 9, 13, 7, 15])[:, None]).long()
    return ids * mask, mask, torch.randint(config.type_vocab_size, (5, 16), generator=generator)


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.fixture
def folder(tmp_path):
    """A folder with a BertForMaskedLM, saved by transformers."""
    peer().save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder, tensors=None, **config):
    """Replaces the weights of a folder, or entries of its config.json. Such a file has no checksum, like all but ours."""
    if tensors is not None:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


# ---------------------------------------------------------------------------------------------------------------------
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
    assert len(got.hidden_states) == len(expected.hidden_states) == theirs.config.num_hidden_layers + 1
    for a, b in zip(got.hidden_states, expected.hidden_states):
        same(a[real], b[real])
    same(got.logits[real], expected.logits[real])
    assert torch.equal(got.last_hidden_state, got.hidden_states[-1]) and got.pooler_output is None


@torch.no_grad()
def test_without_mask_and_types_all_are_tokens_of_type_0(folder):
    theirs, ours = peer(), Bert.from_pretrained(folder)
    ids, _, _ = batch(theirs.config)
    same(ours(ids).logits, theirs(ids).logits)


def test_attention_written_out_in_bf16_is_the_fused_one(folder, monkeypatch):
    """On a CPU the faster of two ways is taken; transformers' (sdpa) agrees within what bf16 resolves."""
    theirs, ours = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval(), Bert.from_pretrained(folder)
    ids, mask, types = batch(theirs.config)
    fused = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: pytest.fail("fused") if a[0].dtype == torch.bfloat16 else fused(*a, **k))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        x = ours(ids, mask, types).last_hidden_state.float()
        monkeypatch.undo()
        y = theirs.bert(ids, mask, types).last_hidden_state.float()
    assert (x - y)[mask.bool()].abs().max() < 0.1 * y[mask.bool()].std()


@pytest.mark.parametrize("architecture", [transformers.DistilBertForMaskedLM, transformers.DistilBertModel,
                                          transformers.DistilBertForSequenceClassification])
def test_a_distilbert_is_a_bert_without_token_types(tmp_path, architecture):
    torch.manual_seed(3)
    theirs = architecture(transformers.DistilBertConfig(vocab_size=90, dim=24, n_layers=3, n_heads=4, hidden_dim=50,
                                                        max_position_embeddings=30)).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # biases and LayerNorms are no longer what they start as
    theirs.save_pretrained(tmp_path)
    ours = Bert.from_pretrained(tmp_path, mlm_head=True if architecture is transformers.DistilBertForMaskedLM else False)
    ids, mask = torch.randint(90, (2, 17)), torch.ones(2, 17, dtype=torch.long)
    mask[1, 9:] = 0
    with torch.no_grad():
        output = ours(ids, mask)
        expected = getattr(theirs, "distilbert", theirs)(ids, mask).last_hidden_state
        torch.testing.assert_close(output.last_hidden_state[mask.bool()], expected[mask.bool()])
        if ours.mlm_head:
            torch.testing.assert_close(output.logits[mask.bool()], theirs(ids, mask).logits[mask.bool()])


def test_gradients_are_transformers(folder):
    theirs, ours = peer(), Bert.from_pretrained(folder)
    ids = batch(theirs.config)[0].clamp(min=1)  # no padding: transformers' embedding of [PAD] takes no gradient
    labels = ids.flip(1)
    F.cross_entropy(theirs(ids).logits.flatten(0, 1), labels.flatten()).backward()
    F.cross_entropy(ours(ids).logits.flatten(0, 1), labels.flatten()).backward()
    layer, own = theirs.bert.encoder.layer[1], ours.layers[1]
    attention = layer.attention.self
    for got, expected in [
            (ours.embeddings.word_embeddings.weight, theirs.bert.embeddings.word_embeddings.weight),  # tied: both uses
            (ours.embeddings.position_embeddings.weight, theirs.bert.embeddings.position_embeddings.weight),
            (own.feed_forward_in.weight, layer.intermediate.dense.weight),
            (own.output_norm.bias, layer.output.LayerNorm.bias),
            (ours.mlm_head.transform.weight, theirs.cls.predictions.transform.dense.weight),
            (ours.mlm_head.bias, theirs.cls.predictions.bias)]:
        same(got.grad, expected.grad)
    same(own.qkv.weight.grad, torch.cat([part.weight.grad for part in (attention.query, attention.key, attention.value)]))


@torch.no_grad()
def test_logits_at_positions_are_rows_of_all_logits(folder):
    ours = Bert.from_pretrained(folder)
    ids, mask, types = batch(ours.config)
    positions = torch.tensor([0, 79, 17, 17, 40])  # of 5 * 16 tokens: any order, and twice the same
    everywhere = ours(ids, mask, types).logits
    chosen = ours(ids, mask, types, positions=positions).logits
    assert everywhere.shape == (5, 16, ours.config.vocab_size) and chosen.shape == (5, ours.config.vocab_size)
    same(chosen, torch.stack([everywhere[p // 16, p % 16] for p in positions.tolist()]))


@torch.no_grad()
def test_scores_are_what_transformers_makes_its_attention_of(folder):
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ours = Bert.from_pretrained(folder)
    L = ours.config.num_hidden_layers
    ids = torch.randint(ours.config.vocab_size, (2, 9))
    mask = torch.ones_like(ids)
    mask[0, 6:] = 0
    with torch.no_grad():
        attention = theirs(ids, attention_mask=mask, output_attentions=True).attentions
        output = ours(ids, mask, reads=Reads(hidden=(L,), scores=tuple(range(1, L + 1))))
        usual = ours(ids, mask)
    for m in range(1, L + 1):
        seen = output.scores[m].masked_fill(mask[:, None, None, :] == 0, -math.inf)
        torch.testing.assert_close(seen.softmax(dim=3), attention[m - 1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(output.hidden_states[m], usual.hidden_states[m], atol=1e-5, rtol=1e-4)  # with scores or fused
    assert output.logits is None and usual.scores == {}


def test_queries_keys_and_values_are_those_of_transformers_layer(folder):
    theirs, ours = transformers.AutoModel.from_pretrained(folder).eval(), Bert.from_pretrained(folder)
    ids = torch.randint(ours.config.vocab_size, (2, 9))
    with torch.no_grad():
        x = theirs(ids, output_hidden_states=True).hidden_states[1]
        layer = theirs.encoder.layer[1].attention.self
        output = ours(ids, reads=Reads(qkv=(2,), relations=3))
        for own, their in zip(output.qkv[2], (layer.query, layer.key, layer.value)):
            torch.testing.assert_close(own, their(x), atol=1e-5, rtol=1e-4)
    assert output.last_hidden_state is None and len(output.hidden_states) == 3  # it stopped inside layer 2


def test_what_stands_at_padding_changes_nothing(folder):
    ours = Bert.from_pretrained(folder)
    ids, mask, types = batch(ours.config)
    other = torch.where(mask.bool(), ids, 7)
    real = mask.bool()
    assert torch.equal(ours(ids, mask, types).logits[real], ours(other, mask, types).logits[real])
    assert not torch.equal(ours(ids, None, types).logits[real], ours(other, None, types).logits[real])  # without a mask
    same(ours(ids[1:2, :9], None, types[1:2, :9]).logits[0], ours(ids, mask, types).logits[1, :9])  # nor do 7 [PAD] more


def test_a_sequence_beyond_the_position_table_is_refused():
    model = Bert(BertConfig.of(Size(1, 8, 2, 9), vocab_size=11, max_position_embeddings=6)).eval()
    assert model(torch.ones(1, 6, dtype=torch.long)).logits.shape == (1, 6, 11)
    with pytest.raises(UserError, match="7 tokens.* 6"):
        model(torch.ones(1, 7, dtype=torch.long))


def test_parameter_count_is_transformers_with_the_tied_weight_once(folder):
    assert Bert.from_pretrained(folder).parameter_count() == peer().num_parameters()


# ---------------------------------------------------------------------------------------------------------------------
# Initial weights and dropout

@pytest.mark.parametrize("size, std", [(Size(1, 768, 12, 3072), 0.02), (Size(2, 192, 3, 768), 0.04),
                                       (Size(1, 64, 4, 100), 0.0692820)])
def test_initial_weights_have_std_002_at_768_and_wider_for_narrower_models(size, std):
    torch.manual_seed(0)
    model = Bert(BertConfig.of(size, vocab_size=3000), pooler=True)  # 0.02 times 1, sqrt 4, sqrt 12
    for name, parameter in model.named_parameters():
        if "norm.weight" in name:
            assert (parameter == 1).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:  # n draws: their std is uncertain by std / sqrt(2 n), their mean by std / sqrt(n)
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
    config = {"vocab_size": 50, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = randomise(Bert(BertConfig.of(Size(2, 24, 3, 40), **{**config, dropout: 0.1})))
    without = randomise(Bert(BertConfig.of(Size(2, 24, 3, 40), **config)))
    ids = torch.randint(50, (3, 12))
    assert torch.equal(model(ids).logits, model(ids).logits)
    model.train(), without.train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    assert torch.equal(model.eval()(ids).logits, without(ids).logits)


# ---------------------------------------------------------------------------------------------------------------------
# Our files, opened by transformers

@torch.no_grad()
def test_transformers_opens_what_we_save_with_nothing_missing_and_nothing_left(tmp_path):
    ours = randomise(Bert(BertConfig.of(Size(3, 35, 5, 44), vocab_size=73, max_position_embeddings=16)))
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert type(theirs) is transformers.BertForMaskedLM
    assert not any(report.values()), report  # missing, unexpected and mismatched keys, and errors
    ids, mask, types = batch(ours.config)
    same(ours(ids, mask, types).logits[mask.bool()], theirs.eval()(ids, mask, types).logits[mask.bool()])


@pytest.mark.parametrize("options", [{"add_pooling_layer": False}, {}])
def test_as_an_encoder_our_folder_opens_like_transformers_own(tmp_path, options):
    # Without pooler nothing is missing, and the head is left over. That is so for every checkpoint of a BertForMaskedLM.
    theirs = peer()
    theirs.save_pretrained(tmp_path / "theirs")
    Bert.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    reports = [transformers.AutoModel.from_pretrained(tmp_path / name, output_loading_info=True, **options)[1]
               for name in ("ours", "theirs")]
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert set(reports[0][key]) == set(reports[1][key]), key
    assert all(key.startswith("cls.") for key in reports[0]["unexpected_keys"])
    assert bool(reports[0]["missing_keys"]) == (not options)  # the pooler, where one is asked for


def test_a_file_that_we_save_holds_the_tensors_of_transformers_file(folder, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    Bert.from_pretrained(folder).save_pretrained(mine)
    ours, theirs = load_file(mine / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@torch.no_grad()
def test_an_encoder_with_a_pooler_opens_in_transformers(tmp_path):
    ours = randomise(Bert(BertConfig.of(Size(2, 24, 3, 40), vocab_size=50), mlm_head=False, pooler=True))
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    ids = torch.randint(50, (3, 12))
    same(ours(ids).pooler_output, theirs.eval()(ids).pooler_output)
    assert ours(ids).logits is None


def test_a_round_trip_is_exact_to_the_bit(tmp_path):
    model = randomise(Bert(BertConfig.of(Size(2, 30, 3, 41), vocab_size=50, hidden_dropout_prob=0.05), pooler=True))
    model.save_pretrained(tmp_path / "once")
    again = Bert.from_pretrained(tmp_path / "once")
    assert again.config == model.config
    state, before = again.state_dict(), model.state_dict()
    assert state.keys() == before.keys() and all(torch.equal(state[name], before[name]) for name in before)
    again.save_pretrained(tmp_path / "twice")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_an_opened_model_is_in_evaluation_mode_and_can_be_trained_on(folder):
    model = Bert.from_pretrained(folder)
    assert not model.training and all(part.training is False for part in model.modules())
    assert all(p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters())


# ---------------------------------------------------------------------------------------------------------------------
# Older checkpoints

@torch.no_grad()
def test_layer_norms_may_be_called_gamma_and_beta(folder):
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
           for name, tensor in load_file(folder / "model.safetensors").items()}
    assert sum("gamma" in name for name in old) > 4
    rewrite(folder, old)
    ids, mask, types = batch(peer().config)
    same(Bert.from_pretrained(folder)(ids, mask, types).logits[mask.bool()], peer()(ids, mask, types).logits[mask.bool()])


@torch.no_grad()
def test_a_bert_model_has_no_prefix_and_a_pooler(tmp_path):
    theirs = peer(architecture=transformers.BertModel)
    theirs.save_pretrained(tmp_path)
    assert not any(name.startswith("bert.") for name in load_file(tmp_path / "model.safetensors"))
    ours = Bert.from_pretrained(tmp_path, mlm_head=False)
    ids, mask, types = batch(theirs.config)
    expected, got = theirs(ids, mask, types), ours(ids, mask, types)
    same(got.pooler_output, expected.pooler_output)
    same(got.last_hidden_state[mask.bool()], expected.last_hidden_state[mask.bool()])
    assert got.logits is None


@torch.no_grad()
def test_the_next_sentence_head_is_left_out_and_the_pooler_kept(tmp_path):
    theirs = peer(architecture=transformers.BertForPreTraining)
    theirs.save_pretrained(tmp_path)
    assert "cls.seq_relationship.weight" in load_file(tmp_path / "model.safetensors")
    ours = Bert.from_pretrained(tmp_path)
    ids, mask, types = batch(theirs.config)
    expected, got = theirs(ids, mask, types), ours(ids, mask, types)
    same(got.logits[mask.bool()], expected.prediction_logits[mask.bool()])
    same(got.pooler_output, theirs.bert(ids, mask, types).pooler_output)


@torch.no_grad()
def test_a_second_copy_of_the_tied_decoder_is_accepted_and_another_decoder_is_not(folder):
    tensors = load_file(folder / "model.safetensors")
    copies = {"cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"].clone(),
              "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
              "bert.embeddings.position_ids": torch.arange(16)[None]}  # a constant that old versions saved
    rewrite(folder, {**tensors, **copies})
    ids, mask, types = batch(peer().config)
    same(Bert.from_pretrained(folder)(ids, mask, types).logits[mask.bool()], peer()(ids, mask, types).logits[mask.bool()])
    copies["cls.predictions.decoder.weight"][3, 1] += 0.5
    rewrite(folder, {**tensors, **copies})
    with pytest.raises(UserError, match="decoder.weight"):
        Bert.from_pretrained(folder)


def test_a_checkpoint_in_half_precision_is_opened_in_fp32(folder):
    half = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    rewrite(folder, half)
    weight = Bert.from_pretrained(folder).mlm_head.transform.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, half["cls.predictions.transform.dense.weight"].float())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_of_a_failed_training_are_refused(folder, value):
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.transform.dense.weight"][3, 4] = value
    rewrite(folder, tensors)
    with pytest.raises(UserError, match="NaN or infinity in cls.predictions.transform.dense.weight"):
        Bert.from_pretrained(folder)


def test_a_missing_head_warns_and_is_refused_where_one_is_needed(tmp_path):
    peer(architecture=transformers.BertModel).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no masked-language-model head"):
        Bert.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="no masked-language-model head"):
        Bert.from_pretrained(tmp_path, mlm_head=True)


@torch.no_grad()
def test_a_head_that_nobody_wants_is_left_out_in_silence(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        headless = Bert.from_pretrained(folder, mlm_head=False)
        whole = Bert.from_pretrained(folder, mlm_head=True)
    ids = batch(whole.config)[0]
    assert headless(ids).logits is None and not any("mlm_head" in name for name in headless.state_dict())
    assert torch.equal(headless(ids).last_hidden_state, whole(ids).last_hidden_state)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused, and how

def test_a_pickle_is_not_opened_and_the_message_says_why(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickle"):
        Bert.from_pretrained(folder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    with pytest.raises(UserError, match=file):
        Bert.from_pretrained(folder)


@pytest.mark.parametrize("config", [{"hidden_size": 10 ** 8, "num_attention_heads": 1}, {"num_hidden_layers": 10 ** 6},
                                    {"vocab_size": 10 ** 9}, {"intermediate_size": 10 ** 9},
                                    {"max_position_embeddings": 10 ** 9}, {"type_vocab_size": 10 ** 9}])
def test_a_config_of_absurd_sizes_costs_nothing(folder, config):
    # Built before it is compared with the file, such a model would need terabytes, or hours for its million layers.
    rewrite(folder, **config)
    start = time.perf_counter()
    with pytest.raises(UserError, match=next(iter(config))):
        Bert.from_pretrained(folder)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_one_flipped_bit_in_a_file_of_ours_is_noticed(tmp_path, place):
    Bert(BertConfig.of(Size(1, 8, 2, 9), vocab_size=11)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    contents = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(contents[:8], "little")  # the tensors' bytes come after the header
    contents[begin + int(place * (len(contents) - 1 - begin))] ^= 1
    path.write_bytes(contents)
    load_file(path)  # for the format it is a good file: only the checksum can tell
    with pytest.raises(UserError, match="checksum"):
        Bert.from_pretrained(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, -1])
def test_a_file_that_was_cut_short_is_refused(folder, kept):
    path = folder / "model.safetensors"
    contents = path.read_bytes()
    path.write_bytes(contents[:int(kept * len(contents)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match="damaged"):
        Bert.from_pretrained(folder)


@pytest.mark.parametrize("damage", ["missing", "a row less", "an axis more", "a single number"])
@pytest.mark.parametrize("theirs, named", [
    ("bert.encoder.layer.1.output.dense.weight", "layers.1.feed_forward_out.weight"),
    ("bert.encoder.layer.0.attention.self.key.weight", "layers.0.qkv.weight"),
    ("bert.encoder.layer.0.attention.self.query.bias", "layers.0.qkv.bias"),
    ("bert.encoder.layer.0.intermediate.dense.weight", "intermediate_size"),
    ("bert.embeddings.word_embeddings.weight", "vocab_size"),
    ("bert.embeddings.LayerNorm.weight", "hidden_size"),
    ("cls.predictions.transform.LayerNorm.bias", "mlm_head.norm.bias"),
    ("cls.predictions.bias", "mlm_head.bias")])
def test_a_weight_that_is_missing_or_of_another_shape_is_named(folder, theirs, named, damage):
    tensors = load_file(folder / "model.safetensors")
    damaged = {"missing": None, "a row less": tensors[theirs][1:], "an axis more": tensors[theirs][None],
               "a single number": torch.tensor(1.0)}[damage]
    rewrite(folder, {name: damaged if name == theirs else tensor for name, tensor in tensors.items()
                     if name != theirs or damaged is not None})
    with pytest.raises(UserError) as refusal:
        Bert.from_pretrained(folder)
    assert named in str(refusal.value)


def test_a_weight_too_many_is_named(folder):
    rewrite(folder, {**load_file(folder / "model.safetensors"), "bert.encoder.layer.0.adapter.weight": torch.zeros(2)})
    with pytest.raises(UserError, match="adapter.weight"):
        Bert.from_pretrained(folder)


@pytest.mark.parametrize("config", [
    {"model_type": "roberta"}, {"hidden_act": "relu"}, {"position_embedding_type": "relative_key"},
    {"tie_word_embeddings": False}, {"is_decoder": True}])
def test_what_this_bert_is_not_is_named(folder, config):
    (name, value), = config.items()
    rewrite(folder, **config)
    with pytest.raises(UserError) as refusal:
        Bert.from_pretrained(folder)
    assert str(value) in str(refusal.value) and (name in str(refusal.value) or name == "model_type")


@pytest.mark.parametrize("value", [0, -3, 2.5, "24", True, None, [24], float("nan"), 10 ** 10])
@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "vocab_size"])
def test_a_size_that_is_no_size_is_named(folder, name, value):
    rewrite(folder, **{name: value})
    with pytest.raises(UserError, match=name):
        Bert.from_pretrained(folder)


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.1", float("nan"), float("inf"), True, None])
@pytest.mark.parametrize("name", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_a_dropout_that_is_no_probability_is_named(folder, name, value):
    rewrite(folder, **{name: value})
    with pytest.raises(UserError, match=name):
        Bert.from_pretrained(folder)


def test_heads_that_do_not_divide_the_hidden_size_are_named(folder):
    h = peer().config.hidden_size
    rewrite(folder, num_attention_heads=h - 1)
    with pytest.raises(UserError, match=f"{h - 1} heads do not divide hidden_size {h}"):
        Bert.from_pretrained(folder)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "\"bert\"", "{'model_type': 'bert'}", "[" * 10 ** 5, "\xff\xfe{}"])
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="config.json is damaged: it is not (a JSON object|UTF-8 text)"):
        Bert.from_pretrained(folder)


@pytest.mark.parametrize("name", ["no/such/folder", "../nowhere", "surely-no-such/model-2f6c"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name):
    with pytest.raises(UserError, match=name):
        Bert.from_pretrained(name)
