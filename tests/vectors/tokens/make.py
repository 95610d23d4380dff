#!/usr/bin/env python3
"""Makes tokens.json: tokens as CI platforms make them, and what an attacker makes of them, with the refusal that each must meet.

Signed by joserfc, an independent JOSE library (`pip install joserfc`); what no library makes is put together by hand here. Keys are made
anew and thrown away: only public halves stand in the result. Run it in this folder; daemon/src/auth/tests.rs reads the result.
"""
import base64, hashlib, hmac, json
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, OctKey, RSAKey

NOW = 1_795_000_000
AUD = "https://vault.example.com"
ALL = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "Ed25519", "EdDSA", "HS256", "HS384", "HS512", "none"]
registry = jws.JWSRegistry(algorithms=ALL, strict_check_header=False)


def key(kind, kid, size=None, **more):
    made = {
        "rsa": lambda: RSAKey.generate_key(size or 2048, {"kid": kid, "use": "sig", **more}),
        "ec": lambda: ECKey.generate_key(size or "P-256", {"kid": kid, "use": "sig", **more}),
        "ed": lambda: OKPKey.generate_key("Ed25519", {"kid": kid, "use": "sig", **more}),
    }[kind]()
    return made


rsa, rsa2, stranger = key("rsa", "rsa-1", alg="RS256"), key("rsa", "rsa-2"), key("rsa", "rsa-1")
ec, ec384, ed = key("ec", "ec-1"), key("ec", "ec-384", "P-384"), key("ed", "ed-1")
weak = key("rsa", "weak", 1024)


def b64(data):
    data = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(claims, by=rsa, alg="RS256", header=None, raw=None):
    head = {"alg": alg, "typ": "JWT", "kid": by.kid} if header is None else header
    payload = raw if raw is not None else json.dumps(claims).encode()
    return jws.serialize_compact(head, payload, by, algorithms=ALL, registry=registry)


def sign_text(header_text, payload_text, by=rsa, alg="RS256"):
    """A JWS over texts that no library writes: the signature is a library's, over our own bytes."""
    signing = f"{b64(header_text)}.{b64(payload_text)}".encode()
    signature = registry.get_alg(alg).sign(signing, by)
    return f"{signing.decode()}.{b64(signature)}"


def github(**more):
    claims = {
        "iss": "https://token.actions.githubusercontent.com", "aud": AUD, "sub": "repo:acme@7/pay@4711:environment:prod",
        "iat": NOW - 10, "nbf": NOW - 600, "exp": NOW + 290, "jti": None, "repository": "acme/pay", "repository_id": "4711",
        "repository_owner": "acme", "repository_owner_id": "7", "repository_visibility": "private", "ref": "refs/heads/main",
        "ref_type": "branch", "environment": "prod", "event_name": "push", "runner_environment": "github-hosted",
        "job_workflow_ref": "acme/pay/.github/workflows/deploy.yml@refs/heads/main", "actor_id": "99", "run_id": "1", "sha": "0" * 40,
    }
    claims.update(more)
    return without(claims)


def gitlab(**more):
    claims = {
        "iss": "https://gitlab.example.com", "aud": AUD, "sub": "project_path:acme/pay:ref_type:branch:ref:main", "iat": NOW - 10,
        "nbf": NOW - 15, "exp": NOW + 300, "jti": None, "project_id": "22", "project_path": "acme/pay", "namespace_id": "5", "ref": "main",
        "ref_type": "branch", "ref_protected": "true", "pipeline_source": "push", "environment": "prod",
    }
    claims.update(more)
    return without(claims)


def circle(**more):
    claims = {
        "iss": "https://oidc.circleci.com/org/11111111-2222-3333-4444-555555555555", "aud": AUD,
        "sub": "org/11111111-2222-3333-4444-555555555555/project/p/user/u", "iat": NOW - 10, "exp": NOW + 3000, "jti": None,
        "oidc.circleci.com/project-id": "p", "oidc.circleci.com/vcs-ref": "refs/heads/main",
        "oidc.circleci.com/context-ids": ["c1", "c2"], "oidc.circleci.com/ssh-rerun": False,
    }
    claims.update(more)
    return without(claims)


def kubernetes(**more):
    claims = {
        "iss": "https://kubernetes.default.svc.cluster.local", "aud": [AUD], "sub": "system:serviceaccount:prod:pay", "iat": NOW - 1000,
        "nbf": NOW - 1000, "exp": NOW + 2600,
        "kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": "pay", "uid": "uid-1"}, "pod": {"name": "pay-0", "uid": "pod-1"}},
    }
    claims.update(more)
    return without(claims)


