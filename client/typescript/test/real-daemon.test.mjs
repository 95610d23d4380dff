// Against a real daemon that the workspace's end-to-end test has started: ADDRESS, CA, TOKEN_FILE in the environment.
import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { Client } from "../dist/index.js";

const { ADDRESS: address, CA: caFile, TOKEN_FILE: tokenFile } = process.env;
const client = new Client({ address, caFile, tokenFile });
test.after(() => client.close());

const refused = (kind, reason) => (error) => {
  assert.equal(error.kind, kind, error);
  if (reason) assert.equal(error.reason, reason);
  return true;
};

test("secrets are written and read", async () => {
  const first = await client.put("kv/node/a", { value: "one", bytes: Buffer.from([0, 255]) });
  await client.put("kv/node/a", { value: "canary-in-node" }, { cas: first });
  const got = await client.get("kv/node/a");
  assert.deepEqual([got.fields.text("value"), got.version], ["canary-in-node", first + 1]);
  assert.deepEqual([...(await client.get("kv/node/a", { version: first })).fields.bytes("bytes")], [0, 255]);
  assert.ok(!`${inspect(got)} ${JSON.stringify(got)} ${got.fields}`.includes("canary-in-node"));
  assert.throws(() => got.fields.text("absent"), /value/);
});

test("refusals have their kind", async () => {
  await assert.rejects(client.put("kv/node/cas", { value: "x" }, { cas: 7 }), (error) => {
    assert.equal(error.requestId.length, 32);
    return refused("conflict", "CONFLICT")(error);
  });
  await assert.rejects(client.get("kv/node/absent"), refused("not_found"));
  await assert.rejects(client.fetch(["elsewhere/x"]), refused("denied", "DENIED"));
  await assert.rejects(client.get("kv//x"), refused("invalid"));
  const stranger = new Client({ address, caFile, token: "srm_at_wrong" });
  await assert.rejects(stranger.get("kv/node/a"), refused("unauthenticated"));
  stranger.close();
  const nowhere = new Client({ address: "https://127.0.0.1:1", caFile, timeoutMs: 2000 });
  await assert.rejects(nowhere.get("kv/node/a"), refused("unavailable"));
  nowhere.close();
  assert.throws(() => new Client({ address: "http://127.0.0.1:1" }), RangeError);
});

test("fetch brings everything", async () => {
  await client.put("kv/node/f", { value: "one" });
  const [secret, account] = await client.fetch(["kv/node/f", { path: "pg/readers", ttlSecs: 60 }]);
  assert.deepEqual([secret.fields.text("value"), secret.kind, secret.remainingSecs], ["one", "secret", undefined]);
  assert.ok(account.kind === "lease" && account.remainingSecs >= 50 && account.remainingSecs <= 60);
  assert.ok((await client.renew(account.leaseId)) > 0);
  assert.ok(await client.revoke(account.leaseId));
  assert.ok(await client.revoke((await client.issue("pg/readers")).leaseId));
});

test("watch tells changes, and resumes", async () => {
  await client.put("kv/node/w", { value: "one" });
  const stream = client.watch(["kv/node/w"]);
  assert.equal((await stream.next()).value.delivered.fields.text("value"), "one");
  await client.put("kv/node/w", { value: "two" });
  const second = (await stream.next()).value;
  assert.equal(second.delivered.fields.text("value"), "two");
  await stream.return();
  await client.put("kv/node/w", { value: "three" });
  for await (const third of client.watch([{ path: "kv/node/w", resume: second.resume }], { values: false })) {
    assert.deepEqual([third.delivered.version, third.delivered.fields.names()], [3, []]);
    break;
  }
});

test("one that is refused does not end the stream", async () => {
  await client.put("kv/node/r", { value: "one" });
  const stream = client.watch(["elsewhere/x", "kv/node/r"]);
  const told = [(await stream.next()).value, (await stream.next()).value].sort((a, b) => a.item - b.item);
  assert.deepEqual([told[0].what, told[1].what], ["refused", "changed"]);
  refused("denied", "DENIED")(told[0].error);
  await client.put("kv/node/r", { value: "two" });
  assert.equal((await stream.next()).value.delivered.fields.text("value"), "two");
  await stream.return();
  await assert.rejects(client.watch(["elsewhere/x"]).next(), refused("denied", "DENIED"));
});

test("keys work for callers", async () => {
  const { transit } = client;
  const sealed = await transit.encrypt("tr-node/aes", "canary-in-node", "c");
  assert.equal((await transit.decrypt("tr-node/aes", sealed, "c")).toString(), "canary-in-node");
  const again = await transit.rewrap("tr-node/aes", sealed, "c");
  assert.ok(!again.equals(sealed));
  assert.equal((await transit.decrypt("tr-node/aes", again, "c")).toString(), "canary-in-node");
  await assert.rejects(transit.decrypt("tr-node/aes", sealed, "d"), refused("invalid", "MALFORMED"));
  const key = await transit.dataKey("tr-node/aes", { size: 64, context: "k" });
  assert.equal(key.plaintext().length, 64);
  assert.ok(key.plaintext().equals(await transit.decrypt("tr-node/aes", key.wrapped, "k")));
  assert.equal(inspect(key), "DataKey(version 1)");
  const wrapped = await transit.dataKey("tr-node/aes", { wrappedOnly: true });
  assert.throws(() => wrapped.plaintext(), RangeError);
  for (const [name, make] of [["sign", (...args) => transit.sign(...args)], ["mac", (...args) => transit.hmac(...args)]]) {
    const made = await make(`tr-node/${name}`, "body");
    assert.equal(await transit.verify(`tr-node/${name}`, "body", made), true);
    assert.equal(await transit.verify(`tr-node/${name}`, "bodi", made), false);
  }
  assert.match((await transit.publicKeys("tr-node/sign"))[0], /BEGIN PUBLIC KEY/);
  await assert.rejects(transit.sign("tr-node/aes", "body"), refused("conflict", "NOT_POSSIBLE"));
  await assert.rejects(transit.encrypt("tr-node/absent", "x"), refused("not_found"));
});

test("held secrets stay fresh", async () => {
  await client.put("kv/node/h", { value: "one" });
  const held = await client.secrets(["kv/node/h", "pg/node"]);
  const first = held.get("pg/node").fields.text("username");
  const changed = held.changed();
  await client.put("kv/node/h", { value: "two" });
  await changed;
  assert.equal(held.get("kv/node/h").fields.text("value"), "two");
  while (held.get("pg/node").fields.text("username") === first) await held.changed();
  assert.equal(held.stale, undefined);
  assert.throws(() => held.get("kv/other"), refused("not_found"));
  assert.equal(await held.close(), 0);
});
