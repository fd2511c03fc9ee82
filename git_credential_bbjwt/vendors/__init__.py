"""What gives a token: Bitbucket for an installation, a command, a broker."""
