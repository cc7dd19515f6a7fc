"""files/checkpoints.py: the files are transformers' files, in both directions. What is not a BERT,
or is damaged, is refused by name, and no code runs."""
import json
import math
import pickle

from files import checkpoints, disk
from program.cli import UserError

import huggingface_hub
import pytest
import torch
import transformers
from peers import batch, peer, randomise, rewrite, same
from safetensors.torch import load_file, save_file

from budget import Size
from model import Bert, BertConfig

WORDS, INDEX = "bert.embeddings.word_embeddings.weight", "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path):
    """A folder with a BertForMaskedLM, saved by transformers."""
    peer().save_pretrained(tmp_path)
    return tmp_path


@torch.no_grad()
def answers_like(folder, theirs):
    """Asserts that the model in a folder has the logits of transformers' model at all tokens."""
    ids, mask, types = batch(theirs.config)
    real, ours = mask.bool(), Bert.from_pretrained(folder)
    got, expected = ours(ids, mask, types), theirs(ids, mask, types, output_hidden_states=True)
    same(got.logits[real], expected.logits[real])
    same(got.last_hidden_state[real], expected.hidden_states[-1][real])


def refusal_of(folder):
    """The error line with which a folder is refused."""
    with pytest.raises(UserError) as refusal:
        Bert.from_pretrained(folder)
    line = str(refusal.value)
    assert "\n" not in line and len(line) < 500
    return line


def tensors_in(folder):
    return load_file(folder / "model.safetensors")


def put_pickle(folder, value, **options):
    """Puts a pickle in the place of the weights."""
    (folder / "model.safetensors").unlink()
    torch.save(value, folder / "pytorch_model.bin", **options)


@torch.no_grad()
def test_transformers_opens_what_we_save_with_nothing_missing_and_nothing_left(tmp_path):
    config = BertConfig.of(Size(3, 35, 5, 44), vocab_size=73, max_position_embeddings=16)
    ours = randomise(Bert(config, mlm_head=False, pooler=True))  # test_train.py has one with a head
    ours.save_pretrained(tmp_path)
    theirs, report = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report  # missing, unexpected and mismatched keys, and errors
    same(ours(*batch(config)).pooler_output, theirs.eval()(*batch(config)).pooler_output)


