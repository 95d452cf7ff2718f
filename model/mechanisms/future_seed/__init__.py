"""Future-Seed: each layer starts the prompt from the layer below's last state, gated."""
