#!/bin/sh
# One key on a curve that joserfc does not know makes joserfc refuse the whole JWKS, with a KeyError.
#
# joserfc 1.8.0, beside PyJWT 2.15.1 and jwcrypto 1.6.1, which use the other keys. RFC 7517, section 5, says that implementations
# should ignore a key whose type they do not understand or whose values they do not support. joserfc ignores a key of an unknown
# `kty` (https://github.com/authlib/joserfc/pull/103), so one expects that it ignores any key that it cannot use. An EC key with
# an unknown `crv` raises a KeyError, which is not a JoseError. A `use` that is neither `sig` nor `enc`, which section 4.2 allows,
# raises a KeyParameterError. An issuer that adds such a key ends all logins at the verifiers that use joserfc.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    joserfc==1.8.0 PyJWT==2.15.1 jwcrypto==1.6.1 cryptography==50.0.2

cat >"$folder/try.py" <<'EOF'
import json
from collections.abc import Callable

import joserfc.jwk
import joserfc.jwt
import jwcrypto.jwk
import jwcrypto.jwt
import jwt

private = jwcrypto.jwk.JWK.generate(kty="RSA", size=2048, kid="key")
public = private.export_public(as_dict=True)
token = jwt.encode(
    {"sub": "subject"}, jwt.algorithms.RSAAlgorithm.from_jwk(private.export()), "RS256", headers={"kid": "key"}
)
# A key on a Brainpool curve (RFC 5639), as the issuers of Germany's health network publish it.
curve = jwcrypto.jwk.JWK.generate(kty="EC", crv="BP-256", kid="other").export_public(as_dict=True)
others = {
    "no other key": [],
    "kty AKP": [{"kty": "AKP", "kid": "other", "alg": "ML-DSA-44", "pub": "AAAA"}],
    "crv BP-256": [curve],
    "use tls": [{**public, "kid": "other", "use": "tls"}],
}


def accepts(verify: Callable[[], object]) -> str:
    try:
        verify()
    except Exception as problem:  # The errors have no common base.
        return repr(problem)
    return "accepts"


for name, other in others.items():
    keys = {"keys": [public, *other]}
    print(name)
    print("  PyJWT:", accepts(lambda: jwt.decode(token, jwt.PyJWKSet.from_dict(keys)["key"], algorithms=["RS256"])))
    print("  jwcrypto:", accepts(lambda: jwcrypto.jwt.JWT(jwt=token, key=jwcrypto.jwk.JWKSet.from_json(json.dumps(keys)))))
    print("  joserfc:", accepts(lambda: joserfc.jwt.decode(token, joserfc.jwk.KeySet.import_key_set(keys))))
EOF
cat >"$folder/expected" <<'EOF'
no other key
  PyJWT: accepts
  jwcrypto: accepts
  joserfc: accepts
kty AKP
  PyJWT: accepts
  jwcrypto: accepts
  joserfc: accepts
crv BP-256
  PyJWT: accepts
  jwcrypto: accepts
  joserfc: KeyError('BP-256')
use tls
  PyJWT: accepts
  jwcrypto: accepts
  joserfc: KeyParameterError("key_parameter: 'use' must be one of ['sig', 'enc']")
EOF
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
