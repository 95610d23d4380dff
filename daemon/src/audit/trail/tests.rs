use super::*;
use crate::audit::hash::HASHED_BYTES_MIN;
use crate::base::{
    locked::LockedKey,
    time::{ManualClock, Timestamp},
};
use serde_json::{Value, json};

fn recorder(paths: Paths) -> Arc<Recorder> {
    Recorder::new(
        BootId::from_bytes([0xb0; 16]),
        Arc::new(ManualClock::at(Timestamp(1_795_000_000_123))),
        paths,
    )
}

fn hasher() -> Arc<AuditHasher> {
    Arc::new(AuditHasher::new(&LockedKey::copy_of(&[0x4b; 32]).unwrap(), 3).unwrap())
}

fn trail(paths: Paths) -> Trail {
    let source = Source::Tls("192.0.2.7:4711".parse().unwrap());
    Trail::of_request(&recorder(paths), RequestId::from_bytes([0x1e; 16]), source, "kv.put")
}

fn parsed(record: &Encoded) -> Value {
    serde_json::from_slice(record.as_bytes()).unwrap()
}

/// R-AUDIT-1: who, what, where from, when, decision and outcome.
#[test]
fn a_record_says_who_what_where_when_why_and_how_it_ended() {
    let mut trail = trail(Paths::Clear);
    trail.path(&Path::parse("kv/prod/db").unwrap());
    let attributes = [("team".to_owned(), "payments".to_owned())].into();
    trail.identified(Who {
        id: IdentityId::from_bytes([1; 16]),
        principal: Principal::new([1; 16], "build", ["ci".to_owned()].into(), attributes)
            .unwrap()
            .into(),
        accessor: Accessor::from_bytes([2; 16]),
        session: SessionId::from_bytes([3; 16]),
    });
    trail.decided(Decided {
        policy_hash: [0xee; 32],
        allowed: true,
        deciding: vec!["writers".into()],
        errors: 0,
        asked: Asked {
            action: "write",
            own: false,
            purpose: "session",
            age_secs: 7,
            binding: "none",
            strength: 2,
        },
    });
    trail.param_u64("cas", 3);
    trail.param_bool("dry", false);
    trail.param_word("kind", "kv");
    trail.param_path("to", &Path::parse("kv/other").unwrap());
    trail.param_id("mount", &[9; 16]);
    trail.param_time("until", Timestamp(0));
    let common = json!({
        "v": 1, "time": "2026-11-18T11:06:40.123Z", "boot": "b0".repeat(16), "request": "1e".repeat(16),
        "identity": {"id": "01".repeat(16), "name": "build", "groups": ["ci"], "attributes": {"team": "payments"}}, "accessor": "02".repeat(16), "session": "03".repeat(16),
        "source": {"transport": "tls", "addr": "192.0.2.7:4711"}, "op": "kv.put", "path": "kv/prod/db",
        "policy": {"hash": "ee".repeat(32), "decision": "allow", "deciding": ["writers"],
            "asked": {"action": "write", "purpose": "session", "age_secs": 7, "binding": "none", "strength": 2}},
        "params": {"cas": 3, "dry": false, "kind": "kv", "to": "kv/other", "mount": "09".repeat(16), "until": "1970-01-01T00:00:00.000Z"},
    });
    let mut request = common.clone();
    request["stage"] = "request".into();
    assert_eq!(parsed(&trail.request()), request);
    let mut response = common;
    response["stage"] = "response".into();
    response["outcome"] = json!({"code": "OK", "lease": "0a".repeat(16), "version": 4, "count": 2});
    let outcome = Outcome::ok()
        .with_lease(LeaseId::from_bytes([10; 16]))
        .with_version(4)
        .with_count(2);
    assert_eq!(parsed(&trail.response(&outcome)), response);
    let failed = parsed(&trail.response(&Outcome::failed("PERMISSION_DENIED", "DENIED")));
    assert_eq!(
        failed["outcome"],
        json!({"code": "PERMISSION_DENIED", "reason": "DENIED"})
    );
}

