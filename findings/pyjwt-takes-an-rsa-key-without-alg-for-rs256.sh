#!/bin/sh
# If an RSA key of a JWKS does not name an algorithm, PyJWT's PyJWK refuses every token that is not signed with RS256.
#
# PyJWT 2.15.1, beside joserfc 1.8.0 and jwcrypto 1.6.1, which accept the tokens. `alg` is optional in a JWK (RFC 7517, section
# 4.4), and issuers leave it out. One expects that the `algorithms` of `decode` decide then. PyJWK sets RS256 for a key without
# `alg`, and `decode` compares the token with it: the error names "the key's algorithm", which is nowhere in the JWKS. The same
# key as `key.key` verifies the token. The documentation says that PyJWK uses the key's `alg`, but not which one if it has none.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    PyJWT==2.15.1 cryptography==50.0.2 joserfc==1.8.0 jwcrypto==1.6.1

cat >"$folder/try.py" <<'EOF'
import joserfc.jwk
import joserfc.jwt
import jwcrypto.jwk
import jwcrypto.jwt
import jwt

private = jwcrypto.jwk.JWK.generate(kty="RSA", size=2048, kid="key", use="sig")
public = private.export_public(as_dict=True)
signing = jwt.algorithms.RSAAlgorithm.from_jwk(private.export())
print("the key says:", sorted(set(public) - {"n", "e"}))
for algorithm in ("RS256", "RS512", "PS256"):
    token = jwt.encode({"sub": "subject"}, signing, algorithm=algorithm, headers={"kid": "key"})
    key = jwt.PyJWKSet([public])["key"]
    for name, verify in {
        "PyJWK": lambda: jwt.decode(token, key, algorithms=[algorithm]),
        "PyJWK.key": lambda: jwt.decode(token, key.key, algorithms=[algorithm]),
        "joserfc": lambda: joserfc.jwt.decode(token, joserfc.jwk.import_key(public), algorithms=[algorithm]),
        "jwcrypto": lambda: jwcrypto.jwt.JWT(jwt=token, key=private, algs=[algorithm]),
    }.items():
        try:
            verify()
            print(algorithm, name, "accepts")
        except jwt.InvalidTokenError as problem:
            print(algorithm, name, "refuses:", problem)
EOF
cat >"$folder/expected" <<'EOF'
the key says: ['kid', 'kty', 'use']
RS256 PyJWK accepts
RS256 PyJWK.key accepts
RS256 joserfc accepts
RS256 jwcrypto accepts
RS512 PyJWK refuses: Token algorithm 'RS512' does not match the key's algorithm 'RS256'
RS512 PyJWK.key accepts
RS512 joserfc accepts
RS512 jwcrypto accepts
PS256 PyJWK refuses: Token algorithm 'PS256' does not match the key's algorithm 'RS256'
PS256 PyJWK.key accepts
PS256 joserfc accepts
PS256 jwcrypto accepts
EOF
HOME=$folder "$folder/venv/bin/python" "$folder/try.py" >"$folder/seen"

cat "$folder/seen"
diff "$folder/expected" "$folder/seen" >&2 || {
    echo "this is no longer as it was found" >&2
    exit 1
}