def jenkins(**more):
    claims = {"iss": "https://ci.example.com/oidc", "aud": AUD, "sub": "https://ci.example.com/job/pay/", "iat": NOW - 10, "exp": NOW + 3000, "build_number": 7}
    claims.update(more)
    return without(claims)


def buildkite(**more):
    claims = {
        "iss": "https://agent.buildkite.com", "aud": AUD, "sub": "organization:acme:pipeline:pay:ref:refs/heads/main:commit:0:step:deploy",
        "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 290, "jti": None, "organization_slug": "acme", "pipeline_slug": "pay", "pipeline_id": "pl-1",
        "build_branch": "main", "build_number": 3, "build_source": "webhook",
    }
    claims.update(more)
    return without(claims)


serial = 0


def without(claims):
    """Values of `...` are left out; a `jti` of None is made unique."""
    global serial
    serial += 1
    claims = {k: v for k, v in claims.items() if v is not ...}
    if claims.get("jti", 0) is None:
        claims["jti"] = f"jti-{serial}"
    return claims


cases = []


def case(name, token, expect, trust=None):
    cases.append({"name": name, "token": token, "expect": expect, "trust": trust or ""})


def hs256(claims, secret, header=None):
    signing = f"{b64(header or {'alg': 'HS256', 'typ': 'JWT', 'kid': 'rsa-1'})}.{b64(claims)}"
    return signing + "." + b64(hmac.new(secret, signing.encode(), hashlib.sha256).digest())


def tampered(token, **more):
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims.update(more)
    return f"{head}.{b64(claims)}.{signature}"


# What must pass, so that the refusals below are refusals of what they say.
case("github, environment", sign(github()), "ok")
case("github, old form of the subject", sign(github(sub="repo:acme/pay:environment:prod")), "ok")
case("github, header x5t", sign(github(), header={"alg": "RS256", "typ": "JWT", "kid": "rsa-1", "x5t": "abc"}), "ok")
case("github, no typ", sign(github(), header={"alg": "RS256", "kid": "rsa-1"}), "ok")
case("github, audience in a list of one", sign(github(aud=[AUD])), "ok")
case("github, pull request that a binding names", sign(github(event_name="pull_request", environment=..., ref="refs/pull/1/merge", job_workflow_ref="acme/pay/.github/workflows/check.yml@refs/heads/main")), "ok")
case("gitlab", sign(gitlab()), "ok")
case("circleci", sign(circle()), "ok")
case("circleci, ssh-rerun false as text", sign(circle(**{"oidc.circleci.com/ssh-rerun": "false"})), "ok")
case("kubernetes, RS256", sign(kubernetes()), "ok")
case("kubernetes, ES256", sign(kubernetes(), ec, "ES256"), "ok")
case("jenkins, no jti", sign(jenkins()), "ok")
case("buildkite", sign(buildkite()), "ok")
plain = {"iss": "https://issuer.example.com", "aud": AUD, "sub": "svc", "iat": NOW - 5, "exp": NOW + 60}
case("generic, PS256", sign({**plain, "jti": "g1"}, rsa2, "PS256"), "ok")
case("generic, ES384", sign({**plain, "jti": "g2"}, ec384, "ES384"), "ok")
case("generic, Ed25519", sign({**plain, "jti": "g3"}, ed, "Ed25519"), "ok")
case("generic, EdDSA", sign({**plain, "jti": "g4"}, ed, "EdDSA"), "ok")
case("generic, times with fractions", sign({**plain, "iat": NOW - 5.5, "exp": NOW + 60.25, "jti": "g5"}, ed, "EdDSA"), "ok")

# Signatures, keys, algorithms.
g = github
case("alg none, no signature", f"{b64({'alg': 'none', 'typ': 'JWT'})}.{b64(g())}.", "algorithm")
for word in ["None", "NONE", "nOnE", "", "null"]:
    case(f"alg {word!r}", f"{b64({'alg': word, 'typ': 'JWT'})}.{b64(g())}.", "algorithm")
