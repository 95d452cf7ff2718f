"""The command line: commands, doctor, task pages, completion.

Commands go the way of `fstune.api`; nothing is decided here.
"""
