"""Second pass: the prompt is read twice, each layer beginning again from its own last state."""
