"""Tests of the transforms: a file per transform, per pair, and per promise of the design."""
