"""`python -m fstune.cli`, where the script `fstune` is not on the path."""

from fstune.cli.commands import main

main()
