"""The native engine: dense networks on a CPU, one member after the other, in compiled code."""
