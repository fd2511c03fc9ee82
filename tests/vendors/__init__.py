"""Tests of what gives a token."""
