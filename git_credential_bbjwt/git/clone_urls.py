"""Parse clone URLs: https, and the ssh forms of Bitbucket.

Source: "Set up personal SSH keys" and "SSH host ssh.bitbucket.org" of Bitbucket's documentation (November 2026).
"""

from git_credential_bbjwt.core.failures import NotARepositoryError
from git_credential_bbjwt.core.repository import CLOUD_HOST, Repository, normal_host, parse_path

#: Bitbucket Cloud's hosts for ssh, all of which serve the repositories of `CLOUD_HOST`.
SSH_HOSTS = (CLOUD_HOST, "ssh.bitbucket.org")

#: Bitbucket Cloud's host for ssh on the port of https, for networks that block ssh's port.
SSH_HOST_BEHIND_FIREWALLS = "altssh.bitbucket.org:443"

_HINT = "write its clone URL, such as https://bitbucket.org/acme/widgets"


def ssh_forms(host: str) -> list[str]:
    """Return the beginnings of ssh URLs for ``host`` (a host of https URLs, perhaps with a port)."""
    # A port in ``host`` is for https, so it is dropped.
    name = host[: host.rfind("]") + 1] or host.partition(":")[0]
    hosts = SSH_HOSTS if host == CLOUD_HOST else (name,)
    forms = [
        form
        for ssh in hosts
        for form in (f"git@{ssh}:", f"ssh://git@{ssh}/", f"ssh://git@{ssh}:22/", f"git+ssh://git@{ssh}/")
    ]
    return [*forms, f"ssh://git@{SSH_HOST_BEHIND_FIREWALLS}/"] if host == CLOUD_HOST else forms


def parse_url(url: str) -> Repository:
    """Return the repository of a clone URL. Raises NotARepositoryError."""
    if url.startswith("git@") and "/" not in url.partition(":")[0]:
        host, _, path = url.removeprefix("git@").partition(":")
        is_ssh = True
    else:
        scheme, separator, rest = url.partition("://")
        is_ssh = scheme.lower() in ("ssh", "git+ssh", "ssh+git")
        if not separator or not (is_ssh or scheme.lower() == "https"):
            raise NotARepositoryError("this is not an https or ssh URL of a repository", _HINT)
        authority, _, path = rest.partition("/")
        user, _, host = authority.rpartition("@")
        if is_ssh and user != "git":
            raise NotARepositoryError("this is not an ssh URL of Bitbucket: its user is not git", _HINT)
    if is_ssh:
        # Only ASCII letters change, so that no other letter becomes an ASCII letter.
        host = _https_host(host.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape"))
    if not host:
        raise NotARepositoryError("the URL does not name a host", _HINT)
    try:
        return parse_path(normal_host(host), path.encode("utf-8", "surrogateescape"))
    except NotARepositoryError as problem:
        raise NotARepositoryError(problem.what, _HINT) from problem


def _https_host(ssh_host: str) -> str:
    """Return the https host of the same repositories. Raises NotARepositoryError."""
    if ssh_host == SSH_HOST_BEHIND_FIREWALLS:
        return CLOUD_HOST
    name = ssh_host.removesuffix(":22")
    if "@" in name or ":" in name.rpartition("]")[2]:
        raise NotARepositoryError("this is not an ssh URL of Bitbucket: it names another user or port", _HINT)
    return CLOUD_HOST if name in SSH_HOSTS else name
