"""What budget.py prints: the bill of a step, and the strategies' bills side by side."""
from program import cli
from program.cli import flops


def bill_table(args, size, k, rows, bought):
    """The bill of masked language modelling, line by line, and what the budget buys. args: the
    options of budget.py. size, k: the model and the masked words of a sequence. rows: the
    forward pass of one sequence, [(name, formula, FLOPs)]. bought: the budget's Plan."""
    V, T, B = args.vocab_size, args.seq_len, args.batch_size
    # F = sum of the rows; the backward pass costs 2 F
    total, step, C = sum(cost for _, _, cost in rows), bought.flops_per_step, bought.flops_budget
    per_weight = bought.tokens / size.encoder_parameters
    lines = [
        f"BERT {size}: L = {size.L} layers, h = {size.h}, A = {size.A} heads, f = {size.f}, "
        f"V = {V:,} words, T = {T} tokens, k = {k} masked", "",
        f"{'forward, one sequence':24} {'formula':12} {'FLOPs':>22} {'share':>7}",
        *(f"{name:24} {formula:12} {cost:22,} {cost / total:7.1%}" for name, formula, cost in rows),
        f"{'forward':24} {'F':12} {total:22,} {1:7.1%}", "",
        f"{'forward + backward':24} {'3 F':12} {3 * total:22,}",
        f"{'a token':24} {'3 F / T':12} {3 * total / T:22,.0f}",
        f"{f'a step of B = {B}':24} {'3 F B':12} {step:22,}", "",
        f"{flops(C)} FLOPs buy {bought.steps:,} steps = {bought.tokens:,} tokens "
        f"({per_weight:,.1f} for each of the encoder's {size.encoder_parameters:,} weights), and "
        f"leave {C - bought.flops_spent:,} FLOPs over"]
    if args.rate:
        seconds = bought.flops_spent / args.rate
        lines.append(f"at {flops(args.rate)} FLOP/s: {cli.duration(seconds)}")
    return "\n".join(lines)


def comparison(rows, refused, teacher, teacher_flops, students):
    """The strategies' bills side by side, in FLOPs a token. rows: {strategy: its bill}, and
    refused: {strategy: why it does not fit the pair}, from budget.strategies. students: how many
    share the teacher's training."""
    columns = {"forward": "student_forward_per_token", "backward": "student_backward_per_token",
               "teacher": "teacher_forward_per_token", "loss": "loss_per_token",
               "sum": "flops_per_token", "tokens": "tokens"}
    head = f"{'strategy':18} " + " ".join(f"{word:>9}" for word in columns) + f" {'of scratch':>10}"
    lines = [f"FLOPs a token, teacher BERT {teacher}", "",
             head + ("   with the teacher's training" if teacher_flops else "")]
    for name, row in rows.items():
        costs = " ".join(f"{flops(row[column]):>9}" for column in columns.values())
        line = f"{name:18} {costs} {row['share_of_scratch_tokens']:>10.1%}"
        if "share_with_teacher_training" in row:
            line += f" {row['share_with_teacher_training']:>10.1%}"
        lines.append(line)
    lines += [f"{name:18} not for this pair: {why}" for name, why in refused.items()]
    lines += ["", "The -released strategies are charged for what the paper's code computes: "
              "both passes to their end, with both MLM heads, whatever the loss reads."]
    if teacher_flops:
        lines += ["", f"The teacher's training cost {flops(teacher_flops)} FLOPs, "
                  f"{flops(teacher_flops // students)} for each of {students:,} "
                  f"student{'s' if students > 1 else ''}: the last column compares with a scratch "
                  "student that had this, too."]
    return "\n".join(lines)
