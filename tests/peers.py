"""Small BERTs of transformers, beside which ours is tested.

    theirs = peer(seed=3)                         # a BertForMaskedLM of random sizes and weights
    ids, mask, types = batch(theirs.config)       # some text for both
    same(ours(ids).logits, theirs(ids).logits)
"""
import json
import random

import torch
import transformers
from safetensors.torch import save_file


@torch.no_grad()
def randomise(model, seed=0):
    """Draws all weights at random, biases and LayerNorms too. As long as these are at their initial
    0 and 1, two that are swapped go unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        center = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
        parameter.copy_(center + 0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def peer(seed=0, architecture=transformers.BertForMaskedLM):
    """A small BERT of transformers. Its sizes are random: the heads need not be h / 64, and f need
    not be 4 h."""
    draw = random.Random(seed).randint
    A = draw(2, 5)
    config = transformers.BertConfig(
        vocab_size=draw(30, 99), hidden_size=A * draw(3, 9), num_hidden_layers=draw(2, 4),
        num_attention_heads=A, intermediate_size=draw(10, 70),
        max_position_embeddings=draw(17, 30), type_vocab_size=draw(2, 3))
    return randomise(architecture(config), seed)


def batch(config, seed=0):
    """ids, mask and token types, each (5, 16), with 0 to 9 tokens of padding in a row."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, config.vocab_size, (5, 16), generator=generator)
    mask = (torch.arange(16) < torch.tensor([16, 9, 13, 7, 15])[:, None]).long()
    types = torch.randint(config.type_vocab_size, (5, 16), generator=generator)
    return ids * mask, mask, types


def same(ours, theirs):
    """Asserts that two tensors are equal but for rounding."""
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def rewrite(folder, tensors=None, **config):
    """Replaces the weights in a folder, or entries of its config.json. The new file of weights has
    no checksum, like all files that this project has not written."""
    if tensors is not None:
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, folder / "model.safetensors")
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
