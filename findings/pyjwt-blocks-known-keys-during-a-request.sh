#!/bin/sh
# While PyJWT requests the keys of an issuer for one token, it verifies no other token of that issuer.
#
# PyJWT 2.15.1, beside npm's jose 6.2.18. Both look for a token's key in the JWKS that they have, and if it is not there, as after
# the issuer has changed its key, they request the JWKS again. One expects that meanwhile tokens with known keys are verified, as
# with jose. PyJWKClient holds a lock from the search to the end of the request, so all threads wait, by default for up to 30 s
# (`timeout`). Its documentation describes the request and the timeout, and no lock. If the issuer is slow then, a broker is slow
# for all its jobs. An application can look for the `kid` in `get_jwk_set()` first, which does not wait. The script sets
# `cooldown_duration` to 0; by default, the JWKS is requested again at the earliest 30 s after the last time.
#
# Needs node and npm.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HOME="$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check PyJWT==2.15.1 cryptography==50.0.2
npm install --silent --no-audit --no-fund --prefix "$folder" jose@6.2.18 >/dev/null

cat >"$folder/try.mjs" <<'END'
import { createRemoteJWKSet, jwtVerify } from "jose";

const [url, known, unknown] = process.argv.slice(2);
const keys = createRemoteJWKSet(new URL(url), { cooldownDuration: 0 });
await jwtVerify(known, keys);
const answers = [];
async function verify(name, token) {
  const end = await jwtVerify(token, keys).then(() => "verified", () => "refused");
  answers.push(`${name} ${end}`);
}
await Promise.all([verify("unknown", unknown), verify("known", known)]);
console.log(answers.join(", then "));
END
cat >"$folder/try.py" <<'END'
import http.server
import json
import os
import subprocess
import threading

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

private = rsa.generate_private_key(65537, 2048)
public = jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key(), as_dict=True) | {"kid": "known", "alg": "RS256"}


class Server(http.server.BaseHTTPRequestHandler):
    """Answer the first request of a client at once, and the second after at most 3 s."""

    def do_GET(self) -> None:
        if first_request.is_set():
            second_request.set()
            go_on.wait(3)
        first_request.set()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"keys": [public]}).encode())

    def log_message(self, *_: object) -> None:
        pass


def verify(kid: str) -> None:
    try:
        jwt.decode(tokens[kid], client.get_signing_key_from_jwt(tokens[kid]), algorithms=["RS256"])
    except jwt.PyJWKClientError:
        pass  # The key is still unknown after the request.


first_request, second_request, go_on = threading.Event(), threading.Event(), threading.Event()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/keys"
tokens = {kid: jwt.encode({"sub": "job"}, private, "RS256", headers={"kid": kid}) for kid in ("known", "unknown")}
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

client = jwt.PyJWKClient(url, cooldown_duration=0)
verify("known")
threading.Thread(target=verify, args=("unknown",)).start()
second_request.wait()
known = threading.Thread(target=verify, args=("known",))
known.start()
known.join(1)
print("PyJWT: during the request, the known key", "waits" if known.is_alive() else "is used")
client.get_jwk_set()["known"]
print("PyJWT: during the request, get_jwk_set has it" if known.is_alive() else "too late")
go_on.set()
known.join(60)
print("PyJWT: after the request, the known key", "waits" if known.is_alive() else "is used")

first_request.clear()
go_on.clear()
node = ["node", f"{os.environ['HOME']}/try.mjs", url, *tokens.values()]
print("jose:", subprocess.run(node, capture_output=True, text=True, check=True, timeout=60).stdout.strip())
END
cat >"$folder/expected" <<'END'
PyJWT: during the request, the known key waits
PyJWT: during the request, get_jwk_set has it
PyJWT: after the request, the known key is used
jose: known verified, then unknown refused
END
"$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
