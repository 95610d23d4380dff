use super::*;
use proptest::prelude::*;

#[test]
fn defaults_are_the_documented_places() {
    let config = Config::parse("").unwrap();
    assert_eq!(config.listener.address.get_ref().to_string(), "[::]:8470");
    assert_eq!(config.listener.metrics.get_ref().to_string(), "127.0.0.1:9470");
    assert_eq!(config.store.path.get_ref().to_str(), Some("/var/lib/strongroom"));
    assert_eq!(config.audit_dir().to_str(), Some("/var/lib/strongroom/audit"));
    assert_eq!(*config.audit.sync.get_ref(), AuditSync::Synced);
}

/// R-OPS-4: strict keys, clear errors that name key and line.
#[test]
fn every_error_names_key_and_line() {
    let hsm = "[hsm.main]\nmodule = \"/m.so\"\n";
    for (text, parts) in [
        ("[store]\nbakend = \"fjall\"\n", vec!["line 2", "bakend"]),
        ("[store]\nbackend = \"redb\"\n", vec!["line 2", "backend", "fjall"]),
        (
            "\n[store]\nbackend = \"sled\"\n",
            vec!["line 3", "store.backend", "accept_risk"],
        ),
        (
            "[listener]\ntls_cert = \"/c\"\n",
            vec!["line 2", "listener.tls_cert", "tls_key"],
        ),
        ("[listener]\naddress = \"nowhere\"\n", vec!["line 2", "address"]),
        ("[audit]\nsegment_mib = 0\n", vec!["line 2", "audit.segment_mib"]),
        ("[store]\ncache_mib = 3\n", vec!["line 2", "store.cache_mib"]),
        ("[audit]\nsync = \"never\"\n", vec!["line 2", "sync", "written"]),
        (
            "[limits]\nrequests_max = 0\n",
            vec!["line 2", "limits.requests_max", "1 to"],
        ),
        (
            "[limits]\n\nhandshake_secs = 0\n",
            vec!["line 3", "limits.handshake_secs"],
        ),
        (
            "[limits]\nconnections_max = 9223372036854775807\n",
            vec!["line 2", "limits.connections_max", "1000000"],
        ),
        (
            "[limits]\nleases_per_mount_max = 0\n",
            vec!["line 2", "limits.leases_per_mount_max"],
        ),
        (
            "[store]\nreserve_mib = 17592186044416\n",
            vec!["line 2", "store.reserve_mib", "1048576"],
        ),
        (
            "[listener]\naddress = \"127.0.0.1:9470\"\ntls_cert = \"/c\"\ntls_key = \"/k\"\n",
            vec!["line 2", "listener.address", "listener.metrics"],
        ),
        (
            "[listener]\ntls_cert = \"/c\"\ntls_key = \"/k\"\nmetrics = \"127.0.0.1:8470\"\n",
            vec!["line 4", "listener.metrics", "its own"],
        ),
        (
            "[limits.rates]\n\nreads_per_token = \"fast\"\n",
            vec!["line 3", "reads_per_token", "200/s burst 1000"],
        ),
        (
            "[limits.rates]\nreads_per_person = \"off\"\n",
            vec!["line 2", "reads_per_person"],
        ),
        (
            "[limits]\nlatency_target_ms = 0\n",
            vec!["line 2", "limits.latency_target_ms"],
        ),
        ("[log]\nlevel = \"loud\"\n", vec!["line 2", "log.level"]),
        ("[secrets]\n", vec!["line 1", "secrets"]),
        (hsm, vec!["line 2", "hsm.main", "token"]),
        (&format!("{hsm}token = \"t\"\n"), vec!["line 2", "pin_file"]),
        (&format!("{hsm}token = \"t\"\npin = \"1234\"\n"), vec!["line 4", "pin"]),
        (
            &format!("{hsm}token = \"t\"\npin_file = \"/p\"\nenv = {{ USER_PIN = \"1\" }}\n"),
            vec!["USER_PIN"],
        ),
    ] {
        let error = Config::parse(text).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{text:?} gave {error:?}, which lacks {part:?}");
        }
    }
}

/// R-OPS-4: what was put where it does not belong is not shown.
#[test]
fn errors_show_no_values() {
    for text in [
        "[hsm.a]\nmodule = \"/m.so\"\npin = \"SUPERSECRET1234\"\n",
        "[store]\n\nreserve_mib = \"SUPERSECRET1234\"\n",
        "[store]\n\nreserve_mib = SUPERSECRET1234\n",
        "\n\nSUPERSECRET1234\n",
        "\n\nSUPERSECRET1234==\n",
        "[hsm.a]\nmodule = \"/m.so\"\nmodule_sha256 = 1234\npin_file = 12345678\n",
        "[hsm.a]\nmodule = \"/m.so\"\npin_file = 12345678\n",
        "[store]\n\nbackend = \"SUPERSECRET1234, expected \\\" `x`\"\n",
        "[store]\n\nreserve_mib = \"SUPERSECRET1234\\\", expected SUPERSECRET\"\n",
    ] {
        let error = Config::parse(text).unwrap_err();
        assert!(error.contains("line 3"), "{error}");
        assert!(!error.contains("SUPERSECRET") && !error.contains("1234"), "{error}");
    }
}

/// What a default cannot be blamed for has no line; what shares no port, or serves none, is right.
#[test]
fn ports_that_do_not_meet_are_right() {
    let with = |lines: &str| Config::parse(&format!("[listener]\ntls_cert = \"/c\"\ntls_key = \"/k\"\n{lines}"));
    for right in [
        "",
        "address = \"127.0.0.1:1\"\nmetrics = \"127.0.0.2:1\"\n",
        "address = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n",
        "address = \"[::]:1\"\nmetrics = \"127.0.0.1:1\"\nmetrics_off = true\n",
    ] {
        assert!(with(right).is_ok(), "{right}");
    }
    assert!(Config::parse("[listener]\naddress = \"127.0.0.1:9470\"\n").is_ok());
}

#[test]
fn sled_needs_the_exact_sentence() {
    let with = |sentence: &str| Config::parse(&format!("[store]\nbackend = \"sled\"\naccept_risk = \"{sentence}\"\n"));
    assert!(with(check::SLED_RISK).is_ok());
    assert!(with("yes").unwrap_err().contains("accept_risk"));
}

proptest! {
    /// Fuzz: any text is a configuration or an error, never a panic.
    #[test]
    fn hostile_texts(text in "\\PC{0,200}", section in "listener|store|hsm.a|audit|limits|log", key in "[a-z_]{1,12}", value in "\\PC{0,30}") {
        let _ = Config::parse(&text);
        let _ = Config::parse(&format!("[{section}]\n{key} = {value}\n"));
        let _ = Config::parse(&format!("[{section}]\n{key} = \"{value}\"\n"));
    }
}
