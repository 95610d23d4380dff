/** What is asked for and what is handed out. Printing any of it never shows a value. */
import { inspect } from "node:util";
import type { StrongroomError } from "./errors.js";

/** Names and values; prints the names. */
export class Fields {
  readonly #values: ReadonlyMap<string, Buffer>;
  constructor(values: Record<string, Buffer>) {
    this.#values = new Map(Object.entries(values));
  }
  names(): string[] {
    return [...this.#values.keys()];
  }
  /** A field's bytes. Throws with the names there are. */
  bytes(name: string): Buffer {
    const value = this.#values.get(name);
    if (value === undefined) throw new RangeError(`no field ${name}; there are: ${this.names().join(", ")}`);
    return value;
  }
  /** A field as text. */
  text(name: string): string {
    return this.bytes(name).toString("utf8");
  }
  toJSON(): Record<string, string> {
    return Object.fromEntries(this.names().map((name) => [name, "redacted"]));
  }
  toString(): string {
    return `Fields(${this.names().join(", ")})`;
  }
  [inspect.custom](): string {
    return this.toString();
  }
}

/** One version of a secret. */
export interface SecretVersion {
  readonly path: string;
  readonly version: number;
  readonly createdAt: string;
  readonly labels: readonly string[];
  readonly fields: Fields;
}

/** A credential of a role. Without `leaseId` it is a static role's, which rotates instead of expiring. */
export interface Credential {
  readonly role: string;
  readonly leaseId: string | undefined;
  readonly fields: Fields;
  readonly ttlSecs: number;
  readonly expiresAt: string;
  readonly renewable: boolean;
  readonly rotatesAt: string;
}

/** One thing to fetch: a secret (`kv/prod/db`) or a role (`pg/readers`). */
export interface Want {
  readonly path: string;
  readonly version?: number;
  readonly label?: string;
  readonly ttlSecs?: number;
}

/** A secret or credential, as it was delivered. */
export interface Delivered {
  readonly path: string;
  readonly fields: Fields;
  readonly kind: "secret" | "lease" | "account";
  /** Of a secret. */
  readonly version: number | undefined;
  /** Of a lease. */
  readonly leaseId: string | undefined;
  /** For how long it is good unless something is done; absent: until it is changed. */
  readonly remainingSecs: number | undefined;
  /** For `Follow.resume`: this was seen. */
  readonly resume: string;
}

/** One thing to follow: a secret or static role by its path, or a lease by its id. */
export interface Follow {
  readonly path?: string;
  readonly leaseId?: string;
  readonly label?: string;
  readonly warnSecs?: number;
  readonly resume?: string;
}

/** What happened to the `item`-th of the things that are followed. */
export interface Event {
  readonly item: number;
  /** `refused` has `error`, and nothing more comes of it. */
  readonly what: "changed" | "gone" | "expiring" | "revoking" | "refused";
  readonly resume: string;
  readonly delivered?: Delivered;
  readonly remainingSecs?: number;
  readonly renewable?: boolean;
  readonly error?: StrongroomError;
}
