//! `[limits.rates]`: how often anybody may ask.

use crate::limit::Rate;
use serde::Deserialize;

macro_rules! rates {
    ($($(#[$doc:meta])* $name:ident = $default:expr;)*) => {
        /// Each key is a text such as `"200/s burst 1000"`, or `"off"`.
        #[derive(Debug, Clone, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Rates {
            $($(#[$doc])* pub $name: Rate,)*
        }
        impl Default for Rates {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }
    };
}

rates! {
    /// TLS handshakes of one source (an address; of IPv6 the /64). Default `200/s burst 2000`.
    handshakes_per_source = Rate::per_sec(200, 2000);
    /// Calls of one source, whoever makes them, before their tokens are looked at. Default `20000/s burst 40000`.
    calls_per_source = Rate::per_sec(20_000, 40_000);
    /// Log-ins of one source. Default `200/s burst 2000`.
    logins_per_source = Rate::per_sec(200, 2000);
    /// Renewals, revocations, seal, unseal and status of one source. Default `2000/s burst 4000`.
    relief_per_source = Rate::per_sec(2000, 4000);
    /// Reads by one identity. Default `10000/s burst 20000`.
    reads_per_identity = Rate::per_sec(10_000, 20_000);
    /// Reads by one token. Default `5000/s burst 10000`.
    reads_per_token = Rate::per_sec(5000, 10_000);
    /// Changes by one identity. Default `4000/s burst 8000`.
    changes_per_identity = Rate::per_sec(4000, 8000);
    /// Changes by one token. Default `2000/s burst 4000`.
    changes_per_token = Rate::per_sec(2000, 4000);
    /// Acts outside (credentials issued or rotated, fetches) by one identity. Default `500/s burst 2000`.
    acts_per_identity = Rate::per_sec(500, 2000);
    /// Acts outside by one token. Default `250/s burst 1000`.
    acts_per_token = Rate::per_sec(250, 1000);
    /// Renewals and revocations by one identity. Default `500/s burst 2000`.
    relief_per_identity = Rate::per_sec(500, 2000);
    /// Renewals and revocations by one token. Default `250/s burst 1000`.
    relief_per_token = Rate::per_sec(250, 1000);
    /// Log-ins of everybody together. Default `off`.
    logins = Rate::OFF;
    /// Reads by everybody together. Default `off`.
    reads = Rate::OFF;
    /// Changes by everybody together. Default `off`.
    changes = Rate::OFF;
    /// Acts outside by everybody together. Default `off`.
    acts = Rate::OFF;
}