case("alg missing", f"{b64({'typ': 'JWT', 'kid': 'rsa-1'})}.{b64(g())}.{b64(b'x' * 256)}", "algorithm")
case("alg a number", f"{b64({'alg': 1, 'kid': 'rsa-1'})}.{b64(g())}.{b64(b'x' * 256)}", "algorithm")
case("alg a list", f"{b64({'alg': ['RS256'], 'kid': 'rsa-1'})}.{b64(g())}.{b64(b'x' * 256)}", "algorithm")
case("HS256 under the public key, PEM", hs256(g(), rsa.as_pem(private=False)), "algorithm")
case("HS256 under the public key, DER", hs256(g(), rsa.as_der(private=False)), "algorithm")
case("HS256 under an empty secret", hs256(g(), b""), "algorithm")
case("HS512", sign(g(), OctKey.import_key(b"0" * 64), "HS512", {"alg": "HS512", "kid": "rsa-1"}), "algorithm")
case("RS512, not the trust's", sign(g(), rsa2, "RS512", {"alg": "RS512", "kid": "rsa-2"}), "algorithm")
case("PS256 with the key of RS256", sign(g(), rsa2, "PS256"), "algorithm")
case("ES256 where the trust takes RS256", sign(g(), ec, "ES256"), "algorithm")
case("RS256 by an EC key's name", sign(g(), rsa2, "RS256", {"alg": "RS256", "kid": "ec-1"}), "no-key")
case("ES256 by an RSA key's name", sign(kubernetes(), ec, "ES256", {"alg": "ES256", "kid": "rsa-1"}), "no-key")
case("a stranger's key under our kid", sign(g(), stranger), "signature")
case("another key of the issuer than named", sign(g(), rsa2, header={"alg": "RS256", "kid": "rsa-1"}), "signature")
case("unknown kid", sign(g(), rsa2, header={"alg": "RS256", "kid": "rsa-9"}), "no-key")
case("kid that is a path", sign(g(), rsa2, header={"alg": "RS256", "kid": "../../rsa-1"}), "no-key")
case("kid that is SQL", sign(g(), rsa2, header={"alg": "RS256", "kid": "x' OR '1'='1"}), "no-key")
case("kid that is a number", sign_text({"alg": "RS256", "kid": 1}, g(), rsa2), "header")
case("kid of 300 bytes", sign(g(), rsa2, header={"alg": "RS256", "kid": "k" * 300}), "header")
case("no kid where several keys fit", sign(g(), rsa2, header={"alg": "RS256"}), "no-key")
case("1024-bit RSA", sign(g(), weak), "no-key")
case("a changed claim", tampered(sign(g()), environment="root"), "signature")
case("a signature cut short", sign(g()).rsplit(".", 1)[0] + "." + b64(bytes(248)), "signature")
case("an empty signature", sign(g()).rsplit(".", 1)[0] + ".", "signature")
case("another token's signature", sign(g()).rsplit(".", 1)[0] + "." + sign(g()).rsplit(".", 1)[1], "signature")
case("a signature of zeros", sign(g()).rsplit(".", 1)[0] + "." + b64(bytes(256)), "signature")
case("ECDSA r = s = 0 (CVE-2022-21449)", sign(kubernetes(), ec, "ES256").rsplit(".", 1)[0] + "." + b64(bytes(64)), "signature")
der = bytes.fromhex("3006020101020101")
case("ECDSA signature in DER", sign(kubernetes(), ec, "ES256").rsplit(".", 1)[0] + "." + b64(der), "signature")

# Headers that want to be obeyed.
case("jwk in the header", sign(g(), stranger, header={"alg": "RS256", "jwk": stranger.as_dict(private=False)}), "brings-key")
case("jku in the header", sign(g(), header={"alg": "RS256", "kid": "rsa-1", "jku": "https://evil.example/jwks"}), "brings-key")
case("x5u in the header", sign(g(), header={"alg": "RS256", "kid": "rsa-1", "x5u": "https://evil.example/c.pem"}), "brings-key")
case("x5c in the header", sign(g(), header={"alg": "RS256", "kid": "rsa-1", "x5c": ["MIIB"]}), "brings-key")
case("crit", sign_text({"alg": "RS256", "kid": "rsa-1", "crit": ["exp"], "exp": 1}, g()), "crit")
case("crit, empty", sign_text({"alg": "RS256", "kid": "rsa-1", "crit": []}, g()), "crit")
case("b64 false", sign_text({"alg": "RS256", "kid": "rsa-1", "b64": False}, g()), "brings-key")
case("zip", sign_text({"alg": "RS256", "kid": "rsa-1", "zip": "DEF"}, g()), "brings-key")
for kind in ["at+jwt", "dpop+jwt", "logout+jwt", "secevent+jwt", "client-authentication+jwt", "JOSE", "application/jwt"]:
    case(f"typ {kind}", sign(g(), header={"alg": "RS256", "kid": "rsa-1", "typ": kind}), "type")
