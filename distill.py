"""The losses, by hand, and the strategies that are made of them.

First the losses: tensors in, a scalar out, no model inside. Then one function per strategy, which declares what its loss
reads of student and teacher. The models compute just that (model.py), and the budget charges just that (budget.py).

Shapes: B sequences, T tokens, N masked positions (of a whole batch), V vocabulary, h hidden size, A heads, d = h / A; with a
prime, the teacher's. Losses are in nats where they compare distributions. Products are what the models make them, like bf16;
everything after them is computed in fp32 (float64 stays as it is).

A strategy of your own is a function and a line in STRATEGIES; it is then priced (`python budget.py --model 6x768 --teacher
12x768`), trained (`python train.py --strategy last-layer --teacher ...`) and compared like the others:

    def last_layer(student, teacher, how):
        def terms(s, t, labels, project):
            return {"last-layer": (project(s.hidden_states[-1]) - t.hidden_states[-1]).square().mean()}
        return Lesson(Reads(hidden=(student.L,)), Reads(hidden=(teacher.L,)), width_between(student, teacher), False, terms)

    STRATEGIES["last-layer"] = last_layer

Nothing of torch is imported: tensors bring their methods along, and the budget reads the declarations without it.
"""
import math
from typing import NamedTuple, Optional

from budget import MLM, Lesson, Reads
from cli import UserError


# ---------------------------------------------------------------------------------------------------------------------
# Losses

def exact(x):
    """bf16 and fp16 to fp32; fp32 and float64 as they are."""
    return x.float() if x.element_size() < 4 else x


def kl(P, z_Q):
    """KL(P || Q) = sum_v P_v (log P_v - log Q_v) of distributions over the last axis, (..., V) -> (...): P as its
    logarithms, Q as scores before the softmax."""
    return (P.exp() * (P - z_Q.log_softmax(dim=-1))).sum(dim=-1)


def mlm_loss(logits, labels):
    """Masked language modelling (Devlin et al. 2018, section 3.1): logits (N, V), labels (N,) -> scalar.

    The mean over the masked positions; a negative label, like -100, is none, and its position does not count. Without any it is 0."""
    logits = exact(logits)
    counted = labels >= 0
    y = labels.clamp(min=0)
    # L = 1/N sum_n -log softmax(z_n)[y_n] = 1/N sum_n (log sum_v exp z_nv - z_n[y_n])
    z_y = logits.gather(1, y[:, None]).squeeze(1)            # (N, V) -> (N,)
    loss = (logits.logsumexp(dim=1) - z_y) * counted         # (N,)
    return loss.sum() / counted.sum().clamp(min=1)


def kd_loss(student_logits, teacher_logits, temperature=1.0):
    """Knowledge distillation (Hinton et al. 2015, section 2): logits (N, V), (N, V) -> scalar.

    Cross-entropy with the teacher's distribution: summed over the vocabulary, mean over the positions. Times t^2, so that the
    gradient keeps its size beside a hard loss. Its least value, where student equals teacher, is t^2 times the teacher's entropy."""
    z_S, z_T, t = exact(student_logits), exact(teacher_logits), temperature
    # L = t^2 1/N sum_n sum_v -softmax(z_T / t)_nv log softmax(z_S / t)_nv
    cross_entropy = -((z_T / t).softmax(dim=1) * (z_S / t).log_softmax(dim=1)).sum(dim=1)  # (N, V) -> (N,)
    return t ** 2 * cross_entropy.mean()


def kd_released_loss(student_logits, teacher_logits):
    """As Bui et al. released it: the mean over positions and vocabulary, and t = 1, so 1/V of `kd_loss`. With V = 30,522
    little more than MLM at the price of a teacher is left of it."""
    return kd_loss(student_logits, teacher_logits) / student_logits.shape[1]


def tinybert_loss(student_hidden, teacher_hidden, student_scores, teacher_scores):
    """TinyBERT (Jiao et al. 2020, equations 7 to 9): lists of (B, T, h') and of (B, A, T, T) -> scalar.

    The sum of the mean squared errors of mapped pairs: hidden states (the embeddings' output among them), the student's already
    projected to the teacher's width, and attention scores before the softmax."""
    # L = sum_m MSE(H_m W, H'_g(m)) + sum_m MSE(S_m, S'_g(m)), with S = Q K^T / sqrt(d) and g(m) = m L_T / L_S
    pairs = [*zip(student_hidden, teacher_hidden, strict=True), *zip(student_scores, teacher_scores, strict=True)]
    return sum((exact(s) - exact(t)).square().mean() for s, t in pairs)


def relation(x):
    """softmax's argument X X^T / sqrt(d) in each head: (B, R, T, d) -> (B, R, T, T), scaled dot products of all positions."""
    return exact(x @ x.transpose(2, 3)) / math.sqrt(x.shape[3])


