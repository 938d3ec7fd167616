"""Tests of the op catalogue."""
