/** Calls: address, token, deadline, retry. */
import { credentials, Metadata, type ClientReadableStream, type Client as GrpcClient, type ServiceError } from "@grpc/grpc-js";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { isRetryable, ofCall, ofItem, StrongroomError } from "./errors.js";
import { Secrets } from "./held.js";
import { ProofKey } from "./proof.js";
import { Transit } from "./transit.js";
import { Fields, type Credential, type Delivered, type Event, type Follow, type SecretVersion, type Want } from "./values.js";
import { services, type Service } from "./wire.js";

/** Attempts of one call, the first included. */
const ATTEMPTS_MAX = 4;
/** Before the second attempt; doubled, with jitter. */
const PAUSE_FIRST_MS = 100;
const PAUSE_MAX_MS = 2000;
/** Answers of a fetch have 3 MiB of values at most. */
const ANSWER_BYTES_MAX = 5 << 20;
const DEFAULT_ADDRESS = "unix:/run/strongroom/strongroom.sock";

export interface Options {
  /** `https://HOST:PORT`, or `unix:/path` of the daemon or of an agent (which needs no token). */
  address?: string;
  /** PEM of the CA that signed the daemon's certificate; else those that Node trusts. */
  caFile?: string;
  token?: string;
  /** A file that holds the token, read again when the token has ended. */
  tokenFile?: string;
  /** The key that the token is bound to, or its PEM file: each call carries a proof of it (DPoP). Over TLS only. */
  proofKey?: string | ProofKey;
  /** Longest time one call may take, retries included. Default 15 s. */
  timeoutMs?: number;
}

type Message = Record<string, any>;

