"""The commands of the command line, each one call; see `cli.py`."""
