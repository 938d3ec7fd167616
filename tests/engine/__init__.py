"""Tests of fused programs."""