case("typ a number", sign_text({"alg": "RS256", "kid": "rsa-1", "typ": 1}, g()), "header")
case("alg twice", sign_text(b'{"alg":"none","alg":"RS256","kid":"rsa-1"}', g()), "header")
case("a header that is a list", sign_text(b'["RS256"]', g()), "header")

# Form.
t = sign(g())
case("empty", "", "not-a-token")
case("two parts", t.rsplit(".", 1)[0], "not-a-token")
case("four parts", t + ".x", "not-a-token")
case("five parts, a JWE", ".".join([b64({"alg": "RSA-OAEP", "enc": "A256GCM"}), "a", "a", "a", "a"]), "not-a-token")
case("base64 padding", sign(g()).rsplit(".", 1)[0] + "." + base64.urlsafe_b64encode(bytes(256)).decode(), "not-a-token")
case("standard base64 alphabet", f"{b64({'alg': 'RS256'})}.{base64.b64encode(bytes([251] * 9)).decode()}.AA", "not-a-token")
case("white space within", t[:30] + " " + t[30:], "not-a-token")
case("a line end behind", t + "\n", "not-a-token")
case("loose bits at the end of base64", f"{b64({'alg': 'RS256'})}.{b64(b'{}')}.AB", "not-a-token")
case("17 KiB", t + "A" * (17 << 10), "too-large")
case("a JSON serialization", json.dumps({"payload": b64(g()), "protected": b64({"alg": "RS256"}), "signature": "AA"}), "not-a-token")
case("Bearer before it", "Bearer " + t, "not-a-token")
case("claims that are a list", sign(None, raw=b"[1]"), "claims")
case("claims that are no JSON", sign(None, raw=b"hello"), "claims")
case("claims with aud twice", sign(None, raw=json.dumps(g()).replace('"aud"', '"aud":"https://evil.example","aud"').encode()), "claims")
case("claims with iss twice", sign(None, raw=json.dumps(g())[:-1].encode() + b',"iss":"https://token.actions.githubusercontent.com"}'), "claims")
case("claims too deep", sign(None, raw=(json.dumps(g())[:-1] + ',"x":' + "[" * 20 + "]" * 20 + "}").encode()), "claims")
case("claims with invalid UTF-8", sign(None, raw=json.dumps(g()).encode().replace(b"acme/pay", b"acme/\xff")), "claims")
case("two claims of one flat name", sign(kubernetes(**{"kubernetes.io/namespace": "prod"})), "claims")
case("a byte order mark", sign(None, raw=b"\xef\xbb\xbf" + json.dumps(g()).encode()), "claims")

# Issuer, audience, subject.
case("no issuer", sign(g(iss=...)), "unknown-issuer")
case("an unknown issuer", sign(g(iss="https://evil.example")), "unknown-issuer")
case("the issuer with a slash behind", sign(g(iss="https://token.actions.githubusercontent.com/")), "unknown-issuer")
case("the issuer in capitals", sign(g(iss="HTTPS://token.actions.githubusercontent.com")), "unknown-issuer")
case("the issuer as a prefix", sign(g(iss="https://token.actions.githubusercontent.com.evil.example")), "unknown-issuer")
case("an issuer in a list", sign(g(iss=["https://token.actions.githubusercontent.com"])), "unknown-issuer")
case("another issuer's name, this one's key elsewhere", sign(gitlab(), rsa2, header={"alg": "RS256", "kid": "ghost"}), "no-key")
case("no audience", sign(g(aud=...)), "audience")
case("an empty audience", sign(g(aud="")), "audience")
case("an empty list of audiences", sign(g(aud=[])), "audience")
case("the platform's default audience", sign(g(aud="https://github.com/acme")), "audience")
case("two audiences, ours among them", sign(g(aud=[AUD, "https://evil.example"])), "audience")
case("our audience twice", sign(g(aud=[AUD, AUD])), "audience")
case("our audience in a list in a list", sign(g(aud=[[AUD]])), "audience")
case("our audience as an object's key", sign(g(aud={AUD: True})), "audience")
case("the audience with a slash behind", sign(g(aud=AUD + "/")), "audience")
case("the audience in capitals", sign(g(aud=AUD.upper())), "audience")
case("audience null", sign(None, raw=json.dumps({**g(), "aud": None}).encode()), "audience")
case("no subject", sign(g(sub=...)), "subject")
case("an empty subject", sign(g(sub="")), "subject")
case("a subject that is a number", sign(g(sub=7)), "subject")

