"""huggingface.py: the files are transformers' files, in both directions. What is not a BERT, or is
damaged, is refused by name."""
import json
import math
import re
import time
import warnings

from plumbing.huggingface import UnfitHead, to_hugging_face
from program.cli import UserError

import pytest
import torch
import transformers
from peers import batch, peer, randomise, rewrite, same
from safetensors.torch import load_file

from budget import Size
from model import Bert, BertConfig


@pytest.fixture
def folder(tmp_path):
    """A folder with a BertForMaskedLM, saved by transformers."""
    peer().save_pretrained(tmp_path)
    return tmp_path


def logits_are_the_same(folder, theirs):
    """Asserts that the model in a folder has the logits of transformers' model at all tokens."""
    ids, mask, types = batch(theirs.config)
    real = mask.bool()
    ours = Bert.from_pretrained(folder)
    same(ours(ids, mask, types).logits[real], theirs(ids, mask, types).logits[real])


def refusal_of(folder):
    """The error line with which a folder is refused."""
    with pytest.raises(UserError) as refusal:
        Bert.from_pretrained(folder)
    return str(refusal.value)


# --------------------------------------------------------------------------------------------------
# Our files, opened by transformers


@torch.no_grad()
def test_transformers_opens_what_we_save_with_nothing_missing_and_nothing_left(tmp_path):
    config = BertConfig.of(Size(3, 35, 5, 44), vocab_size=73, max_position_embeddings=16)
    randomise(Bert(config)).save_pretrained(tmp_path)
    theirs, report = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path,
                                                                       output_loading_info=True)
    assert type(theirs) is transformers.BertForMaskedLM
    assert not any(report.values()), report  # missing, unexpected and mismatched keys, and errors
    logits_are_the_same(tmp_path, theirs.eval())


@pytest.mark.parametrize("options", [{"add_pooling_layer": False}, {}])
def test_as_an_encoder_our_folder_opens_like_transformers_own(tmp_path, options):
    # Without pooler nothing is missing, and the head is left over. That is so for every checkpoint
    # of a BertForMaskedLM.
    peer().save_pretrained(tmp_path / "theirs")
    Bert.from_pretrained(tmp_path / "theirs").save_pretrained(tmp_path / "ours")
    ours, theirs = (transformers.AutoModel.from_pretrained(tmp_path / name, **options,
                                                           output_loading_info=True)[1]
                    for name in ("ours", "theirs"))
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert set(ours[key]) == set(theirs[key]), key
    assert all(key.startswith("cls.") for key in ours["unexpected_keys"])
    assert bool(ours["missing_keys"]) == (not options)  # the pooler, where one is asked for


def test_a_file_that_we_save_holds_the_tensors_of_transformers_file(folder, tmp_path_factory):
    mine = tmp_path_factory.mktemp("mine")
    Bert.from_pretrained(folder).save_pretrained(mine)
    ours = load_file(mine / "model.safetensors")
    theirs = load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@torch.no_grad()
def test_an_encoder_with_a_pooler_opens_in_transformers(tmp_path):
    config = BertConfig.of(Size(2, 24, 3, 40), vocab_size=50)
    ours = randomise(Bert(config, mlm_head=False, pooler=True))
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    ids = torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(0))
    same(ours(ids).pooler_output, theirs.eval()(ids).pooler_output)
    assert ours(ids).logits is None


def test_a_round_trip_is_exact_to_the_bit(tmp_path):
    config = BertConfig.of(Size(2, 30, 3, 41), vocab_size=50, hidden_dropout_prob=0.05)
    model = randomise(Bert(config, pooler=True))
    model.save_pretrained(tmp_path / "once")
    again = Bert.from_pretrained(tmp_path / "once")
    assert again.config == model.config
    state, before = again.state_dict(), model.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    again.save_pretrained(tmp_path / "twice")
    for name in ("config.json", "model.safetensors"):
        once, twice = tmp_path / "once" / name, tmp_path / "twice" / name
        assert once.read_bytes() == twice.read_bytes()


