"""The losses, by hand: tensors in, a scalar out, no model inside.

Shapes: N masked positions (of a whole batch), V vocabulary. All losses are in nats and computed in fp32.
"""
import torch


def mlm_loss(logits, labels):
    """Masked language modelling (Devlin et al. 2018, section 3.1): logits (N, V), labels (N,) -> scalar.

    The mean over the masked positions; a negative label, like -100, is none, and its position does not count."""
    logits = logits.float()
    counted = labels >= 0
    y = labels.clamp(min=0)
    # L = 1/N sum_n -log softmax(z_n)[y_n] = 1/N sum_n (log sum_v exp z_nv - z_n[y_n])
    z_y = logits.gather(1, y[:, None]).squeeze(1)            # (N, V) -> (N,)
    loss = (torch.logsumexp(logits, dim=1) - z_y) * counted  # (N,)
    return loss.sum() / counted.sum()
