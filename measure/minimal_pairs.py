"""Minimal pairs: does a model find the right word likelier than the wrong one at a [MASK]? (As in
BLiMP, Warstadt et al. 2020.) It needs no fine-tuning.

Shapes: T tokens of a text, V words.
"""
import torch


@torch.no_grad()
def shares_right(model, tokenizer, pairs):
    """{kind: the share of pairs in which the right word is likelier}.

    pairs: {kind: [(text with one [MASK], right word, wrong word)]}. A pair is left out where a word
    is not one of the tokenizer's, and a kind of which no pair is left."""
    mask = tokenizer.token_to_id("[MASK]")
    tokenizer.enable_truncation(model.config.max_position_embeddings)
    found = {}
    for kind, of_kind in pairs.items():
        answers = []
        for text, *words in of_kind:
            right, wrong = map(tokenizer.token_to_id, words)
            if right is None or wrong is None:  # another vocabulary cuts it into pieces
                continue
            ids = torch.tensor([tokenizer.encode(text).ids])                  # (1, T)
            positions = (ids == mask).flatten().nonzero()[:, 0]               # (1,)
            z = model(ids, positions=positions).logits[0]                     # (V,)
            answers.append((z[right] > z[wrong]).item())
        if answers:
            found[kind] = sum(answers) / len(answers)
    return found
