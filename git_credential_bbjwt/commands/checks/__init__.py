"""The checks of `doctor`, one subject per module."""
