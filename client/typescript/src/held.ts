/** Secrets that stay fresh: one task follows changes, one a lease renews it and takes a new account before it is at its end. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "./client.js";
import { StrongroomError } from "./errors.js";
import type { Delivered, Follow, Want } from "./values.js";

/** Pauses before the daemon is asked again; doubled, with jitter. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 30_000;
/** Leases are renewed at this part of their life. */
const RENEW_AT = 2 / 3;

/** Held secrets and credentials, by their paths. Close it to revoke what was leased. */
export class Secrets {
  readonly #client: Client;
  readonly #held = new Map<string, Delivered>();
  readonly #ending = new AbortController();
  readonly #tasks: Promise<void>[] = [];
  #waiting: (() => void)[] = [];
  #stale: StrongroomError | undefined;

  private constructor(client: Client) {
    this.#client = client;
  }

  /** @internal */
  static async hold(client: Client, wants: Want[]): Promise<Secrets> {
    if (new Set(wants.map((want) => want.path)).size !== wants.length) {
      throw new TypeError("a path is asked for twice: what is held is known by its path; use fetch instead");
    }
    const secrets = new Secrets(client);
    const fetched = await client.fetch(wants);
    const follows: (Follow & { path: string })[] = [];
    fetched.forEach((one, index) => {
      const want = wants[index];
      if (want === undefined) return;
      secrets.#held.set(one.path, one);
      if (one.kind === "lease") secrets.#tasks.push(secrets.#renew(want, one));
      else if (want.version === undefined) follows.push({ path: one.path, label: want.label ?? "", resume: one.resume });
    });
    if (follows.length > 0) secrets.#tasks.push(secrets.#follow(follows));
    return secrets;
  }

  /** The newest known value, from memory. Throws for what was not asked for, or was deleted since. */
  get(path: string): Delivered {
    const held = this.#held.get(path);
    if (held === undefined) {
      throw new StrongroomError("not_found", `${path} is not held: it was not asked for, or was deleted`, "NOT_HELD");
    }
    return held;
  }

  /** Why the stream of changes is down, while the last known values are held; `undefined` while it is open. */
  get stale(): StrongroomError | undefined {
    return this.#stale;
  }

  /** Resolves at the next change. */
  changed(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Stops, and revokes what was leased; how many leases are not proven gone. */
  async close(): Promise<number> {
    this.#ending.abort();
    await Promise.all(this.#tasks);
    let left = 0;
    for (const { leaseId } of this.#held.values()) {
      if (leaseId !== undefined && !(await this.#client.revoke(leaseId).catch(() => false))) left += 1;
    }
    return left;
  }

  #put(path: string, one: Delivered | undefined): void {
    if (one === undefined) this.#held.delete(path);
    else this.#held.set(path, one);
    const waiting = this.#waiting;
    this.#waiting = [];
    waiting.forEach((resolve) => resolve());
  }

  async #follow(follows: (Follow & { path: string })[]): Promise<void> {
    let pause = RETRY_FIRST_MS;
    const opened = () => (this.#stale = undefined);
    while (!this.#ending.signal.aborted) {
      const again = new AbortController();
      const end = () => again.abort();
      this.#ending.signal.addEventListener("abort", end);
      try {
        for await (const event of this.#client.watch(follows, { signal: again.signal, opened })) {
          const follow = follows[event.item];
          if (follow === undefined) continue;
          follows[event.item] = { ...follow, resume: event.resume };
          pause = RETRY_FIRST_MS;
          if (event.error === undefined) {
            this.#put(follow.path, event.delivered);
            continue;
          }
          // The last known value is held; all of them are asked for again after a while.
          if (this.#stale === undefined) setTimeout(end, RETRY_MAX_MS).unref();
          this.#stale = event.error;
        }
      } catch (error) {
        this.#stale = error as StrongroomError;
        pause = await this.#recover(this.#stale, pause);
      } finally {
        this.#ending.signal.removeEventListener("abort", end);
      }
    }
  }

  async #renew(want: Want, first: Delivered): Promise<void> {
    let [held, pause] = [first, RETRY_FIRST_MS];
    let end = Date.now() + (held.remainingSecs ?? 0) * 1000;
    while (await this.#wait((end - Date.now()) * RENEW_AT * (0.9 + Math.random() / 10))) {
      try {
        const left = await this.#client.renew(held.leaseId ?? "", { ttlSecs: want.ttlSecs ?? 0 }).catch(() => 0);
        if (Date.now() + left * 1000 > end + 1000) {
          end = Date.now() + left * 1000;
          continue;
        }
        const [next] = await this.#client.fetch([want]);
        if (next === undefined) return;
        held = next;
        end = Date.now() + (held.remainingSecs ?? 0) * 1000;
        pause = RETRY_FIRST_MS;
        this.#put(want.path, held);
      } catch (error) {
        pause = await this.#recover(error as StrongroomError, pause);
      }
    }
  }

  /** Whether to go on. */
  async #wait(ms: number): Promise<boolean> {
    await sleep(Math.max(ms, 0), undefined, { signal: this.#ending.signal, ref: false }).catch(() => undefined);
    return !this.#ending.signal.aborted;
  }

  /** Does what can be done about it here, waits, and gives the next pause. */
  async #recover(error: StrongroomError, pause: number): Promise<number> {
    if (error.kind === "unauthenticated") {
      try {
        this.#client.reloadToken();
      } catch {
        // Not there yet: looked at again after the pause.
      }
    }
    await this.#wait(error.kind === "denied" ? RETRY_MAX_MS : pause * (0.5 + Math.random() / 2));
    return Math.min(pause * 2, RETRY_MAX_MS);
  }
}
