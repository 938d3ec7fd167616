"""Tests of the backends: CuPy's as far as a machine without a GPU can see it, and the emulated one."""
