"""Searches that come with fstune: one YAML file each, found by name."""
