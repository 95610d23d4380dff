/** Keys that work for callers who never hold them: `client.transit.encrypt("transit/orders", "...")`. */
import { inspect } from "node:util";
import { StrongroomError, type Kind } from "./errors.js";

/** A signature or an HMAC. Verification asks for the version of the key that made it. */
export interface Signature {
  readonly signature: Buffer;
  readonly keyVersion: number;
}

/** A fresh key for the caller's own use, and the same encrypted: keep `wrapped`, and forget the plaintext. Prints without it. */
export class DataKey {
  readonly #plaintext: Buffer | undefined;
  constructor(
    readonly wrapped: Buffer,
    readonly keyVersion: number,
    plaintext: Buffer | undefined,
  ) {
    this.#plaintext = plaintext;
  }
  /** Throws when only the wrapped one was asked for. */
  plaintext(): Buffer {
    if (this.#plaintext === undefined) throw new RangeError("only the wrapped key was asked for");
    return this.#plaintext;
  }
  [inspect.custom](): string {
    return `DataKey(version ${this.keyVersion})`;
  }
}

type Message = Record<string, any>;
type Read = (method: string, request: Message) => Promise<Message>;
type Data = Buffer | Uint8Array | string;

const KINDS: Record<string, Kind> = { MALFORMED: "invalid", TOO_LARGE: "invalid", NOT_POSSIBLE: "conflict" };
const NONE = Buffer.alloc(0);

/** Encryption as a service, over one client. A key is `MOUNT/NAME`; `context` is associated data that is needed again to decrypt. */
export class Transit {
  readonly #read: Read;

  /** @internal */
  constructor(read: Read) {
    this.#read = read;
  }

  async #one(method: string, request: Message): Promise<Message> {
    const { results } = await this.#read(method, request);
    const [result] = results as Message[];
    if (result === undefined) throw new StrongroomError("unsupported", "the daemon answered nothing");
    if (result.result === "failure") {
      const { reason, message } = result.failure as { reason: string; message: string };
      throw new StrongroomError(KINDS[reason] ?? "internal", message, reason);
    }
    return result;
  }

  /** A ciphertext, by the key's newest version. */
  async encrypt(key: string, plaintext: Data, context: Data = NONE): Promise<Buffer> {
    const items = [{ plaintext: bytes(plaintext), context: bytes(context) }];
    return (await this.#one("encrypt", { path: key, items })).ciphertext;
  }

  /** Throws `invalid` for a ciphertext that was changed, of another key or context; `conflict` for a version that is not in use any more. */
  async decrypt(key: string, ciphertext: Buffer, context: Data = NONE): Promise<Buffer> {
    const items = [{ ciphertext, context: bytes(context) }];
    return (await this.#one("decrypt", { path: key, items })).plaintext;
  }

  /** The same text under the newest version; it does not leave the daemon. */
  async rewrap(key: string, ciphertext: Buffer, context: Data = NONE): Promise<Buffer> {
    const items = [{ ciphertext, context: bytes(context) }];
    return (await this.#one("rewrap", { path: key, items })).ciphertext;
  }

  /** A signature by the newest version. */
  async sign(key: string, data: Data): Promise<Signature> {
    const { signature, keyVersion } = await this.#one("sign", { path: key, inputs: [bytes(data)] });
    return { signature, keyVersion };
  }

  /** An HMAC by the newest version. */
  async hmac(key: string, data: Data): Promise<Signature> {
    const { signature, keyVersion } = await this.#one("hmac", { path: key, inputs: [bytes(data)] });
    return { signature, keyVersion };
  }

  /** Whether the named version of the key made this signature or HMAC. */
  async verify(key: string, data: Data, made: Signature): Promise<boolean> {
    return (await this.#one("verify", { path: key, items: [{ input: bytes(data), ...made }] })).valid;
  }

  /** A fresh key of 32 or 64 bytes. `decrypt` opens the wrapped one later. */
  async dataKey(key: string, options: { size?: 32 | 64; context?: Data; wrappedOnly?: boolean } = {}): Promise<DataKey> {
    const { size = 32, context = NONE, wrappedOnly = false } = options;
    const made = await this.#read("dataKey", { path: key, bytes: size, context: bytes(context), wrappedOnly });
    return new DataKey(made.ciphertext, made.keyVersion, wrappedOnly ? undefined : made.plaintext);
  }

  /** The public halves of the versions that are kept, in PEM, oldest first; empty texts for a symmetric key. */
  async publicKeys(key: string): Promise<string[]> {
    return (await this.#read("getKey", { path: key })).versions.map((version: Message) => version.publicKeyPem);
  }
}

function bytes(data: Data): Buffer {
  return Buffer.from(data as string);
}