/** A connection to one Strongroom, or to an agent. */
export class Client {
  /** Keys that encrypt and sign for callers. */
  readonly transit = new Transit((method, request) => this.#read("Transit", method, request));
  readonly #stubs: Record<Service, GrpcClient>;
  readonly #tokenFile: string | undefined;
  readonly #timeoutMs: number;
  readonly #proofKey: ProofKey | undefined;
  readonly #origin: string;
  #token: string | undefined;
  /** What the daemon told last that a proof must carry. */
  #nonce: string | undefined;

  constructor(options: Options = {}) {
    const address = options.address ?? DEFAULT_ADDRESS;
    this.#timeoutMs = options.timeoutMs ?? 15_000;
    this.#tokenFile = options.tokenFile;
    this.#token = options.token;
    if (this.#token === undefined) this.reloadToken();
    const channel = { "grpc.max_receive_message_length": ANSWER_BYTES_MAX, "grpc.keepalive_time_ms": 20_000 };
    const [target, trust] = place(address, options.caFile);
    const { proofKey } = options;
    if (proofKey !== undefined && address.startsWith("unix:")) throw new RangeError("a proof key is of use over TLS only: give an https:// address");
    this.#proofKey = typeof proofKey === "string" ? ProofKey.read(proofKey) : proofKey;
    this.#origin = `https://${target}`;
    const stub = (service: Service) => new services[service](target, trust, channel);
    this.#stubs = { Kv: stub("Kv"), Delivery: stub("Delivery"), Creds: stub("Creds"), Lease: stub("Lease"), Token: stub("Token"), Transit: stub("Transit") };
  }

  /** Ends the connection. */
  close(): void {
    Object.values(this.#stubs).forEach((stub) => stub.close());
  }

  /** Sends another token from now on. */
  setToken(token: string): void {
    this.#token = token;
  }

  /** Reads the token from its file again. */
  reloadToken(): void {
    if (this.#tokenFile !== undefined) this.#token = readFileSync(this.#tokenFile, "utf8").trim();
  }

  /** A version of a secret; the current one unless `version` or `label` says otherwise. */
  async get(path: string, select: { version?: number; label?: string } = {}): Promise<SecretVersion> {
    const got = await this.#read("Kv", "get", { path, ...select });
    return { path, version: got.version, createdAt: got.createdAt, labels: got.labels, fields: new Fields(got.fields) };
  }

  /** Writes the next version and returns its number. `cas`: the version that must be current, 0 = none. */
  async put(path: string, fields: Record<string, Buffer | string>, options: { cas?: number } = {}): Promise<number> {
    const bytes = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, Buffer.from(value as string)]));
    return (await this.#change("Kv", "put", { path, fields: bytes, ...options })).version;
  }

  /** Many secrets and credentials in one round trip, in the order asked: all of them, or an error. */
  async fetch(wants: Iterable<string | Want>): Promise<Delivered[]> {
    const items = [...wants].map((want) => (typeof want === "string" ? { path: want } : want));
    return (await this.#change("Delivery", "fetch", { items })).items.map(delivered);
  }

  /**
   * Follows secrets, static roles and leases: each as it is now unless `resume` says that it was seen, then every change. Ends by an error, or
   * when `signal` is aborted. `opened` is told once the daemon has taken the stream.
   */
  async *watch(
    follows: Iterable<string | Follow>,
    options: { values?: boolean; signal?: AbortSignal; opened?: () => void } = {},
  ): AsyncGenerator<Event, void> {
    const items = [...follows].map((follow) => (typeof follow === "string" ? { path: follow } : follow));
    if (options.signal?.aborted) return;
    const open = (this.#stubs.Delivery as any).watch.bind(this.#stubs.Delivery);
    for (let asked = false; ; asked = true) {
      const stream: ClientReadableStream<Message> = open({ items, withoutValues: options.values === false }, this.#metadata("Delivery", "watch"));
      const abort = () => stream.cancel();
      options.signal?.addEventListener("abort", abort);
      stream.on("metadata", (metadata: Metadata) => {
        this.#learn(metadata);
        options.opened?.();
      });
      try {
        for await (const response of stream) yield event(response);
        return;
      } catch (error) {
        if (options.signal?.aborted) return;
        if (asked || !this.#wantsNonce(error as ServiceError)) throw ofCall(error as ServiceError);
      } finally {
        options.signal?.removeEventListener("abort", abort);
        stream.cancel();
      }
    }
  }

  /** Fetches, and holds fresh in the background until closed. */
  secrets(wants: Iterable<string | Want>): Promise<Secrets> {
    return Secrets.hold(this, [...wants].map((want) => (typeof want === "string" ? { path: want } : want)));
  }

  /** A credential of a role. */
  async issue(role: string, options: { ttlSecs?: number } = {}): Promise<Credential> {
    const made = await this.#change("Creds", "issue", { role, ...options });
    const { ttlSecs, expiresAt, renewable, rotatesAt } = made;
    return { role, leaseId: made.leaseId || undefined, fields: new Fields(made.fields), ttlSecs, expiresAt, renewable, rotatesAt };
  }

  /** Extends a lease; its life from now, in seconds. */
  async renew(leaseId: string, options: { ttlSecs?: number } = {}): Promise<number> {
    return (await this.#change("Lease", "renew", { id: leaseId, ...options })).ttlSecs;
  }

  /** Revokes a lease and waits for the proof; `false`: the daemon goes on trying. */
  async revoke(leaseId: string): Promise<boolean> {
    const revoked = await this.#change("Lease", "revoke", { id: leaseId, wait: true });
    return revoked.gone >= revoked.queued;
  }

  /** Extends the client's own token; its life from now, in seconds. */
  async renewToken(options: { ttlSecs?: number } = {}): Promise<number> {
    return (await this.#change("Token", "renew", options)).ttlSecs;
  }

  #metadata(service: Service, method: string): Metadata {
    const metadata = new Metadata();
    const token = this.#token || undefined;
    if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
    if (this.#proofKey !== undefined) {
      const address = `${this.#origin}/strongroom.v1.${service}/${method.charAt(0).toUpperCase()}${method.slice(1)}`;
      metadata.set("dpop", this.#proofKey.proof(address, token, this.#nonce));
    }
    return metadata;
  }

  /** Keeps the nonce that an answer tells: the next proof must carry it. */
  #learn(metadata: Metadata | undefined): void {
    const [nonce] = metadata?.get("dpop-nonce") ?? [];
    if (typeof nonce === "string") this.#nonce = nonce;
  }

  /** Whether a call was refused for want of the daemon's nonce, and nothing else: it is known now, and the call was not looked at. */
  #wantsNonce(error: ServiceError): boolean {
    if (this.#proofKey === undefined) return false;
    this.#learn(error.metadata);
    return ofCall(error).reason === "USE_DPOP_NONCE";
  }

  /** One call; once more where the daemon asks for its nonce. */
  async #call(service: Service, method: string, request: Message, deadline: number): Promise<Message> {
    const stub = this.#stubs[service] as any;
    for (let asked = false; ; asked = true) {
      try {
        return await new Promise((resolve, reject) => {
          const done = (error: ServiceError | null, answer: Message) => (error ? reject(error) : resolve(answer));
          const call = stub[method](request, this.#metadata(service, method), { deadline }, done);
          call.on("metadata", (metadata: Metadata) => this.#learn(metadata));
        });
      } catch (error) {
        if (asked || !this.#wantsNonce(error as ServiceError)) throw error;
      }
    }
  }

  #read(service: Service, method: string, request: Message): Promise<Message> {
    return this.#attempt(service, method, request, false);
  }

  #change(service: Service, method: string, request: Message): Promise<Message> {
    return this.#attempt(service, method, { ...request, idempotencyKey: randomBytes(16).toString("hex") }, true);
  }

  async #attempt(service: Service, method: string, request: Message, changes: boolean): Promise<Message> {
    const deadline = Date.now() + this.#timeoutMs;
    let [pause, sent] = [PAUSE_FIRST_MS, false];
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#call(service, method, request, deadline);
      } catch (error) {
        const refused = ofCall(error as ServiceError);
        // A change that was cut off may have been made; one that never got a connection was not.
        sent ||= refused.reason === "" && !/connect/i.test(refused.message);
        const wait = Math.max(pause * (0.5 + Math.random() / 2), refused.retryAfterMs);
        if (!isRetryable(refused) || attempt === ATTEMPTS_MAX || Date.now() + wait >= deadline) {
          if (!changes || !sent || !["unavailable", "sealed", "exhausted"].includes(refused.kind)) throw refused;
          const words = `the change was sent and may have been made: ${refused.message}`;
          throw new StrongroomError("indeterminate", words, refused.reason, refused.requestId);
        }
        await sleep(wait);
        pause = Math.min(pause * 2, PAUSE_MAX_MS);
      }
    }
  }
}

function place(address: string, caFile: string | undefined): [string, ReturnType<typeof credentials.createInsecure>] {
  if (address.startsWith("unix:")) return [address, credentials.createInsecure()];
  if (!address.startsWith("https://")) throw new RangeError(`${address} is neither https://HOST:PORT nor unix:/path`);
  const host = address.slice("https://".length).replace(/\/+$/, "");
  const target = /:\d+$/.test(host) ? host : `${host}:8470`;
  return [target, credentials.createSsl(caFile === undefined ? null : readFileSync(caFile))];
}

function delivered(wire: Message): Delivered {
  return {
    path: wire.path,
    fields: new Fields(wire.fields ?? {}),
    kind: wire.kind,
    version: wire.kind === "secret" ? wire.secret.version : undefined,
    leaseId: wire.kind === "lease" ? wire.lease.leaseId : undefined,
    remainingSecs: wire._remainingSecs === undefined ? undefined : wire.remainingSecs,
    resume: wire.resume,
  };
}

function event(wire: Message): Event {
  const { item, resume } = wire as { item: number; resume: string };
  if (wire.event === "changed") return { item, resume, what: "changed", delivered: delivered(wire.changed) };
  if (wire.event === "refused") {
    const { reason, message, code } = wire.refused;
    return { item, resume, what: "refused", error: ofItem(reason, message, code) };
  }
  if (wire.event !== "lease") return { item, resume, what: "gone" };
  const { state, remainingSecs, renewable } = wire.lease;
  return { item, resume, what: state, remainingSecs, renewable };
}
