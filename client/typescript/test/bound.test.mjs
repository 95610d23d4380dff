// A token that is bound to a key, and a daemon that lets few calls through: ADDRESS, CA, TOKEN_FILE, PROOF_KEY in the environment.
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { Client, ProofKey } from "../dist/index.js";

const { ADDRESS: address, CA: caFile, TOKEN_FILE: tokenFile, PROOF_KEY: proofKey } = process.env;
const client = (t, more) => {
  const made = new Client({ address, caFile, tokenFile, ...more });
  t.after(() => made.close());
  return made;
};

test("each call is proved", async (t) => {
  const mine = client(t, { proofKey });
  assert.equal((await mine.get("kv/bound/a")).fields.text("value"), "x");
  assert.equal((await mine.fetch(["kv/bound/a"]))[0].fields.text("value"), "x");
  // The first call of a client learns the nonce, also when it is a stream.
  const stream = client(t, { proofKey: ProofKey.read(proofKey) }).watch(["kv/bound/a"]);
  assert.equal((await stream.next()).value.delivered.fields.text("value"), "x");
  await stream.return();
});

test("without the key the token is of no use", async (t) => {
  const made = ProofKey.generate();
  assert.equal(new ProofKey(made.pem()).pem(), made.pem());
  assert.ok(!`${made} ${inspect(made)} ${JSON.stringify(made)}`.includes("BEGIN"));
  for (const more of [{}, { proofKey: made }]) {
    const thief = client(t, more);
    await assert.rejects(thief.get("kv/bound/a"), { kind: "unauthenticated", reason: "POSSESSION" });
    await assert.rejects(thief.watch(["kv/bound/a"]).next(), { kind: "unauthenticated", reason: "POSSESSION" });
  }
  assert.throws(() => new Client({ address: "unix:/nowhere", proofKey: made }), RangeError);
  assert.throws(() => new ProofKey("rubbish"));
});

test("what the daemon says is waited for", async (t) => {
  const mine = client(t, { proofKey });
  for (let n = 0; n < 10; n += 1) assert.equal((await mine.get("kv/bound/a")).fields.text("value"), "x");
  // Whoever has no time to wait is told; on a busy machine its time may be over before that.
  const hasty = client(t, { proofKey, timeoutMs: 1500 });
  const many = async () => {
    for (let n = 0; n < 50; n += 1) {
      await hasty.get("kv/bound/a").catch((error) => {
        if (error.kind !== "unavailable") throw error;
      });
    }
  };
  await assert.rejects(many(), (error) => {
    assert.equal(error.reason, "RATE_LIMITED");
    assert.ok(error.retryAfterMs > 0);
    return true;
  });
});
