"""Bitbucket: JWTs, the two requests of a mint, the way there."""