def test_an_opened_model_is_in_evaluation_mode_and_can_be_trained_on(folder):
    model = Bert.from_pretrained(folder)
    assert not model.training and all(part.training is False for part in model.modules())
    for p in model.parameters():
        assert p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu"


# --------------------------------------------------------------------------------------------------
# DistilBERT, and older checkpoints


@pytest.mark.parametrize("architecture", [transformers.DistilBertForMaskedLM,
                                          transformers.DistilBertModel,
                                          transformers.DistilBertForSequenceClassification])
def test_a_distilbert_is_a_bert_without_token_types(tmp_path, architecture):
    torch.manual_seed(3)
    config = transformers.DistilBertConfig(vocab_size=90, dim=24, n_layers=3, n_heads=4,
                                           hidden_dim=50, max_position_embeddings=30)
    theirs = architecture(config).eval()
    for parameter in theirs.parameters():  # biases and LayerNorms are no longer what they start as
        parameter.data += 0.1 * torch.randn_like(parameter)
    theirs.save_pretrained(tmp_path)
    has_head = architecture is transformers.DistilBertForMaskedLM
    ours = Bert.from_pretrained(tmp_path, mlm_head=has_head)
    ids, mask = torch.randint(90, (2, 17)), torch.ones(2, 17, dtype=torch.long)
    mask[1, 9:] = 0
    real = mask.bool()
    with torch.no_grad():
        output = ours(ids, mask)
        expected = getattr(theirs, "distilbert", theirs)(ids, mask).last_hidden_state
        torch.testing.assert_close(output.last_hidden_state[real], expected[real])
        if has_head:
            torch.testing.assert_close(output.logits[real], theirs(ids, mask).logits[real])


@torch.no_grad()
def test_layer_norms_may_be_called_gamma_and_beta(folder):
    old = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        old[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    assert sum("gamma" in name for name in old) > 4
    rewrite(folder, old)
    logits_are_the_same(folder, peer())


@torch.no_grad()
def test_a_bert_model_has_no_prefix_and_a_pooler(tmp_path):
    theirs = peer(architecture=transformers.BertModel)
    theirs.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert not any(name.startswith("bert.") for name in names)
    ours = Bert.from_pretrained(tmp_path, mlm_head=False)
    ids, mask, types = batch(theirs.config)
    real = mask.bool()
    expected, got = theirs(ids, mask, types), ours(ids, mask, types)
    same(got.pooler_output, expected.pooler_output)
    same(got.last_hidden_state[real], expected.last_hidden_state[real])
    assert got.logits is None


@torch.no_grad()
def test_the_next_sentence_head_is_left_out_and_the_pooler_kept(tmp_path):
    theirs = peer(architecture=transformers.BertForPreTraining)
    theirs.save_pretrained(tmp_path)
    assert "cls.seq_relationship.weight" in load_file(tmp_path / "model.safetensors")
    ours = Bert.from_pretrained(tmp_path)
    ids, mask, types = batch(theirs.config)
    real = mask.bool()
    expected, got = theirs(ids, mask, types), ours(ids, mask, types)
    same(got.logits[real], expected.prediction_logits[real])
    same(got.pooler_output, theirs.bert(ids, mask, types).pooler_output)


@torch.no_grad()
def test_a_second_copy_of_the_tied_decoder_is_accepted_and_another_decoder_is_not(folder):
    tensors = load_file(folder / "model.safetensors")
    copy = tensors["bert.embeddings.word_embeddings.weight"].clone()
    more = {"cls.predictions.decoder.weight": copy,
            "cls.predictions.decoder.bias": tensors["cls.predictions.bias"].clone(),
            # a constant that old versions saved
            "bert.embeddings.position_ids": torch.arange(16)[None]}
    rewrite(folder, {**tensors, **more})
    logits_are_the_same(folder, peer())
    copy[3, 1] += 0.5
    rewrite(folder, {**tensors, **more})
    assert "decoder.weight" in refusal_of(folder)


def test_a_checkpoint_in_half_precision_is_opened_in_fp32(folder):
    tensors = load_file(folder / "model.safetensors")
    half = {name: tensor.half() for name, tensor in tensors.items()}
    rewrite(folder, half)
    weight = Bert.from_pretrained(folder).mlm_head.transform.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, half["cls.predictions.transform.dense.weight"].float())


