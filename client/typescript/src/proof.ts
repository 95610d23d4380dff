/** The key that a token is bound to (DPoP, RFC 9449): with each call goes a proof that the caller holds it. */
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, sign, type KeyObject } from "node:crypto";
import { readFileSync } from "node:fs";

/** A P-256 key that signs proofs (ES256). Printing it shows nothing of it. */
export class ProofKey {
  readonly #key: KeyObject;
  readonly #header: string;

  /** `pem`: PKCS#8, as `pem()` gives it and `strongroom login --dpop` writes it. */
  constructor(pem: string | Buffer) {
    this.#key = createPrivateKey(pem);
    const { kty, crv, x, y } = createPublicKey(this.#key).export({ format: "jwk" });
    if (kty !== "EC" || crv !== "P-256") {
      throw new RangeError("a proof key is a P-256 key in PKCS#8: `strongroom login --dpop` makes one");
    }
    this.#header = encode(JSON.stringify({ typ: "dpop+jwt", alg: "ES256", jwk: { kty, crv, x, y } }));
  }

  /** A new key: keep `pem()` in a file that only you can read, and log in with it (`--proof-key FILE`). */
  static generate(): ProofKey {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    return new ProofKey(privateKey.export({ type: "pkcs8", format: "pem" }));
  }

  /** The key of a PEM file. */
  static read(path: string): ProofKey {
    return new ProofKey(readFileSync(path));
  }

  /** The key, to be kept in a file. */
  pem(): string {
    return this.#key.export({ type: "pkcs8", format: "pem" }).toString();
  }

  /** For one call of `address`, with `token` and the daemon's `nonce` if there are. */
  proof(address: string, token: string | undefined, nonce: string | undefined): string {
    const ath = token === undefined ? undefined : createHash("sha256").update(token).digest("base64url");
    const claims = { htm: "POST", htu: address, iat: Math.floor(Date.now() / 1000), jti: randomBytes(16).toString("base64url"), ath, nonce };
    const text = `${this.#header}.${encode(JSON.stringify(claims))}`;
    return `${text}.${sign("sha256", Buffer.from(text), { key: this.#key, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
  }
}

function encode(text: string): string {
  return Buffer.from(text).toString("base64url");
}
