// Makes tokens with jose. One JSON line in, one out: first the names and kinds of keys to make, then one token a line. What jose does not make, or
// makes another way than asked, is put together by hand from its keys, and said so.
import * as jose from "jose";
import { readFileSync } from "node:fs";
import { constants, createHmac, createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { createInterface } from "node:readline";
import { isDeepStrictEqual } from "node:util";

const library = `jose ${JSON.parse(readFileSync(new URL("node_modules/jose/package.json", import.meta.url))).version}`;
const encode = (bytes) => Buffer.from(bytes).toString("base64url");
const keys = new Map();

async function generate({ kind, size, crv }) {
  if (kind === "RSA" && size < 2048) {
    // jose makes none that short.
    const { privateKey } = generateKeyPairSync("rsa", { modulusLength: size });
    return privateKey.export({ format: "jwk" });
  }
  const algorithm = { RSA: "RS256", "P-256": "ES256", "P-384": "ES384", Ed25519: "EdDSA" }[kind === "RSA" ? "RSA" : crv];
  const pair = await jose.generateKeyPair(algorithm, { extractable: true, crv, modulusLength: size });
  return jose.exportJWK(pair.privateKey);
}

async function makeKeys(asked) {
  const told = {};
  for (const [name, spec] of Object.entries(asked)) {
    const jwk = await generate(spec);
    delete jwk.alg;
    keys.set(name, jwk);
    const shown = createPublicKey({ key: jwk, format: "jwk" });
    told[name] = {
      private: jwk,
      public: shown.export({ format: "jwk" }),
      pem: shown.export({ type: "spki", format: "pem" }),
      der: encode(shown.export({ type: "spki", format: "der" })),
    };
  }
  return { library, keys: told };
}

async function byLibrary({ header, payload, key, secret, alg, exact }) {
  if (exact) throw new Error("it writes headers its own way");
  const head = JSON.parse(header);
  const bytes = Buffer.from(payload, "base64url");
  const made =
    alg === "none"
      ? new jose.UnsecuredJWT(JSON.parse(bytes)).encode()
      : await new jose.CompactSign(bytes)
          .setProtectedHeader(head)
          .sign(secret === undefined ? await jose.importJWK(keys.get(key), alg) : Buffer.from(secret, "base64url"), {
            crit: Object.fromEntries((head.crit ?? []).map((name) => [name, true])),
          });
  const parts = made.split(".");
  if (!isDeepStrictEqual(JSON.parse(Buffer.from(parts[0], "base64url")), head)) throw new Error("it writes another header");
  if (alg !== "none" && parts[1] !== payload) throw new Error("it writes another payload");
  return made;
}

const HASHES = { 256: "sha256", 384: "sha384", 512: "sha512" };

function byHand({ header, payload, key, secret, alg }) {
  const text = `${encode(header)}.${payload}`;
  const hash = HASHES[alg.slice(2)];
  const own = () => createPrivateKey({ key: keys.get(key), format: "jwk" });
  const signature = {
    no: () => "",
    HS: () => createHmac(hash, Buffer.from(secret, "base64url")).update(text).digest(),
    RS: () => sign(hash, Buffer.from(text), own()),
    PS: () => sign(hash, Buffer.from(text), { key: own(), padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }),
    ES: () => sign(hash, Buffer.from(text), { key: own(), dsaEncoding: "ieee-p1363" }),
    Ed: () => sign(null, Buffer.from(text), own()),
  }[alg.slice(0, 2)]();
  return `${text}.${encode(signature)}`;
}

async function make(row) {
  try {
    return { token: await byLibrary(row), by: "library" };
  } catch (error) {
    return { token: byHand(row), by: "hand", why: String(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  console.log(JSON.stringify(asked.keys === undefined ? await make(asked) : await makeKeys(asked.keys)));
}