def test_a_checkpoint_in_bf16_is_transformers_in_fp32(folder):
    peer().bfloat16().save_pretrained(folder)
    logits_are_the_same(folder, peer().bfloat16().float())


@torch.no_grad()
@pytest.mark.parametrize("wrapper", ["module.", "model.", "_orig_mod.", "module.model."])
def test_what_a_training_script_has_put_before_all_names_is_left_out(folder, wrapper):
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, {wrapper + name: tensor for name, tensor in tensors.items()})
    logits_are_the_same(folder, peer())
    rewrite(folder, {**{wrapper + name: tensor for name, tensor in tensors.items()},
                     "criterion.weight": torch.ones(3)})
    logits_are_the_same(folder, peer())


# What checkpoints of the field hold beside a BERT: TinyBERT's, taggers', older versions'.
EXTRAS = {"fit_dense.weight": torch.ones(3, 2), "fit_denses.0.bias": torch.ones(3),
          "crf.transitions": torch.full((2, 2), -math.inf), "dropout.mask": torch.ones(1),
          "token_type_ids": torch.zeros(1, 9, dtype=torch.long), "loss.weight": torch.ones(1),
          "bert.embeddings.token_type_ids": torch.zeros(1, 9, dtype=torch.long),
          "bert.pooler.extra": torch.ones(1), "cls.seq_relationship.weight": torch.ones(2, 3),
          "layers.0.qkv.weight": torch.ones(2), "mlm_head.bias": torch.ones(2)}


@torch.no_grad()
def test_weights_that_are_no_part_of_a_bert_are_named_once_and_not_used(folder, capsys):
    rewrite(folder, {**load_file(folder / "model.safetensors"), **EXTRAS})
    logits_are_the_same(folder, peer())
    logits_are_the_same(folder, peer())
    said = capsys.readouterr().out.strip().split("\n")
    assert len(said) == 1 and "10 of its weights are no part of a BERT" in said[0]
    assert "crf.transitions" in said[0] and said[0].endswith(", ...)") and len(said[0]) < 400


def test_a_name_that_the_original_bert_does_not_have_is_not_saved():
    with pytest.raises(KeyError, match="layers.0.adapter.weight"):
        to_hugging_face({"layers.0.adapter.weight": torch.ones(1)})


@torch.no_grad()
def test_embeddings_may_be_padded_beyond_the_words(tmp_path):
    theirs = peer()
    theirs.resize_token_embeddings(theirs.config.vocab_size, pad_to_multiple_of=64)
    theirs.save_pretrained(tmp_path)
    assert Bert.from_pretrained(tmp_path).config.vocab_size % 64 == 0
    logits_are_the_same(tmp_path, theirs)


@pytest.mark.parametrize("architecture", [
    transformers.BertForSequenceClassification, transformers.BertForTokenClassification,
    transformers.BertForQuestionAnswering, transformers.BertForMultipleChoice,
    transformers.BertForNextSentencePrediction])
@torch.no_grad()
def test_a_fine_tuned_bert_is_an_encoder(tmp_path, architecture):
    theirs = peer(architecture=architecture)
    theirs.save_pretrained(tmp_path)
    ids, mask, types = batch(theirs.config)
    got, expected = (model(ids, mask, types).last_hidden_state
                     for model in (Bert.from_pretrained(tmp_path, mlm_head=False), theirs.bert))
    same(got[mask.bool()], expected[mask.bool()])


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
    assert headless(ids).logits is None
    assert not any("mlm_head" in name for name in headless.state_dict())
    assert torch.equal(headless(ids).last_hidden_state, whole(ids).last_hidden_state)


@pytest.mark.parametrize("change", [
    {"cls.predictions.bias": torch.zeros(7)}, {"cls.predictions.decoder.bias": torch.zeros(7)},
    {"cls.predictions.decoder.weight": torch.zeros(7, 2)},
    {"cls.predictions.transform.dense.weight": torch.zeros(3, 3)}])
