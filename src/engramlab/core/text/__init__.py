"""Text to tokens and batches: the one space rule, tokenizers, token rows."""
