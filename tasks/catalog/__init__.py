"""The tasks, one file each; a file that two of them share stands in `parts`."""
