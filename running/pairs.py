"""A student beside its teacher: does it fit, and which of the teacher's layers does it begin with?

A strategy asks here whether two Sizes (budget.Size) fit. What does not fit raises UserError, and
the message names a student that does.
"""
import math

from program.cli import UserError


def same_heads(name, student, teacher):
    """Raises UserError unless both have the same number of heads."""
    if student.A != teacher.A:
        h = max(teacher.A, student.h - student.h % teacher.A)  # the next width that A' divides
        raise UserError(f"{name} compares attention head by head, and the student has {student.A} "
                        f"heads, the teacher {teacher.A}: give the student {teacher.A}, like "
                        f"--model {student.L}x{h}h{teacher.A}")


def teacher_layer(teacher, options, default=None):
    """The layer that MiniLM learns from: the teacher's last one. Where a teacher of v2 is deeper
    than 12 layers, it is the one 7/8 of the way up (the paper takes 21 of BERT-large's 24)."""
    last_or_upper_middle = teacher.L if teacher.L <= 12 else round(teacher.L * 21 / 24)
    layer = options.teacher_layer or default or last_or_upper_middle
    if layer > teacher.L:
        raise UserError(f"--teacher-layer {layer}: the teacher has {teacher.L} layers")
    return layer


def relation_heads(student, teacher, options):
    """The most relation heads that both widths can be cut into, each at least 16 wide in the
    teacher (the paper takes 48 for h = 768)."""
    common = math.gcd(student.h, teacher.h)
    fitting = [heads for heads in range(1, max(1, teacher.h // 16) + 1) if common % heads == 0]
    heads = options.relation_heads or fitting[-1]
    if common % heads:
        raise UserError(f"--relation-heads {heads} does not divide the widths {student.h} and "
                        f"{teacher.h}: one of {', '.join(map(str, fitting))} does")
    return heads


def copied_layers(L_S, L_T):
    """The teacher layers, numbered from 1, that a student of L_S layers begins with: evenly spread
    from the first to the last. For 12 -> 6 they are those of DistilBERT's script (1, 3, 5, 8, 10,
    12)."""
    return [1 + round(m * (L_T - 1) / max(1, L_S - 1)) for m in range(L_S)]


def copy_teacher(student, teacher):
    """--init teacher, --start-from: copies embeddings, layers, and the MLM head where both models
    have one. With as many layers as the teacher the student is its copy."""
    copies = copied_layers(student.config.num_hidden_layers, teacher.config.num_hidden_layers)
    weights = teacher.state_dict()
    for name, own in student.state_dict().items():
        if name.startswith("layers."):
            _, m, rest = name.split(".", 2)
            name = f"layers.{copies[int(m)] - 1}.{rest}"
        if name in weights:
            theirs = weights[name]
            if name == "embeddings.position_embeddings.weight":  # the student's may be shorter
                theirs = theirs[:len(own)]
            own.copy_(theirs)
