"""Libraries imported without what they load and nothing here uses: by many threads, and all is there afterwards."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = r"""
import sys, threading
from git_credential_bbjwt.system import light_imports
light_imports.of_python()

def load(barrier):
    barrier.wait()
    for library in (light_imports.https_connection, light_imports.jws_encoder):
        library()

failed = []
threading.excepthook = lambda problem: failed.append(problem.exc_value)
barrier = threading.Barrier(8)
threads = [threading.Thread(target=load, args=(barrier,)) for _ in range(8)]
for one in threads:
    one.start()
for one in threads:
    one.join()
assert not failed, failed
left_out = {"urllib3.poolmanager", "urllib3.util.url", "urllib3.util.retry", "urllib3.util.ssl_match_hostname"}
left_out |= {"jwt.jwks_client", "jwt.api_jwt", "cryptography", "urllib.request", "email.charset", "email.header"}
left_out |= {"bisect", "locale", "_pydatetime"}  # What `random`, `calendar` and `datetime` would have loaded.
assert not left_out & set(sys.modules), left_out & set(sys.modules)

# What was left out is loaded by who needs it all the same.
url = sys.modules["urllib3.connection"].Url(scheme="https", host="localhost", port=443)
assert url.url == "https://localhost:443"
assert sys.modules["urllib3.util.ssl_"].is_ipaddress("127.0.0.1")
assert not sys.modules["urllib3.util.ssl_"].is_ipaddress("localhost")
assert light_imports.https_connection()("localhost", 443).port == 443
try:
    sys.modules["urllib3.connection"].match_hostname({"subject": ()}, "localhost")
    raise SystemExit("a certificate without a name")
except ValueError as refused:
    assert type(refused).__name__ in ("CertificateError", "ValueError"), refused
from email.utils import make_msgid, parsedate_to_datetime
assert parsedate_to_datetime("Thu, 26 Nov 2026 08:00:00 GMT").year == 2026
assert make_msgid(domain="localhost").endswith("@localhost>")
import array, calendar, datetime, ipaddress, random
assert array.array("i", [1])[0] == 1 and calendar.timegm((1970, 1, 1, 0, 0, 0)) == 0
assert ipaddress.ip_address("127.0.0.1").is_loopback and 0 <= random.random() < 1
from urllib.parse import urlsplit
assert urlsplit("https://[::1]:8443/").hostname == "::1"
assert datetime.datetime(2026, 11, 26).year == 2026

import importlib.metadata, logging, urllib.request, jwt, urllib3
assert importlib.metadata.version("PyJWT")
assert urllib.request.urlopen
assert logging.getLogger("urllib3.connectionpool").name == "urllib3.connectionpool"
assert jwt.encode({}, "x" * 32) == light_imports.jws_encoder().encode(b"{}", "x" * 32)
assert urllib3.connection.HTTPSConnection is light_imports.https_connection()
pool = urllib3.PoolManager().connection_from_url("https://localhost")
assert pool.ConnectionCls is light_imports.https_connection()
"""


def test_libraries_load_without_what_is_not_needed_and_all_is_there_afterwards() -> None:
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