@torch.no_grad()
def test_a_head_that_does_not_fit_is_refused_only_where_it_is_read(folder, change):
    ids = batch(peer().config)[0]
    expected = Bert.from_pretrained(folder)(ids).last_hidden_state
    rewrite(folder, {**load_file(folder / "model.safetensors"), **change})
    for wanted in (None, True):
        with pytest.raises(UnfitHead):
            Bert.from_pretrained(folder, mlm_head=wanted)
    assert torch.equal(Bert.from_pretrained(folder, False)(ids).last_hidden_state, expected)


# --------------------------------------------------------------------------------------------------
# What is refused: files


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, file):
    (folder / file).unlink()
    assert file in refusal_of(folder)


@pytest.mark.parametrize("name", ["no/such/folder", "../nowhere", "surely-no-such/model-2f6c"])
def test_a_name_that_is_neither_folder_nor_hub_id_is_refused(name):
    assert name in refusal_of(name)


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_one_flipped_bit_in_a_file_of_ours_is_noticed(tmp_path, place):
    Bert(BertConfig.of(Size(1, 8, 2, 9), vocab_size=11)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    contents = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(contents[:8], "little")  # the tensors' bytes come after the header
    contents[begin + int(place * (len(contents) - 1 - begin))] ^= 1
    path.write_bytes(contents)
    load_file(path)  # for the format it is a good file: only the checksum can tell
    assert "checksum" in refusal_of(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 100, 0.5, -1])
def test_a_file_that_was_cut_short_is_refused(folder, kept):
    path = folder / "model.safetensors"
    contents = path.read_bytes()
    end = int(kept * len(contents)) if isinstance(kept, float) else kept
    path.write_bytes(contents[:end])
    assert "damaged" in refusal_of(folder)


# --------------------------------------------------------------------------------------------------
# What is refused: weights


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_of_a_failed_training_are_refused(folder, value):
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.transform.dense.weight"][3, 4] = value
    rewrite(folder, tensors)
    assert "NaN or infinity in cls.predictions.transform.dense.weight" in refusal_of(folder)


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
    tensor = tensors.pop(theirs)
    if damage != "missing":
        tensors[theirs] = {"a row less": tensor[1:], "an axis more": tensor[None],
                           "a single number": torch.tensor(1.0)}[damage]
    rewrite(folder, tensors)
    assert named in refusal_of(folder)


def test_a_weight_too_many_is_named(folder):
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, {**tensors, "bert.encoder.layer.0.adapter.weight": torch.zeros(2)})
    assert "adapter.weight" in refusal_of(folder)


@pytest.mark.parametrize("name", [
    "bert.encoder.relative_attention_bias.weight", "bert.embeddings.rotary.weight",
    "bert.encoder.layer.0.attention.self.distance_embedding.weight"])
def test_a_weight_that_another_models_encoder_computes_with_is_named(folder, name):
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, {**tensors, name: torch.zeros(2, 3)})
    assert name.split(".")[-2] in refusal_of(folder)


def test_weights_that_are_whole_numbers_are_not_taken_for_a_berts(folder):
    tensors = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    rewrite(folder, {**tensors, name: (100 * tensors[name]).to(torch.int8)})
    assert "intermediate_size" in refusal_of(folder)


