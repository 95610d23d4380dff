/** The protos, loaded; and the details of refusals, read by hand: they are three small messages of google.rpc. */
import { loadPackageDefinition, type ServiceClientConstructor } from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { fileURLToPath } from "node:url";

const SERVICES = ["Kv", "Delivery", "Creds", "Lease", "Token", "Transit"] as const;
export type Service = (typeof SERVICES)[number];

const folder = fileURLToPath(new URL("../proto", import.meta.url));
const definition = loadSync(SERVICES.map((service) => `${folder}/${service.toLowerCase()}.proto`), {
  longs: Number,
  defaults: true,
  oneofs: true,
  bytes: Buffer,
});
const root = loadPackageDefinition(definition) as unknown as {
  strongroom: { v1: Record<Service, ServiceClientConstructor> };
};
export const services = root.strongroom.v1;

interface Details {
  reason: string;
  requestId: string;
  retryAfterMs: number;
}

/** `google.rpc.Status` with `ErrorInfo` of our domain and `RetryInfo`; anything else is nothing. */
export function details(value: unknown): Details {
  const found: Details = { reason: "", requestId: "", retryAfterMs: 0 };
  if (!Buffer.isBuffer(value)) return found;
  try {
    for (const any of fields(value).get(3) ?? []) {
      const inner = fields(any);
      const type = text(inner.get(1)?.[0]);
      const body = fields(inner.get(2)?.[0] ?? Buffer.alloc(0));
      if (type.endsWith("/google.rpc.ErrorInfo") && text(body.get(2)?.[0]) === "strongroom") {
        found.reason = text(body.get(1)?.[0]);
        for (const entry of body.get(3) ?? []) {
          const pair = fields(entry);
          if (text(pair.get(1)?.[0]) === "request_id") found.requestId = text(pair.get(2)?.[0]);
        }
      } else if (type.endsWith("/google.rpc.RetryInfo")) {
        const delay = fields(body.get(1)?.[0] ?? Buffer.alloc(0));
        found.retryAfterMs = number(delay.get(1)?.[0]) * 1000 + number(delay.get(2)?.[0]) / 1e6;
      }
    }
  } catch {
    // What a proxy put there is not ours to understand.
  }
  return found;
}

function text(bytes: Buffer | undefined): string {
  return bytes?.toString("utf8") ?? "";
}

function number(bytes: Buffer | undefined): number {
  return bytes === undefined ? 0 : varint(bytes, 0).value;
}

function varint(from: Buffer, at: number): { value: number; next: number } {
  let value = 0;
  for (let index = 0; index < 10; index += 1) {
    const byte = from.readUInt8(at + index);
    value += (byte & 0x7f) * 2 ** (7 * index);
    if (byte < 0x80) return { value, next: at + index + 1 };
  }
  throw new RangeError("a number without an end");
}

/** The fields of a message by number: the bytes of those with a length, the encoding of numbers. */
function fields(message: Buffer): Map<number, Buffer[]> {
  const found = new Map<number, Buffer[]>();
  for (let at = 0; at < message.length; ) {
    const key = varint(message, at);
    const value = varint(message, key.next);
    const wire = key.value % 8;
    if (wire !== 0 && wire !== 2) throw new RangeError("a kind of field that these messages do not have");
    const [begin, end] = wire === 2 ? [value.next, value.next + value.value] : [key.next, value.next];
    if (end > message.length) throw new RangeError("cut short");
    const name = Math.floor(key.value / 8);
    found.set(name, [...(found.get(name) ?? []), message.subarray(begin, end)]);
    at = end;
  }
  return found;
}
