"""RWKV-7 with Future-Seed: the model, its checkpoints and tokenizers. Knows no search."""