def test_a_round_trip_is_exact_to_the_bit_and_the_same_weights_make_the_same_file(tmp_path):
    config = BertConfig.of(Size(2, 30, 3, 41), vocab_size=50, hidden_dropout_prob=0.05)
    model = randomise(Bert(config, pooler=True))
    model.save_pretrained(tmp_path)
    again, once = Bert.from_pretrained(tmp_path), (tmp_path / "model.safetensors").read_bytes()
    assert again.config == model.config and not any(part.training for part in again.modules())
    state, before = again.state_dict(), model.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    for _ in range(5):  # the library writes several entries of metadata in random order
        again.save_pretrained(tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == once


DISTIL = transformers.DistilBertConfig(vocab_size=90, dim=24, n_layers=3, n_heads=4, hidden_dim=50,
                                       max_position_embeddings=30)  # without token types


@pytest.mark.parametrize("architecture", [
    transformers.BertModel, transformers.BertForPreTraining,
    transformers.BertForTokenClassification,  # has no pooler
    transformers.DistilBertForMaskedLM, transformers.DistilBertForSequenceClassification])
@torch.no_grad()
def test_a_bert_with_another_head_and_a_distilbert_are_encoders(tmp_path, architecture):
    name, words = architecture.__name__, batch(transformers.BertConfig(vocab_size=30))
    words = words[:2] if "Distil" in name else words
    theirs = randomise(architecture(DISTIL)) if "Distil" in name else peer(0, architecture)
    theirs.save_pretrained(tmp_path)
    got = Bert.from_pretrained(tmp_path, mlm_head="MaskedLM" in name)(*words)
    expected, real = theirs.base_model(*words), words[1].bool()
    same(got.last_hidden_state[real], expected.last_hidden_state[real])
    if expected.get("pooler_output") is not None:
        same(got.pooler_output, expected.pooler_output)
    if "MaskedLM" in name:
        same(got.logits[real], theirs(*words).logits[real])


def older(tensors):
    return {name.replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta"): tensors[name] for name in tensors}


def copies(tensors):
    """With what old versions saved twice, and a constant."""
    return {**tensors, "cls.predictions.decoder.weight": tensors[WORDS].clone(),
            "bert.embeddings.position_ids": torch.arange(16)[None]}


def shard(folder):
    """Cuts the weights in a folder into three files, of which the last holds also what the index
    says is in another. Returns their paths."""
    tensors, weight_map = tensors_in(folder), {}
    (folder / "model.safetensors").unlink()
    for i in range(3):
        part = {name: tensors[name] for name in sorted(tensors)[i::3]}
        more = {next(iter(weight_map)): torch.ones(3)} if i == 2 else {}
        save_file(part | more, folder / f"model-0000{i + 1}-of-00003.safetensors")
        weight_map |= dict.fromkeys(part, f"model-0000{i + 1}-of-00003.safetensors")
    put_index(folder, weight_map)
    return sorted(folder.glob("model-*"))


def shard_as_transformers(folder):
    (folder / "model.safetensors").unlink()
    peer().save_pretrained(folder, max_shard_size="10KB")


def put_index(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("change", [
    *(lambda folder, other=other: rewrite(folder, other(tensors_in(folder)))
      for other in (older, copies)),
    *(lambda folder, wrapper=wrapper: rewrite(folder, {
        wrapper + name: tensor for name, tensor in tensors_in(folder).items()})
      for wrapper in ("module.", "model.", "_orig_mod.", "module.model.", "0.auto_model.")),
    lambda folder: rewrite(folder, model_type=None, pad_token_id=None),  # null: no such entry
    lambda folder: rewrite(folder, {  # the tied weight under its other name alone
        name.replace(WORDS, "cls.predictions.decoder.weight"): tensor
        for name, tensor in tensors_in(folder).items()}),
    shard, shard_as_transformers])
def test_older_names_second_copies_wrappers_of_training_scripts_and_shards_are_known(folder,
                                                                                     change):
    change(folder)
    answers_like(folder, peer())


@pytest.mark.parametrize("is_zip", [True, False])  # torch's formats since 1.6 and before
@pytest.mark.parametrize("wrap", [
    lambda tensors: {"model": tensors, "optimizer": {"state": {}, "param_groups": []}},
    lambda tensors: {"state_dict": {"step": torch.tensor(3)}, "model": tensors},
    lambda tensors: {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()}])
def test_a_pickle_of_torch_is_read_with_what_a_training_script_saves_in_it(folder, wrap, is_zip):
    put_pickle(folder, wrap(tensors_in(folder)), _use_new_zipfile_serialization=is_zip)
    answers_like(folder, peer())


def test_half_precision_and_embeddings_padded_beyond_the_words_are_opened_in_fp32(folder):
    theirs = peer().to(torch.bfloat16)
    theirs.resize_token_embeddings(theirs.config.vocab_size, pad_to_multiple_of=64)
    theirs.save_pretrained(folder)
    assert Bert.from_pretrained(folder).mlm_head.transform.weight.dtype == torch.float32
    answers_like(folder, theirs.float())


def test_weights_that_are_no_part_of_a_bert_are_named_once_and_not_used(folder, capsys):
    extras = {"a.crf": torch.full((2, 2), -math.inf), "mlm_head.bias": torch.ones(2),
              "bert.pooler.extra": torch.ones(1), "layers.0.qkv.weight": torch.ones(2)}
    rewrite(folder, {**tensors_in(folder), **extras})
    answers_like(folder, peer())
    answers_like(folder, peer())
    [said] = capsys.readouterr().out.strip().split("\n")
    assert "4 of its weights are no part of a BERT, and are not used (a.crf, bert.pooler.ex" in said


def test_a_missing_head_warns_and_is_refused_where_one_is_needed(tmp_path):
    peer(architecture=transformers.BertModel).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="no masked-language-model head"):
        Bert.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="no masked-language-model head"):
        Bert.from_pretrained(tmp_path, mlm_head=True)


@pytest.mark.parametrize("change", [
    {}, {"cls.predictions.bias": torch.zeros(7)}, {"cls.predictions.bias": torch.tensor(math.nan)},
    {"cls.predictions.decoder.weight": torch.zeros(7, 2)}])
@torch.no_grad()
def test_a_head_is_left_out_in_silence_and_what_does_not_fit_in_it_counts_where_it_is_read(
        folder, change, recwarn):
    ids = batch(peer().config)[0]
    expected = Bert.from_pretrained(folder)(ids).last_hidden_state
    rewrite(folder, {**tensors_in(folder), **change})
    for wanted in (None, True) if change else ():
        with pytest.raises(UserError, match="the weight for mlm_head|differs|NaN"):
            Bert.from_pretrained(folder, mlm_head=wanted)
    recwarn.clear()
    headless = Bert.from_pretrained(folder, mlm_head=False)
    assert not recwarn.list and not any("mlm_head" in name for name in headless.state_dict())
    assert torch.equal(headless(ids).last_hidden_state, expected)


class Payload:
    """What makes a file when it is unpickled, where code runs."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(
    pickle.dumps(value["b"]))])  # Python's pickle is not torch's
def test_nothing_in_a_pickle_runs(folder, save, tmp_path_factory):
    mark = tmp_path_factory.mktemp("mark") / "made"
    (folder / "model.safetensors").unlink()
    save({"a": torch.zeros(2), "b": Payload(mark)}, folder / "pytorch_model.bin")
    assert "pytorch_model.bin is damaged, or holds more than weights" in refusal_of(folder)
    assert not mark.exists()


def cut(path, kept):
    path.write_bytes(path.read_bytes()[:kept])


def pickled(value=None, kept=None, **options):
    """What puts a pickle in the place of the weights, or its beginning."""
    def spoil(folder):
        put_pickle(folder, peer().state_dict() if value is None else value, **options)
        cut(folder / "pytorch_model.bin", kept)
    return spoil


def damaged(name, damage):
    """What removes a weight where damage is None, or puts another in its place."""
    def spoil(folder):
        tensors = tensors_in(folder)
        tensor = tensors.pop(name, None)
        rewrite(folder, {**tensors, name: damage(tensor)} if damage else tensors)
    return spoil


def another_model(folder):
    small = transformers.RobertaConfig(vocab_size=60, hidden_size=24, num_hidden_layers=2,
                                       num_attention_heads=2, intermediate_size=30)
    transformers.RobertaForMaskedLM(small).save_pretrained(folder)
    rewrite(folder, model_type="bert")


NO_NAMES = "is not a BERT: its weights have other names"


@pytest.mark.parametrize("spoil, message", [
    (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors and no pyt"),
    (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    *((lambda folder, kept=kept: cut(folder / "model.safetensors", kept), "damaged")
      for kept in (0, 100, -1)),
    (lambda folder: shard(folder)[0].unlink(), "00001-of-00003.safetensors is missing"),
    (lambda folder: cut(shard(folder)[1], -10), "00002-of-00003.safetensors is damaged"),
    (lambda folder: save_file({"a": torch.ones(2)}, shard(folder)[2]), "has shape missing"),
    *((lambda folder, names=names: shard(folder) and put_index(folder, names), f"{INDEX} is damage")
      for names in (None, [], {"a": 3}, {"a": "../model.safetensors"}, {"a": "/etc/passwd"})),
    *((pickled(kept=kept), "damaged") for kept in (0, -9)),
    (pickled(kept=-9, _use_new_zipfile_serialization=False), "damaged"),
    *((pickled(value), f"{NO_NAMES} (none)") for value in (
        [torch.zeros(3)], {"state_dict": 3}, {WORDS: torch.zeros(3, 3).to_sparse()})),
    (another_model, NO_NAMES),
    *((damaged(name, damage), f"the weight for {ours}")
      for damage in (None, lambda tensor: tensor[1:], lambda tensor: (100 * tensor).to(torch.int8))
      for name, ours in (
          ("bert.encoder.layer.1.output.dense.weight", "layers.1.feed_forward_out.weight"),
          (WORDS, "embeddings.word_embeddings.weight"),
          ("cls.predictions.bias", "mlm_head.bias"))),
    *((damaged(name, lambda _: torch.zeros(2, 3)), message) for name, message in (
        ("bert.encoder.layer.0.adapter.weight", "the weight for bert.encoder.layer.0.adapter.weig"),
        ("embeddings.word_embeddings.weight", "twice, under two names"),
        ("bert.embeddings.LayerNorm.gamma", "twice, under two names"),
        ("cls.predictions.decoder.weight", f"decoder.weight differs from {WORDS}"))),
    *((lambda folder, name=name, value=value: rewrite(folder, **{name: value}), f"{name} = ")
      for name, value in (
          ("model_type", "roberta"), ("hidden_act", "relu"), ("hidden_act", "gelu_new"),
          ("position_embedding_type", "relative_key"), ("tie_word_embeddings", False),
          ("is_decoder", True), ("add_cross_attention", True), ("num_attention_heads", 10 ** 7),
          *(("hidden_size", size) for size in (0, 2.5, "24", True, [24], math.nan, 10 ** 10)),
          *(("hidden_dropout_prob", share) for share in (-0.1, 1.5, "0.1", math.nan)))),
    *((lambda folder, sizes=sizes: rewrite(folder, **sizes), message) for sizes, message in (
        ({"num_hidden_layers": 1}, "layers.1."), ({"num_hidden_layers": 4}, "layers.3."),
        ({"hidden_size": 10 ** 8, "num_attention_heads": 1}, "expected (100000000,)"),
        *(({name: 10 ** 8}, "expected (100000000") for name in (  # which would need terabytes
            "vocab_size", "intermediate_size", "max_position_embeddings", "type_vocab_size"))))])
def test_what_is_no_whole_bert_is_refused_by_name_before_a_model_is_built(folder, spoil, message):
    spoil(folder)
    assert message in refusal_of(folder)


def test_the_checksum_of_weights_is_that_of_their_files_in_a_row(folder):
    config, words = folder / "config.json", folder / "tokenizer.json"
    words.write_text("{}")
    for files in ([folder / "model.safetensors"], None):
        files = files or [folder / INDEX, *shard(folder)]
        assert checkpoints.weights_sha256(folder) == disk.file_sha256(*files)
        assert checkpoints.model_sha256(folder) == disk.file_sha256(config, *files, words)


@pytest.mark.parametrize("on_the_hub, downloaded", [
    (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
    (["pytorch_model.bin", "training_args.bin", "modeling_bert.py"], ["pytorch_model.bin"])])
def test_no_other_pickle_and_no_code_is_downloaded(tmp_path, monkeypatch, on_the_hub, downloaded):
    def snapshot_download(_, allow_patterns, repo_type=None):
        for file in huggingface_hub.utils.filter_repo_objects(
                ["config.json", "vocab.txt", "tf_model.h5", *on_the_hub],
                allow_patterns=allow_patterns):
            (tmp_path / file).write_text("")
        return str(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    folder = disk.fetch("somebody/bert", disk.MODEL_FILES)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", *downloaded, "vocab.txt"]
