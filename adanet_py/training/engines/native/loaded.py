"""Importing this module loads the compiled code: for a process from which workers are forked."""

from adanet_py.training.engines.native.warm import load

load()
