#!/bin/sh
# google-auth's verify_token ignores its parameter clock_skew_in_seconds if the issuer publishes a JWKS.
#
# google-auth 2.63.0 with PyJWT 2.15.1. The keys at `certs_url` can be X.509 certificates, as Google publishes them, or a JWKS, as
# the issuers of CI services publish it, and the documentation describes one `clock_skew_in_seconds` for both. With a JWKS,
# `verify_token` calls PyJWT without a leeway. It then refuses a token if the issuer's clock is 1 s ahead, whatever the caller
# allows. The documentation also says that without an `audience` the audience is not verified; with a JWKS, every token that has
# one is refused.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    google-auth==2.63.0 PyJWT==2.15.1 cryptography==50.0.2 requests==2.34.2 trustme==1.2.1

cat >"$folder/try.py" <<'EOF'
import http.server
import json
import threading
import time

import jwt
import requests
import trustme
from cryptography import x509
from google.auth.transport.requests import Request
from google.oauth2.id_token import verify_token

issued = trustme.CA(key_type=trustme.KeyType.RSA).issue_cert("issuer", key_type=trustme.KeyType.RSA)
private = issued.private_key_pem.bytes()
certificate = issued.cert_chain_pems[0].bytes()
public = jwt.algorithms.RSAAlgorithm.to_jwk(x509.load_pem_x509_certificate(certificate).public_key(), as_dict=True)
PUBLISHED = {
    "/certificates": {"key": certificate.decode()},
    "/jwks": {"keys": [{"kty": "RSA", "alg": "RS256", "kid": "key", "n": public["n"], "e": public["e"]}]},
}


class Issuer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(PUBLISHED[self.path]).encode())

    def log_message(self, *_: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
threading.Thread(target=server.serve_forever, daemon=True).start()
session = requests.Session()
session.trust_env = False
request = Request(session)
for name, seconds, settings in (
    ("issued now", 0, {"audience": "me"}),
    ("issued in 10 s, clock skew 60 s", 10, {"audience": "me", "clock_skew_in_seconds": 60}),
    ("expired 10 s ago, clock skew 60 s", -310, {"audience": "me", "clock_skew_in_seconds": 60}),
    ("issued now, no audience asked for", 0, {}),
):
    now = int(time.time()) + seconds
    claims = {"aud": "me", "iat": now, "exp": now + 300}
    token = jwt.encode(claims, private, "RS256", headers={"kid": "key"})
    for path in PUBLISHED:
        try:
            verify_token(token, request, certs_url=f"http://127.0.0.1:{server.server_port}{path}", **settings)
            print(f"{name}, {path[1:]}: accepted")
        except jwt.InvalidTokenError as problem:
            print(f"{name}, {path[1:]}: {problem}")
EOF
cat >"$folder/expected" <<'EOF'
issued now, certificates: accepted
issued now, jwks: accepted
issued in 10 s, clock skew 60 s, certificates: accepted
issued in 10 s, clock skew 60 s, jwks: The token is not yet valid (iat)
expired 10 s ago, clock skew 60 s, certificates: accepted
expired 10 s ago, clock skew 60 s, jwks: Signature has expired
issued now, no audience asked for, certificates: accepted
issued now, no audience asked for, jwks: Invalid audience
EOF
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
