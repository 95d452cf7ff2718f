"""Learned state: every layer starts the prompt from a trained state, the same for all prompts."""
