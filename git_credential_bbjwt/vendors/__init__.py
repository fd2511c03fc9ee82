"""Vendors of tokens: Bitbucket for an installation, an installation command, a broker."""