#[test]
fn a_local_and_a_system_record_say_so() {
    let recorder = recorder(Paths::Clear);
    let local = Trail::of_request(
        &recorder,
        RequestId::from_bytes([0; 16]),
        Source::Unix(0),
        "operator.init",
    );
    assert_eq!(
        parsed(&local.response(&Outcome::ok()))["source"],
        json!({"transport": "unix", "uid": 0})
    );
    let system = parsed(&Trail::of_system(&recorder, "lease.expire").response(&Outcome::ok()));
    assert_eq!((&system["stage"], &system["source"]), (&json!("system"), &Value::Null));
    assert_eq!(
        parsed(&Trail::of_alert(&recorder, "store.damaged").response(&Outcome::ok()))["stage"],
        "alert"
    );
}

/// R-AUDIT-1: of what came from outside only a keyed hash stands in the log, and nothing while there is no key or when it could be guessed.
#[test]
fn a_secret_leaves_a_keyed_hash_and_nothing_else() {
    const CANARY: &str = "srm_at_CANARY0123456789CANARY0123456789";
    let mut sealed = trail(Paths::Clear);
    sealed.param_hashed("value", CANARY.as_bytes());
    assert_eq!(parsed(&sealed.request()).get("params"), None);
    let mut open = trail(Paths::Clear);
    open.use_hasher(hasher());
    open.param_hashed("value", CANARY.as_bytes());
    open.param_hashed("pin", b"123456");
    let record = open.response(&Outcome::ok());
    // HMAC-SHA-256 of "param\0value\0" and the canary under 32 times 0x4b, computed by Python's hmac.
    assert_eq!(
        parsed(&record)["params"],
        json!({"value": "hmac-sha256:v3:d67d4e06afe0118bc3fe2dfe1be738248b61154e2d1ccac631d39fa95e3c8877"})
    );
    let key_hex = "4b".repeat(32);
    for text in [
        format!("{record:?}"),
        format!("{open:?}"),
        format!("{:?}", hasher()),
        format!("{:?}", recorder(Paths::Hash)),
    ] {
        assert!(
            !text.contains("CANARY") && !text.contains("123456") && !text.contains(&key_hex),
            "{text}"
        );
    }
}

#[test]
fn hashes_differ_by_kind_field_value_and_key() {
    let (hasher, value) = (hasher(), &[b'v'; HASHED_BYTES_MIN]);
    let other = AuditHasher::new(&LockedKey::copy_of(&[0x4c; 32]).unwrap(), 3).unwrap();
    let hashes = [
        hasher.hash("param", "value", value),
        hasher.hash("param", "valu", value),
        hasher.hash("header", "value", value),
        hasher.hash("param", "value", &[b'w'; HASHED_BYTES_MIN]),
        other.hash("param", "value", value),
        Some(hasher.path(&Path::parse("vvvvvvvvvvvvvvvv").unwrap())),
    ];
    assert!(hashes.iter().all(Option::is_some));
    assert_eq!(
        hashes.iter().collect::<std::collections::HashSet<_>>().len(),
        hashes.len()
    );
    assert_eq!(hasher.hash("param", "value", &value[1..]), None);
}

/// With `audit.paths = "hash"` no path is readable, and one path has one hash wherever it stands.
#[test]
fn paths_can_be_hashed() {
    let path = Path::parse("kv/prod/db").unwrap();
    let mut trail = trail(Paths::Hash);
    trail.path(&path);
    trail.param_path("to", &path);
    let sealed = parsed(&trail.request());
    assert_eq!((sealed.get("path"), sealed.get("params")), (None, None));
    trail.use_hasher(hasher());
    let record = parsed(&trail.request());
    assert_eq!(record["path"], hasher().path(&path));
    assert_eq!(record["path"], record["params"]["to"]);
    assert!(!record.to_string().contains("prod"));
}
