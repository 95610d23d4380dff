//! Every message round-trips; hostile bytes are refused or read in their one form.

use super::*;
use crate::blob::tests::any_blob;
use proptest::collection::vec;
use proptest::prelude::*;

/// For proptest's reports only: in the product requests have no `Debug`, they carry secrets.
impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", &*self.encode())
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:02x?}", &*self.encode())
    }
}

fn any_ring() -> impl Strategy<Value = Ring> {
    "[a-z0-9][a-z0-9._-]{0,63}".prop_map(|r| Ring::new(&r).unwrap())
}

fn any_key() -> impl Strategy<Value = (Ring, u32)> {
    (any_ring(), 1..=u32::MAX)
}

fn any_error() -> impl Strategy<Value = HsmError> {
    (0..ErrorKind::ALL.len(), "\\PC{0,40}").prop_map(|(k, d)| HsmError::new(ErrorKind::ALL[k], d))
}

fn any_secret(max: usize) -> impl Strategy<Value = Zeroizing<Vec<u8>>> {
    vec(any::<u8>(), 1..=max).prop_map(Zeroizing::new)
}

fn any_info() -> impl Strategy<Value = KeyInfo> {
    (any_key(), 1..=3_u8, 0..=4_u8).prop_map(|((ring, version), kind, mechanism)| KeyInfo {
        ring,
        version,
        kind: kind_from(kind).unwrap(),
        mechanism: Mechanism::from_u8(mechanism),
    })
}

fn any_request() -> impl Strategy<Value = Request> {
    let context = || vec(any::<u8>(), 0..=CONTEXT_BYTES_MAX);
    let path = || "/[a-z]{1,20}".prop_map(PathBuf::from);
    prop_oneof![
        (
            "[a-z]{1,32}",
            any::<bool>(),
            vec(path(), 0..4),
            proptest::option::of(path())
        )
            .prop_map(|(text, serial, landlock, pin)| {
                let token = if serial {
                    TokenSelector::Serial(text)
                } else {
                    TokenSelector::Label(text)
                };
                Request::Hello { token, landlock, pin }
            }),
        path().prop_map(|p| Request::Login { pin: Pin::File(p) }),
        any_secret(PIN_BYTES_MAX).prop_map(|p| Request::Login { pin: Pin::Bytes(p) }),
        (any_info(), 0..=4_u8).prop_map(|(i, only)| Request::Create {
            ring: i.ring,
            version: i.version,
            kind: i.kind,
            mechanism: Mechanism::from_u8(only).map_or(MechanismChoice::Auto, MechanismChoice::Only),
        }),
        (any_key(), context(), any::<[u8; 32]>()).prop_map(|((ring, version), context, seed)| Request::Seal {
            ring,
            version,
            context,
            seed: Box::new(Zeroizing::new(seed))
        }),
        (any_blob(), context()).prop_map(|(blob, context)| Request::Open { blob, context }),
        any_ring().prop_map(|ring| Request::List { ring }),
        any_key().prop_map(|(ring, version)| Request::Destroy { ring, version }),
        (any_key(), any::<[u8; 32]>()).prop_map(|((ring, version), digest)| Request::Sign { ring, version, digest }),
        any_key().prop_map(|(ring, version)| Request::PublicKey { ring, version }),
        Just(()).prop_map(|()| Request::SelfTest),
        (any::<bool>(), proptest::option::of(any_key())).prop_map(|(deep, key)| Request::Probe { deep, key }),
        Just(()).prop_map(|()| Request::Exit),
        ("[a-z]{1,32}", any_secret(PIN_BYTES_MAX), any_secret(PIN_BYTES_MAX))
            .prop_map(|(label, so_pin, pin)| Request::Provision { label, so_pin, pin }),
    ]
}

fn any_reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        Just(()).prop_map(|()| Reply::Done),
        ("[ -~]{0,32}", "[ -~]{0,16}", any::<(bool, bool, bool)>()).prop_map(|(label, serial, flags)| {
            let identity = TokenIdentity {
                label,
                serial,
                ..TokenIdentity::default()
            };
            let pin = PinFlags {
                count_low: flags.0,
                final_try: flags.1,
                locked: flags.2,
            };
            Reply::Token { identity, pin }
        }),
        any_info().prop_map(Reply::Key),
        vec(any_info(), 0..20).prop_map(Reply::Keys),
        any_blob().prop_map(Reply::Blob),
        any::<[u8; 32]>().prop_map(|s| Reply::Seed(Box::new(Zeroizing::new(s)))),
        vec(any::<u8>(), 0..=BYTES_MAX).prop_map(Reply::Bytes),
        vec((1..=4_u8, proptest::option::of(any_error())), 0..=4).prop_map(|trials| {
            let trial = |(m, failure)| Trial {
                mechanism: Mechanism::from_u8(m).unwrap(),
                failure,
            };
            Reply::Trials(trials.into_iter().map(trial).collect())
        }),
        any_error().prop_map(Reply::Failed),
    ]
}

proptest! {
    /// What one side writes the other reads, within the bound, and nothing shorter or longer.
    #[test]
    fn round_trip(request in any_request(), reply in any_reply(), at in any::<prop::sample::Index>()) {
        let bytes = request.encode();
        prop_assert!(bytes.len() <= crate::wire::MESSAGE_BYTES_MAX);
        prop_assert_eq!(&*Request::decode(&bytes).unwrap().encode(), &*bytes);
        prop_assert!(Request::decode(&bytes[..at.index(bytes.len())]).is_err());
        prop_assert!(Request::decode(&[&bytes[..], &[0]].concat()).is_err());
        let bytes = reply.encode();
        prop_assert_eq!(&*Reply::decode(&bytes).unwrap().encode(), &*bytes);
        prop_assert!(Reply::decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    /// Hostile bytes: no panic, and whatever is accepted is in its one form.
    #[test]
    fn arbitrary_bytes(tag in 0..16_u8, rest in vec(prop_oneof![Just(0_u8), any::<u8>()], 0..300)) {
        let bytes = [&[tag], &rest[..]].concat();
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(&*request.encode(), &bytes);
        }
        if let Ok(reply) = Reply::decode(&bytes) {
            prop_assert_eq!(&*reply.encode(), &bytes);
        }
    }

    /// A message changed in one byte is refused or read as another message, never with a panic.
    #[test]
    fn mutated(request in any_request(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = request.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(&*request.encode(), &bytes);
        }
    }
}

/// Messages with secrets never grow: no half-written copy is left in the heap.
#[test]
fn secrets_fit_the_first_buffer() {
    let ring = || Ring::new(&"r".repeat(Ring::BYTES_MAX)).unwrap();
    let pin = || Zeroizing::new(vec![7; PIN_BYTES_MAX]);
    let seed = Box::new(Zeroizing::new([7; 32]));
    let context = vec![0; CONTEXT_BYTES_MAX];
    for message in [
        Request::Seal {
            ring: ring(),
            version: 1,
            context,
            seed,
        }
        .encode(),
        Request::Login { pin: Pin::Bytes(pin()) }.encode(),
        Request::Provision {
            label: "l".repeat(32),
            so_pin: pin(),
            pin: pin(),
        }
        .encode(),
    ] {
        assert!(message.len() <= SMALL && message.capacity() == SMALL);
    }
}