@pytest.mark.parametrize("one, two", [
    ("bert.embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
    ("bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.gamma"),
    ("bert.encoder.layer.1.output.LayerNorm.bias", "encoder.layer.1.output.LayerNorm.beta"),
    ("bert.encoder.layer.0.output.dense.bias", "bert.encoder.layer.0.feed_forward_out.bias")])
def test_two_tensors_for_one_place_are_refused_in_any_order(folder, one, two):
    tensors = load_file(folder / "model.safetensors")
    tensors[two] = tensors[one] + 1
    rewrite(folder, tensors)
    assert "twice, under two names" in refusal_of(folder)
    second_first = {two: tensors.pop(two), **tensors}
    (folder / "model.safetensors").unlink()
    torch.save(second_first, folder / "pytorch_model.bin")
    assert "twice, under two names" in refusal_of(folder)


def test_a_pooler_without_its_bias_is_damage(tmp_path):
    peer(architecture=transformers.BertModel).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["pooler.dense.weight"]
    rewrite(tmp_path, tensors)
    assert "pooler.weight" in refusal_of(tmp_path)


@pytest.mark.parametrize("kind, config", [
    (transformers.RobertaForMaskedLM, transformers.RobertaConfig),
    (transformers.ElectraForMaskedLM, transformers.ElectraConfig),
    (transformers.AlbertForMaskedLM, transformers.AlbertConfig)])
def test_another_model_is_known_by_its_names_where_its_config_does_not_say(tmp_path, kind, config):
    small = config(vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
                   intermediate_size=30, embedding_size=24)
    kind(small).save_pretrained(tmp_path)
    assert f"{small.model_type!r} model, not a BERT" in refusal_of(tmp_path)
    rewrite(tmp_path, model_type="bert", hidden_act="gelu")
    assert "its weights have other names" in refusal_of(tmp_path)


# --------------------------------------------------------------------------------------------------
# What is refused: configurations


@pytest.mark.parametrize("text", [
    "", "{", "null", "[]", "\"bert\"", "{'model_type': 'bert'}", "[" * 10 ** 5, "\xff\xfe{}"])
def test_a_config_that_is_no_json_object_is_refused(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    damaged = "config.json is damaged: it is not (a JSON object|UTF-8 text)"
    assert re.search(damaged, refusal_of(folder))


@pytest.mark.parametrize("name, value", [
    ("model_type", "roberta"), ("hidden_act", "relu"), ("hidden_act", "gelu_new"),
    ("position_embedding_type", "relative_key"),
    ("tie_word_embeddings", False), ("is_decoder", True)])
def test_what_this_bert_is_not_is_named(folder, name, value):
    rewrite(folder, **{name: value})
    refusal = refusal_of(folder)
    assert str(value) in refusal
    assert name in refusal or name == "model_type"


@pytest.mark.parametrize("value", [0, -3, 2.5, "24", True, None, [24], float("nan"), 10 ** 10])
@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "vocab_size"])
def test_a_size_that_is_no_size_is_named(folder, name, value):
    rewrite(folder, **{name: value})
    assert name in refusal_of(folder)


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.1", math.nan, math.inf, True, None])
@pytest.mark.parametrize("name", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_a_dropout_that_is_no_probability_is_named(folder, name, value):
    rewrite(folder, **{name: value})
    assert name in refusal_of(folder)


@torch.no_grad()
def test_a_model_type_that_is_null_is_none(folder):
    theirs = peer()
    rewrite(folder, model_type=None)
    logits_are_the_same(folder, theirs)


def test_a_number_of_heads_that_is_not_said_is_asked_for(folder):
    raw = json.loads((folder / "config.json").read_text())
    del raw["num_attention_heads"]
    (folder / "config.json").write_text(json.dumps(raw))
    assert peer().config.hidden_size % 12
    assert "does not say num_attention_heads" in refusal_of(folder)


def test_heads_that_do_not_divide_the_hidden_size_are_named(folder):
    h = peer().config.hidden_size
    rewrite(folder, num_attention_heads=h - 1)
    assert f"{h - 1} heads do not divide hidden_size {h}" in refusal_of(folder)


@pytest.mark.parametrize("config", [
    {"hidden_size": 10 ** 8, "num_attention_heads": 1}, {"num_hidden_layers": 10 ** 6},
    {"vocab_size": 10 ** 9}, {"intermediate_size": 10 ** 9}, {"max_position_embeddings": 10 ** 9},
    {"type_vocab_size": 10 ** 9}])
def test_a_config_of_absurd_sizes_costs_nothing(folder, config):
    # Such a model would need terabytes, or hours for its million layers, if it were built before
    # its sizes are compared with the file.
    rewrite(folder, **config)
    start = time.process_time()
    assert next(iter(config)) in refusal_of(folder)
    assert time.process_time() - start < 1
