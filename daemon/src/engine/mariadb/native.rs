//! `mysql_native_password` verifiers, computed here so that the server and its logs never see a password.

use sha1::{Digest, Sha1};
use zeroize::Zeroizing;

/// `*` and upper-case hex of SHA1(SHA1(password)): what `PASSWORD()` would give. No salt: it protects passwords of 190 bits,
/// which is what this engine makes, not ones that people choose.
pub fn verifier(password: &[u8]) -> String {
    let once = Zeroizing::new(<[u8; 20]>::from(Sha1::digest(password)));
    format!("*{}", data_encoding::HEXUPPER.encode(&Sha1::digest(*once)))
}

#[cfg(test)]
mod tests {
    /// The example in MariaDB's own documentation of `PASSWORD()`.
    #[test]
    fn agrees_with_the_server() {
        assert_eq!(
            super::verifier(b"notagoodpwd"),
            "*3A70EE9FC6594F88CE9E959CD51C5A1C002DC937"
        );
        assert_eq!(
            super::verifier(b"password"),
            "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"
        );
    }
}
