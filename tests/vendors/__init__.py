"""Tests of the vendors of tokens."""