def split(x, heads):
    """(B, T, h) -> (B, R, T, h / R): cut into relation heads."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)  # (B, T, h) -> (B, T, R, h/R) -> (B, R, T, h/R)


def relations_loss(student, teacher):
    """KL of the relations among positions, teacher || student: tuples of (B, R, T, d) and (B, R, T, d') -> scalar.
    Mean over heads, positions and sequences, and over the kinds of relation in the tuples."""
    # L = 1/K sum_k 1/(B R T) sum_brt KL(softmax(X'_k X'_k^T / sqrt(d'))_brt || softmax(X_k X_k^T / sqrt(d))_brt)
    return sum(kl(relation(t).log_softmax(dim=3), relation(s)).mean() for s, t in zip(student, teacher, strict=True)) / len(student)


def minilm_loss(student_qkv, teacher_qkv, relation_heads):
    """MiniLM v2 (Wang et al. 2021, equations 5 to 8): (q, k, v) of (B, T, h) and of (B, T, h'), all heads joined -> scalar.

    Heads are joined and cut again into `relation_heads`, which student and teacher can share whatever their own are. The
    paper's sum is weighted by alpha_ij; of its nine relations it trains QQ, KK and VV, at 1/3 each: hence the division by 3."""
    return relations_loss([split(x, relation_heads) for x in student_qkv], [split(x, relation_heads) for x in teacher_qkv])


def minilm_released_loss(student_qkv, teacher_qkv, student_heads, teacher_heads):
    """As Bui et al. released it: as many relation heads as the teacher has heads, and a reshape of the student's (B, A, T, d) to
    (B, A', T, h / A'), which mixes positions with heads where A is not A'. Where it is, this is `minilm_loss`."""
    B, T, h = student_qkv[0].shape
    mixed = [split(x, student_heads).reshape(B, teacher_heads, T, h // teacher_heads) for x in student_qkv]
    return relations_loss(mixed, [split(x, teacher_heads) for x in teacher_qkv])


def minilm_v1_loss(student_scores, teacher_scores, student_values, teacher_values):
    """MiniLM v1 (Wang et al. 2020, equations 3 to 6): scores (B, A, T, T), values (B, T, h) and (B, T, h') -> scalar.

    KL of the attention distributions of one layer, and KL of its value relations V V^T, head by head: A is the same in both."""
    A = student_scores.shape[1]
    # L_AT = 1/(B A T) sum KL(softmax(S') || softmax(S)), L_VR = the same of V V^T / sqrt(d), L = L_AT + L_VR
    L_AT = kl(exact(teacher_scores).log_softmax(dim=3), exact(student_scores)).mean()
    return L_AT + relations_loss([split(student_values, A)], [split(teacher_values, A)])


# ---------------------------------------------------------------------------------------------------------------------
# Strategies: (student's Size, teacher's Size, Options) -> Lesson

class Options(NamedTuple):
    temperature: float = 1.0
    relation_heads: Optional[int] = None
    teacher_layer: Optional[int] = None


def lesson(name, student, teacher=None, how=Options()):
    """The Lesson of a strategy for a student and a teacher (their Sizes). Its terms(s, t, labels, project) -> {name: scalar} take
    the two models' `Output`s. Raises UserError where the strategy and the pair do not fit, and says which student would."""
    if name != "scratch" and teacher is None:
        raise UserError(f"{name} learns from a teacher: say which with --teacher, a run's folder, a BERT's folder or a hub id")
    found = STRATEGIES[name](student, teacher, how)
    for option, value in how._asdict().items():
        if value != Options._field_defaults[option] and option not in found.options:
            raise UserError(f"--{option.replace('_', '-')} is nothing that {name} reads: leave it out")
    return found


def scratch(student, teacher, how):
    """Masked language modelling, no teacher."""
    return Lesson(MLM, terms=lambda s, t, labels, project: {"mlm": mlm_loss(s.logits, labels)})


def kd(student, teacher, how):
    """Vanilla KD: MLM + KD at the masked positions. (A block with fewer than k ordinary words fills the k up with visible
    [CLS] and [SEP], which have no label: there the student learns from the teacher alone.)"""
    return Lesson(MLM, MLM, options=("temperature",), terms=lambda s, t, labels, project: {
        "mlm": mlm_loss(s.logits, labels), "kd": kd_loss(s.logits, t.logits, how.temperature)})


def kd_released(student, teacher, how):
    # Released: the KD term is averaged over the vocabulary, too.
    return Lesson(MLM, MLM, terms=lambda s, t, labels, project: {
        "mlm": mlm_loss(s.logits, labels), "kd": kd_released_loss(s.logits, t.logits)})


def tinybert(student, teacher, how):
    """TinyBERT's general distillation: student layer m learns from teacher layer g(m) = m L_T / L_S, the embeddings' output
    (layer 0) from the teacher's; whole text (their code masks none), no MLM term. Where widths differ one matrix serves all
    layers, as in their code (the paper writes W_h for layers and W_e for the embeddings)."""
    same_heads("tinybert", student, teacher)
    if teacher.L % student.L:
        fitting = ", ".join(str(L) for L in range(1, teacher.L + 1) if teacher.L % L == 0)
        raise UserError(f"tinybert maps each of the student's {student.L} layers to every n-th of the teacher's {teacher.L}, which is no "
                        f"whole n: give the student one of {fitting} layers (--model)")
    layers = tuple(range(1, student.L + 1))
    g = tuple(m * teacher.L // student.L for m in layers)

    def terms(s, t, labels, project):
        return {"tinybert": tinybert_loss([project(s.hidden_states[m]) for m in (0, *layers)], [t.hidden_states[m] for m in (0, *g)],
                                          [s.scores[m] for m in layers], [t.scores[m] for m in g])}
    return Lesson(Reads(hidden=(0, *layers), scores=layers), Reads(hidden=(0, *g), scores=g), width_between(student, teacher), False, terms)


def tinybert_released(student, teacher, how):
    same_heads("tinybert-released", student, teacher)
    L, L_T = student.L, teacher.L

    def terms(s, t, labels, project):
        # Released: only the last layer of each, and what is called the embeddings' term compares the first layers' scores.
        return {"tinybert": tinybert_loss([project(s.hidden_states[L])], [t.hidden_states[L_T]],
                                          [s.scores[1], s.scores[L]], [t.scores[1], t.scores[L_T]])}
    return Lesson(Reads(hidden=(L,), scores=unique(1, L)), Reads(hidden=(L_T,), scores=unique(1, L_T)), width_between(student, teacher),
                  False, terms)


def minilm(student, teacher, how):
    """MiniLM v2: the relations of the student's last layer with those of one teacher layer; whole text, no MLM term. The passes
    end at the queries, keys and values of these layers: the feed-forward and the output projection of the student's last layer are
    neither run nor trained (`--mlm-finish` trains them)."""
    heads = relation_heads(student, teacher, how)

    def terms(s, t, labels, project):
        return {"minilm": minilm_loss(s.qkv[student.L], t.qkv[layer], heads)}
    layer = teacher_layer(teacher, how)
    return Lesson(Reads(qkv=(student.L,), relations=3), Reads(qkv=(layer,), relations=3), None, False, terms,
                  options=("relation_heads", "teacher_layer"))


def minilm_released(student, teacher, how):
    layer, A, A_T = teacher_layer(teacher, how), student.A, teacher.A
    if student.h % A_T:
        raise UserError(f"minilm-released cuts the student's width {student.h} into the teacher's {A_T} heads, and it does not divide: choose "
                        f"another --model, or --strategy minilm")

    def terms(s, t, labels, project):
        # Released: relation heads are the teacher's heads, and the student's heads are reshaped to them, not joined and cut.
        return {"minilm": minilm_released_loss(s.qkv[student.L], t.qkv[layer], A, A_T)}
    return Lesson(Reads(qkv=(student.L,), relations=3), Reads(qkv=(layer,), relations=3), None, False, terms, options=("teacher_layer",))


def minilm_v1(student, teacher, how):
    """MiniLM v1: attention distributions and value relations of the last layers."""
    same_heads("minilm-v1", student, teacher)
    L, layer = student.L, teacher_layer(teacher, how, usual=teacher.L)

    def terms(s, t, labels, project):
        return {"minilm": minilm_v1_loss(s.scores[L], t.scores[layer], s.qkv[L][2], t.qkv[layer][2])}
    return Lesson(Reads(scores=(L,), qkv=(L,), relations=1), Reads(scores=(layer,), qkv=(layer,), relations=1), None, False, terms,
                  options=("teacher_layer",))


STRATEGIES = {"scratch": scratch, "kd": kd, "tinybert": tinybert, "minilm": minilm, "minilm-v1": minilm_v1,
              "kd-released": kd_released, "tinybert-released": tinybert_released, "minilm-released": minilm_released}


def unique(*layers):
    return tuple(dict.fromkeys(layers))


def width_between(student, teacher):
    """The width that hidden states of the student must be projected to, or None where it is theirs."""
    return teacher.h if teacher.h != student.h else None


def same_heads(name, student, teacher):
    if student.A != teacher.A:
        raise UserError(f"{name} compares attention head by head, and the student has {student.A} heads, the teacher {teacher.A}: give the "
                        f"student {teacher.A}, like --model {student.L}x{student.h - student.h % teacher.A or teacher.A}h{teacher.A}")


def teacher_layer(teacher, how, usual=None):
    """The layer that MiniLM learns from: the last; for v2 in teachers above 12 layers an upper-middle one (the paper: 21 of
    BERT-large's 24)."""
    layer = how.teacher_layer or usual or (teacher.L if teacher.L <= 12 else round(teacher.L * 21 / 24))
    if layer > teacher.L:
        raise UserError(f"--teacher-layer {layer}: the teacher has {teacher.L} layers")
    return layer


def relation_heads(student, teacher, how):
    """Relation heads: the most that both widths can be cut into, down to 16 wide in the teacher (the paper: 48 for h = 768)."""
    common = math.gcd(student.h, teacher.h)
    fitting = [heads for heads in range(1, max(1, teacher.h // 16) + 1) if common % heads == 0]
    heads = how.relation_heads or fitting[-1]
    if common % heads:
        raise UserError(f"--relation-heads {heads} does not divide the widths {student.h} and {teacher.h}: one of {', '.join(map(str, fitting))} does")
    return heads
