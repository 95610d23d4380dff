//! Known values in a stream of bytes, replaced. What could be the beginning of one is held back until more comes; nothing else is delayed.

use strongroom_client::Secret;
use zeroize::Zeroizing;

/// Shorter values would mask half of every text.
const NEEDLE_BYTES_MIN: usize = 4;
const MASK: &[u8] = b"***";

/// The values to hide, longest first.
pub struct Needles(Vec<Zeroizing<Vec<u8>>>);

impl Needles {
    /// Of secrets, and of the lines of those that have several.
    pub fn of<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let mut needles: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for secret in secrets {
            let whole = secret.expose().trim_ascii_end();
            for part in whole
                .split(|byte| *byte == b'\n')
                .map(<[u8]>::trim_ascii)
                .chain([whole])
            {
                if part.len() >= NEEDLE_BYTES_MIN && !needles.iter().any(|known| known.as_slice() == part) {
                    needles.push(Zeroizing::new(part.to_vec()));
                }
            }
        }
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        Self(needles)
    }

    /// A stream to be masked.
    pub fn stream(&self) -> Masked<'_> {
        Masked {
            needles: self,
            held: Zeroizing::new(Vec::new()),
        }
    }

    fn at(&self, text: &[u8]) -> Option<usize> {
        self.0
            .iter()
            .find(|needle| text.starts_with(needle))
            .map(|needle| needle.len())
    }

    /// Whether more bytes could turn `rest`, which is all there is, into a needle.
    fn may_become(&self, rest: &[u8]) -> bool {
        self.0
            .iter()
            .any(|needle| needle.len() > rest.len() && needle.starts_with(rest))
    }
}

/// One stream.
pub struct Masked<'n> {
    needles: &'n Needles,
    held: Zeroizing<Vec<u8>>,
}

impl Masked<'_> {
    /// What may be shown after these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        self.show(false)
    }

    /// The rest.
    pub fn finish(&mut self) -> Vec<u8> {
        self.show(true)
    }

    fn show(&mut self, all: bool) -> Vec<u8> {
        let (mut shown, mut at) = (Vec::with_capacity(self.held.len()), 0);
        while let Some(rest) = self.held.get(at..).filter(|rest| !rest.is_empty()) {
            if !all && self.needles.may_become(rest) {
                break;
            }
            match self.needles.at(rest) {
                Some(length) => {
                    shown.extend_from_slice(MASK);
                    at += length;
                }
                None => {
                    shown.extend(rest.first());
                    at += 1;
                }
            }
        }
        self.held.drain(..at);
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn needles(values: &[&str]) -> Needles {
        let secrets: Vec<_> = values.iter().map(|value| Secret::from(*value)).collect();
        Needles::of(secrets.iter())
    }

    #[test]
    fn table() {
        for (values, text, want) in [
            (&["secret"][..], "a secret here", "a *** here"),
            (&["secret"], "secretsecret", "******"),
            (&["secret", "secretive"], "secretive secret", "*** ***"),
            (&["abc"], "abc", "abc"),
            (&["line-one\nline-two\n"], "line-two", "***"),
            (&["secret"], "secre", "secre"),
            (&[], "x", "x"),
        ] {
            let needles = needles(values);
            let mut stream = needles.stream();
            let mut shown = stream.push(text.as_bytes());
            shown.extend(stream.finish());
            assert_eq!(String::from_utf8(shown).unwrap(), want, "{values:?} {text}");
        }
    }

    /// A prompt without a line end is not held back.
    #[test]
    fn a_prompt_shows_at_once() {
        let needles = needles(&["secret"]);
        assert_eq!(needles.stream().push(b"password: "), b"password: ");
    }

    proptest! {
        /// However the bytes are cut, the same is shown, and no value among it.
        #[test]
        fn cuts_do_not_matter(text in "(secret|token|to|se|cr|[a-z]){0,30}", cut in prop::collection::vec(1_usize..8, 1..60)) {
            let needles = needles(&["secret", "token", "cretto"]);
            let mut whole = needles.stream();
            let mut want = whole.push(text.as_bytes());
            want.extend(whole.finish());
            let (mut stream, mut shown, mut rest) = (needles.stream(), Vec::new(), text.as_bytes());
            for length in cut {
                let (head, tail) = rest.split_at(length.min(rest.len()));
                shown.extend(stream.push(head));
                rest = tail;
            }
            shown.extend(stream.push(rest));
            shown.extend(stream.finish());
            prop_assert_eq!(&shown, &want);
            let shown = String::from_utf8(shown).unwrap();
            prop_assert!(!shown.contains("secret") && !shown.contains("token"));
        }
    }
}
