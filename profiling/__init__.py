"""Measurements of gpujac that need a clock: `make bench` and what it is made of."""
