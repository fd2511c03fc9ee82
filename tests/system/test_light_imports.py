"""Libraries imported without what they load and nothing here uses: by many threads, and all is there afterwards."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, threading
from git_credential_bbjwt.system.light_imports import without

def load(barrier):
    barrier.wait()
    for names, library in ((("importlib.metadata",), "urllib3.connection"), (("cryptography",), "jwt")):
        with without(*names):
            __import__(library)

failed = []
threading.excepthook = lambda problem: failed.append(problem.exc_value)
barrier = threading.Barrier(8)
threads = [threading.Thread(target=load, args=(barrier,)) for _ in range(8)]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert not failed, failed
import importlib.metadata, urllib.request, jwt
assert importlib.metadata.version("PyJWT")
assert urllib.request.urlopen
assert jwt.encode({}, "x" * 32, algorithm="HS256")
"""


def test_libraries_load_without_what_is_not_needed_and_all_is_there_afterwards() -> None:
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
