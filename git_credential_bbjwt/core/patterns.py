"""The patterns of ``--allow``: the repositories that may get tokens."""

from git_credential_bbjwt.core.repository import Repository, is_name


class Pattern:
    """A pattern ``workspace/slug``. In the slug, ``*`` stands for any characters. Case is ignored."""

    __slots__ = ("slug", "workspace")

    def __init__(self, workspace: str, slug: str) -> None:
        self.workspace = workspace
        self.slug = slug

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Parse a pattern. Raises UsageError."""
        workspace, slash, slug = text.lower().partition("/")
        slug = slug.removesuffix(".git")
        if not slash or not is_name(workspace) or not is_name(slug.replace("*", "x")):
            from git_credential_bbjwt.core.failures import UsageError  # A cached answer needs no errors.

            raise UsageError(
                "--allow needs WORKSPACE/SLUG, with * in SLUG for any characters",
                "write for example --allow 'acme/lib-*'",
            )
        return cls(workspace, slug)

    def allows(self, repository: Repository) -> bool:
        """Return whether the pattern matches ``repository``, which is named by its slugs."""
        if repository.workspace != self.workspace:
            return False
        first, *rest = self.slug.split("*")
        name = repository.name
        if not rest:
            return name == first
        last = rest.pop()
        if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
            return False
        name = name[len(first) : len(name) - len(last)]
        for part in rest:  # The leftmost match leaves the most text for the following parts.
            position = name.find(part)
            if position < 0:
                return False
            name = name[position + len(part) :]
        return True

    def __str__(self) -> str:
        return f"{self.workspace}/{self.slug}"
