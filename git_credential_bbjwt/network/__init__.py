"""HTTPS by the same route as git's."""
