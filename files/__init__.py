"""Reading and writing: text, tokens, tokenizers, checkpoints, GLUE."""
