// verify.mjs PUBLIC.pem INPUT SIGNATURE: whether ML-DSA-65 verifies, by a library that shares nothing with the daemon's. Exits 0 or 1.
import { readFileSync } from "node:fs";
import { ml_dsa65 } from "@noble/post-quantum/ml-dsa";

const [pem, input, signature] = process.argv.slice(2).map((name) => readFileSync(name));
const spki = Buffer.from(pem.toString().replace(/-----[^-]+-----/g, ""), "base64");
// RFC 9881: SEQUENCE { SEQUENCE { id-ml-dsa-65 }, BIT STRING of 1952 bytes }.
const head = Buffer.from("308207b2300b0609608648016503040312038207a100", "hex");
if (!spki.subarray(0, head.length).equals(head)) throw new Error(`no ML-DSA-65 key: ${spki.subarray(0, 24).toString("hex")}`);
const valid = ml_dsa65.verify(spki.subarray(head.length), input, signature);
console.log(valid ? "valid" : "not valid");
process.exit(valid ? 0 : 1);
