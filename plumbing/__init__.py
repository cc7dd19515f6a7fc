"""What the seven concepts stand on: files, tokens, tokenizers and models."""
