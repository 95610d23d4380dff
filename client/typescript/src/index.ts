/**
 * Strongroom for Node: secrets, leased credentials, and both kept fresh.
 * Reading order: `errors`, `values` (what is handed out), `wire`, `proof` (of the key that a token is bound to), `client` (calls), `held` (values that stay fresh), `transit` (keys).
 */
export { Client, type Options } from "./client.js";
export { StrongroomError, type Kind } from "./errors.js";
export { Secrets } from "./held.js";
export { ProofKey } from "./proof.js";
export { DataKey, Transit, type Signature } from "./transit.js";
export { Fields, type Credential, type Delivered, type Event, type Follow, type SecretVersion, type Want } from "./values.js";
