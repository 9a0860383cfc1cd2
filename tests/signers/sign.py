"""Prints a token for each key: PyJWT."""
import json, sys
import jwt

keys, claims = sys.argv[1], {"sub": "alice", "exp": 4102444800, "iat": 1800000000, "aud": ["todos"]}
for algorithm, name in [("RS256", "rsa"), ("PS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")]:
    key = open(f"{keys}/{name}.pem").read()
    token = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": name})
    print(json.dumps({"signer": f"PyJWT {jwt.__version__}", "alg": algorithm, "token": token}))
secret = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
for algorithm in ["HS256", "HS384", "HS512"]:
    token = jwt.encode(claims, secret, algorithm=algorithm)
    print(json.dumps({"signer": f"PyJWT {jwt.__version__}", "alg": algorithm, "token": token}))