# Times.
case("expired", sign(g(iat=NOW - 400, exp=NOW - 31)), "expired")
case("no expiry", sign(g(exp=...)), "times")
case("expiry null", sign(None, raw=json.dumps({**g(), "exp": None}).encode()), "times")
case("expiry as text", sign(g(exp=str(NOW + 100))), "times")
case("expiry 1e300", sign(g(exp=1e300)), "times")
case("expiry negative", sign(g(exp=-1)), "times")
case("expiry beyond the year 9999", sign(g(exp=10**12)), "times")
case("expiry a list", sign(g(exp=[NOW + 100])), "times")
case("no time of issue", sign(g(iat=...)), "times")
case("issued in the future", sign(g(iat=NOW + 60, exp=NOW + 200)), "not-yet")
case("not valid yet", sign(g(nbf=NOW + 60)), "not-yet")
case("nbf as text", sign(g(nbf="0")), "times")
case("issued two hours ago", sign(g(iat=NOW - 7200, exp=NOW + 100)), "too-old")
case("lives for a day", sign(g(exp=NOW + 86400)), "too-old")
case("issued in 1970", sign(g(iat=0, exp=NOW + 100)), "too-old")

# Whom it is about: GitHub.
case("another repository", sign(g(repository_id="4712")), "no-binding")
case("the repository's id as a number", sign(g(repository_id=4711)), "no-binding")
case("the repository's id in a list with others", sign(g(repository_id=["4712"])), "no-binding")
case("the right name under another id (taken over after a rename)", sign(g(repository_id="999")), "no-binding")
case("another environment", sign(g(environment="dev")), "no-binding")
case("no environment", sign(g(environment=...)), "no-binding")
case("the environment in capitals", sign(g(environment="PROD")), "no-binding")
case("the environment with a space behind", sign(g(environment="prod ")), "no-binding")
case("an environment that ends the same", sign(g(environment="not-prod")), "no-binding")
for event in ["pull_request_target", "workflow_run", "issue_comment", "issues"]:
    case(f"event {event}", sign(g(event_name=event)), "trap")
case("event pull_request on the environment", sign(g(event_name="pull_request")), "trap")
case("an event nobody knows", sign(g(event_name="future_event")), "trap")
case("no event", sign(g(event_name=...)), "trap")
case("pull request of a repository that became public", sign(g(event_name="pull_request", environment=..., repository_visibility="public", job_workflow_ref="acme/pay/.github/workflows/check.yml@refs/heads/main")), "no-binding")
case("a workflow at a tag that looks like the branch", sign(g(event_name="pull_request", environment=..., job_workflow_ref="acme/pay/.github/workflows/check.yml@refs/tags/main")), "no-binding")

# GitLab.
case("gitlab, another project (a fork)", sign(gitlab(project_id="23")), "no-binding")
case("gitlab, an unprotected branch", sign(gitlab(ref_protected="false")), "trap")
case("gitlab, ref_protected true without quotes", sign(gitlab(ref_protected=True)), "trap")
case("gitlab, no ref_protected", sign(gitlab(ref_protected=...)), "trap")
case("gitlab, a merge request", sign(gitlab(pipeline_source="merge_request_event")), "trap")
case("gitlab, an external pull request", sign(gitlab(pipeline_source="external_pull_request_event")), "trap")
case("gitlab, another branch", sign(gitlab(ref="dev")), "no-binding")
case("gitlab, GitHub's way to write a branch", sign(gitlab(ref="refs/heads/main")), "no-binding")

# CircleCI.
case("circleci, run again with SSH", sign(circle(**{"oidc.circleci.com/ssh-rerun": True})), "trap")
case("circleci, run again with SSH, as text", sign(circle(**{"oidc.circleci.com/ssh-rerun": "true"})), "trap")
case("circleci, ssh-rerun a number", sign(circle(**{"oidc.circleci.com/ssh-rerun": 1})), "trap")
case("circleci, another project", sign(circle(**{"oidc.circleci.com/project-id": "q"})), "no-binding")
case("circleci, without the context", sign(circle(**{"oidc.circleci.com/context-ids": ["c2"]})), "no-binding")
case("circleci, another organisation's issuer", sign(circle(iss="https://oidc.circleci.com/org/x")), "unknown-issuer")

