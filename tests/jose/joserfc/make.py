"""Makes tokens with joserfc. One JSON line in, one out: first the names and kinds of keys to make, then one token a line. What joserfc does not
make, or makes another way than asked, is put together by hand from its keys and its signatures, and said so."""
import base64, importlib.metadata, json, sys, warnings
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

warnings.simplefilter("ignore")
ALL = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA", "HS256", "HS384", "HS512", "none"]
registry = jws.JWSRegistry(algorithms=ALL, strict_check_header=False)
keys = {}


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def make_keys(asked):
    told = {}
    for name, spec in asked.items():
        kind = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}[spec["kind"]]
        key = keys[name] = kind.generate_key(spec.get("size") or spec["crv"], auto_kid=False)
        told[name] = {
            "private": key.as_dict(private=True),
            "public": key.as_dict(private=False),
            "pem": key.as_pem(private=False).decode(),
            "der": encode(key.as_der(private=False)),
        }
    return {"library": f"joserfc {importlib.metadata.version('joserfc')}", "keys": told}


def key_of(row):
    return OctKey.import_key(decode(row["secret"])) if "secret" in row else keys[row["key"]]


def by_library(row):
    if row["exact"]:
        raise ValueError("it writes headers its own way")
    header = json.loads(row["header"])
    made = jws.serialize_compact(dict(header), decode(row["payload"]), key_of(row), algorithms=ALL, registry=registry)
    parts = made.split(".")
    if json.loads(decode(parts[0])) != header or parts[1] != row["payload"]:
        raise ValueError("it writes another token")
    # Nothing is signed under another name than the row's.
    if header["alg"] != row["alg"]:
        raise ValueError("it signs as the header says")
    return made


def by_hand(row):
    text = f"{encode(row['header'].encode())}.{row['payload']}"
    if row["alg"] == "none":
        return text + "."
    algorithm = registry.get_alg(row["alg"])
    if "secret" in row:
        import hashlib, hmac

        return f"{text}.{encode(hmac.digest(decode(row['secret']), text.encode(), getattr(hashlib, 'sha' + row['alg'][2:])))}"
    return f"{text}.{encode(algorithm.sign(text.encode(), key_of(row)))}"


def make(row):
    try:
        return {"token": by_library(row), "by": "library"}
    except Exception as error:
        return {"token": by_hand(row), "by": "hand", "why": repr(error)}


for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps(make_keys(asked["keys"]) if "keys" in asked else make(asked)), flush=True)
