/** What can go wrong, by what the caller should do about it. */
import { status, type ServiceError } from "@grpc/grpc-js";
import { details } from "./wire.js";

/** `unavailable`: nothing was changed. `indeterminate`: a change was sent and its outcome is not known. */
export type Kind =
  | "unauthenticated" | "denied" | "sealed" | "blank" | "not_found" | "conflict" | "invalid" | "exhausted"
  | "unavailable" | "indeterminate" | "unsupported" | "internal";

/** A refused or failed call. */
export class StrongroomError extends Error {
  constructor(
    readonly kind: Kind,
    message: string,
    /** The daemon's stable word (docs/ERRORS); empty when the answer did not come from Strongroom. */
    readonly reason = "",
    /** Under which the daemon's log tells the cause. */
    readonly requestId = "",
    /** Milliseconds that the daemon asks to wait before another try. */
    readonly retryAfterMs = 0,
  ) {
    super(message);
    this.name = "StrongroomError";
  }
}

/** Whether the same call may be sent again after a pause: nobody was there, or the daemon said when to come again. */
export function isRetryable({ kind, retryAfterMs }: StrongroomError): boolean {
  return kind === "unavailable" || (kind === "exhausted" && retryAfterMs > 0);
}

const BY_REASON: Record<string, Kind> = {
  SEALED: "sealed", BLANK: "blank", INDETERMINATE: "indeterminate", ALREADY_DONE: "indeterminate",
};
const BY_CODE: Partial<Record<status, Kind>> = {
  [status.UNAUTHENTICATED]: "unauthenticated",
  [status.PERMISSION_DENIED]: "denied",
  [status.NOT_FOUND]: "not_found",
  [status.ALREADY_EXISTS]: "conflict",
  [status.ABORTED]: "conflict",
  [status.FAILED_PRECONDITION]: "conflict",
  [status.INVALID_ARGUMENT]: "invalid",
  [status.OUT_OF_RANGE]: "invalid",
  [status.RESOURCE_EXHAUSTED]: "exhausted",
  [status.UNAVAILABLE]: "unavailable",
  [status.DEADLINE_EXCEEDED]: "unavailable",
  [status.CANCELLED]: "unavailable",
  [status.UNIMPLEMENTED]: "unsupported",
};

/** The error of one item of many, by gRPC's code. */
export function ofItem(reason: string, message: string, code: status): StrongroomError {
  return new StrongroomError(BY_REASON[reason] ?? BY_CODE[code] ?? "internal", message, reason);
}

/** The error of a call that gRPC reports. */
export function ofCall(error: ServiceError): StrongroomError {
  const { reason, requestId, retryAfterMs } = details(error.metadata?.get("grpc-status-details-bin")[0]);
  const kind = BY_REASON[reason] ?? BY_CODE[error.code] ?? "internal";
  return new StrongroomError(kind, error.details || error.message, reason, requestId, retryAfterMs);
}