# Kubernetes, Jenkins, Buildkite.
case("kubernetes, the name made again with another uid", sign(kubernetes(**{"kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": "pay", "uid": "uid-2"}}})), "no-binding")
case("kubernetes, a legacy token without an end", sign(kubernetes(exp=..., iat=...)), "times")
case("kubernetes, for the API server", sign(kubernetes(aud=["https://kubernetes.default.svc"])), "audience")
case("kubernetes, for the API server too", sign(kubernetes(aud=["https://kubernetes.default.svc", AUD])), "audience")
case("kubernetes, ES256 over another key", sign(kubernetes(), key("ec", "ec-1"), "ES256"), "signature")
case("jenkins, another job", sign(jenkins(sub="https://ci.example.com/job/other/")), "no-binding")
case("jenkins, a job below", sign(jenkins(sub="https://ci.example.com/job/pay/job/evil/")), "no-binding")
case("buildkite, a fork", sign(buildkite(build_source="fork")), "trap")
case("buildkite, the slug under another id", sign(buildkite(pipeline_id="pl-2")), "no-binding")
case("buildkite, another branch", sign(buildkite(build_branch="dev")), "no-binding")

# The wrong trust, and claims that are too much.
case("under another trust's name", sign(g()), "no-trust", "gitlab")
case("under a trust that does not exist", sign(g()), "no-trust", "nobody")
case("a claim of 600 bytes that policies would see", sign(g(actor_id="9" * 600)), "too-many-claims")
case("200 claims", sign(g(**{f"c{n}": 1 for n in range(200)})), "claims")

# Once.
once = sign(g(jti="once"))
case("the first use", once, "ok")
case("the second use", once, "replayed")
case("another token with the same jti", sign(g(jti="once", run_id="2")), "replayed")
anonymous = sign(jenkins(build_number=8))
case("without jti, the first use", anonymous, "ok")
case("without jti, the second use", anonymous, "replayed")
again = sign(kubernetes(jti="pod"))
case("kubernetes, the first use", again, "ok")
case("kubernetes, the second use is allowed", again, "ok")


def jwks(*keys):
    return {"keys": [k.as_dict(private=False) for k in keys]}


def trust(platform, issuer, keys, bind, **more):
    return {"jwt": {"platform": platform, "issuer": issuer, "audience": AUD, "keys": {"static": {"jwks": keys}}, "bind": bind, **more}}


trusts = {
    "github": trust("github", "https://token.actions.githubusercontent.com", jwks(rsa, rsa2, ec), [
        {"claims": {"repository_id": "4711", "environment": "prod"}, "groups": ["ci-deploy"]},
        {"claims": {"repository_id": "4711", "event_name": "pull_request", "repository_visibility": ["private", "internal"],
                    "job_workflow_ref": "acme/pay/.github/workflows/check.yml@refs/heads/main"}, "groups": ["ci-check"]},
    ]),
    "gitlab": trust("gitlab", "https://gitlab.example.com", jwks(rsa, rsa2), [
        {"claims": {"project_id": "22", "ref": "main"}, "groups": ["ci-deploy"]}]),
    "circleci": trust("circleci", "https://oidc.circleci.com/org/11111111-2222-3333-4444-555555555555", jwks(rsa), [
        {"claims": {"oidc.circleci.com/project-id": "p", "oidc.circleci.com/context-ids": "c1"}, "groups": ["ci-deploy"]}]),
    "kubernetes": trust("kubernetes", "https://kubernetes.default.svc.cluster.local", jwks(rsa, ec), [
        {"claims": {"kubernetes.io/serviceaccount/uid": "uid-1"}, "groups": ["pay"]}]),
    "jenkins": trust("jenkins", "https://ci.example.com/oidc", jwks(rsa), [
        {"claims": {"sub": "https://ci.example.com/job/pay/"}, "groups": ["ci-deploy"]}]),
    "buildkite": trust("buildkite", "https://agent.buildkite.com", jwks(rsa), [
        {"claims": {"pipeline_id": "pl-1", "build_branch": "main"}, "groups": ["ci-deploy"]}]),
    "generic": trust("generic", "https://issuer.example.com", jwks(rsa2, ec384, ed), [{"claims": {"sub": "svc"}, "groups": ["svc"]}],
                     algorithms=["PS256", "ES384", "EdDSA"]),
}
with open("tokens.json", "w") as out:
    json.dump({"now_secs": NOW, "trusts": trusts, "cases": cases}, out, indent=1)
    out.write("\n")
print(len(cases), "tokens,", sum(c["expect"] != "ok" for c in cases), "to be refused")
