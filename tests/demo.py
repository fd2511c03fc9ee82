"""The demonstration of ``install.sh --demo``: the whole job on this machine, with an emulator in Bitbucket's place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.emulator import Emulator, Seen

COMMAND = Path(sys.executable).with_name("git-credential-bbjwt")


class Story:
    """A story that is printed step by step."""

    def __init__(self) -> None:
        self._step = 0
        colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._bold, self._plain = ("\033[1m", "\033[0m") if colour else ("", "")

    def step(self, title: str) -> None:
        """Begin a step."""
        self._step += 1
        print(f"\n{self._bold}{self._step}. {title}{self._plain}", flush=True)

    def say(self, text: str) -> None:
        """Say a line within a step. It is wrapped at 80 columns and keeps its indentation."""
        indent = " " * (3 + len(text) - len(text.lstrip()))
        lines = textwrap.wrap(text.strip(), 80 - len(indent), break_long_words=False, break_on_hyphens=False)
        print(textwrap.indent("\n".join(lines), indent), flush=True)


class Machine:
    """A machine with the app's installation and a separate home."""

    def __init__(self, place: Path, emulator: Emulator, payload: dict[str, object]) -> None:
        self.home = place / "home"
        runtime = place / "run"
        self.home.mkdir()
        runtime.mkdir(mode=0o700)
        installation = place / "installation.json"
        installation.touch(0o600)
        installation.write_text(json.dumps(payload))
        self._environment = {
            "HOME": str(self.home),
            "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(runtime),
            "BBJWT_INSTALLATION": str(installation),
            "SSL_CERT_FILE": str(emulator.ca_file),
            "GIT_SSL_CAINFO": str(emulator.ca_file),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            **{f"GIT_{who}_NAME": "Demo" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "demo@example.invalid" for who in ("AUTHOR", "COMMITTER")},
        }

    def run(self, *command: str, folder: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        environment = self._environment | changes
        return subprocess.run(command, env=environment, cwd=self.home / folder, capture_output=True, text=True)

    def must(self, *command: str, folder: str = "", **changes: str) -> str:
        """Run a command that must succeed; return its standard output."""
        done = self.run(*command, folder=folder, **changes)
        if done.returncode != 0:
            sys.exit(f"the demo failed: {' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout


def shown(seen: Seen) -> list[str]:
    """Return a request as the demo shows it, without the proof of the app's identity."""
    origin = "bitbucket.org" if seen.origin == "base" else "api.bitbucket.org"
    lines = [f"{seen.method} https://{origin}{seen.path}", "    Authorization: JWT [redacted]"]
    return lines + [f"    {name}={value}" for name, value in [*seen.query, *seen.form.items()]]


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Return git's line with the reason of a failure."""
    if done.returncode == 0:
        sys.exit("the demo failed: what has to be refused was allowed")
    said = [line for line in done.stderr.splitlines() if "403" in line or line.startswith("fatal")]
    return said[0] if said else f"git failed with status {done.returncode}"


def tell(place: Path) -> None:
    """Run the demo and print the story."""
    story = Story()
    print("git-credential-bbjwt on this machine, with an emulator in Bitbucket's place.")
    with Emulator(place / "bitbucket") as bitbucket:
        app = bitbucket.install("acme", key="acme-builds")
        widgets = bitbucket.host_repository("acme/widgets", {"hello.txt": "Hello from a private repository.\n"})
        gadgets = bitbucket.host_repository("acme/gadgets")
        machine = Machine(place, bitbucket, bitbucket.payload(app))

        story.step("A workspace, an app, a private repository")
        story.say(
            f"The app {app.key} is installed on the workspace acme; this machine holds its `installed` payload, "
            "whose shared secret opens every repository of the workspace. acme/widgets is private:"
        )
        anonymous = machine.run("git", "clone", "-q", bitbucket.url(widgets), "no")
        story.say("git clone, as it is: " + refusal(anonymous))

        story.step("Switch the helper on: git-credential-bbjwt configure")
        machine.must(str(COMMAND), "configure")
        for line in machine.must("git", "config", "--global", "--get-regexp", "^credential").splitlines():
            story.say(line)

        story.step("git clone, with nobody at a prompt")
        machine.must("git", "clone", "-q", bitbucket.url(widgets), "widgets")
        story.say("git asked the helper: protocol=https, the host, path=acme/widgets.git")
        story.say("the helper asked Bitbucket which repository that is, then swapped a JWT for a token:")
        for seen in bitbucket.helper_requests():
            for line in shown(seen):
                story.say("  " + line)
        (token,) = bitbucket.tokens.values()
        story.say(
            f"the token may: {', '.join(sorted(token.scopes))} (read), on {token.repository} alone, for two hours"
        )
        story.say("cloned: " + (machine.home / "widgets/hello.txt").read_text().strip())

        story.step("git fetch uses the same token: no request to Bitbucket's API")
        before = len(bitbucket.helper_requests())
        machine.must("git", "fetch", "-q", folder="widgets")
        story.say(f"requests of the helper: {len(bitbucket.helper_requests()) - before}")

        story.step("A push is refused: the token reads, no more")
        machine.must("git", "commit", "-q", "--allow-empty", "-m", "not allowed", folder="widgets")
        story.say(refusal(machine.run("git", "push", "-q", folder="widgets")))

        story.step("Another repository is refused: the token is for acme/widgets alone")
        (password,) = bitbucket.tokens
        answer = '!f() { printf "username=x-token-auth\\npassword=$TOKEN\\n"; }; f'
        reset = f"credential.{bitbucket.base_url}.helper="
        handed = ("git", "-c", reset, "-c", f"credential.helper={answer}", "ls-remote", bitbucket.url(gadgets))
        story.say(refusal(machine.run(*handed, TOKEN=password)))

        story.step("Done")
        story.say("Everything was on this machine, and the folder it was in is removed now.")


if __name__ == "__main__":
    tell(Path(sys.argv[1]))
