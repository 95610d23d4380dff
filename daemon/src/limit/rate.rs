//! A rate as an operator writes it: `"200/s burst 1000"`.

use serde::Deserialize;
use std::{fmt, str::FromStr, time::Duration};

/// The most that a rate or a burst can be.
const NUMBER_MAX: u64 = 1_000_000;
/// No burst takes longer than this to come back: a table's cell must be able to say when.
const REFILL_MAX_MICROS: u64 = 30 * 24 * 3600 * 1_000_000;

/// So many in the long run, and so many at once. [`Rate::OFF`]: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    /// One each so many microseconds; 0: no limit.
    every_micros: u64,
    burst: u64,
}

/// A text that is no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a rate is \"off\", or a number of 1 to 1000000 a second, minute or hour, and what may come at once: \"200/s burst 1000\", \"10/m\""
)]
pub struct RateError;

impl Rate {
    /// No limit.
    pub const OFF: Self = Self {
        every_micros: 0,
        burst: 0,
    };

    /// `per_sec` a second, `burst` at once; both 1 to 1,000,000.
    pub(crate) const fn per_sec(per_sec: u64, burst: u64) -> Self {
        Self {
            every_micros: 1_000_000_u64.div_ceil(per_sec),
            burst,
        }
    }

    /// One of them, as time.
    pub(super) const fn every_micros(self) -> u64 {
        self.every_micros
    }

    /// A whole burst, as time.
    pub(super) const fn burst_micros(self) -> u64 {
        self.every_micros.saturating_mul(self.burst)
    }

    /// Whether it limits nothing.
    pub const fn is_off(self) -> bool {
        self.every_micros == 0
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        if text == "off" {
            return Ok(Self::OFF);
        }
        let (rate, burst) = match text.split_once(" burst ") {
            Some((rate, burst)) => (rate, Some(number(burst)?)),
            None => (text, None),
        };
        let (number, unit) = rate
            .split_once('/')
            .ok_or(RateError)
            .and_then(|(digits, unit)| Ok((number(digits)?, unit)))?;
        let unit_micros: u64 = match unit {
            "s" => 1_000_000,
            "m" => 60 * 1_000_000,
            "h" => 3600 * 1_000_000,
            _ => return Err(RateError),
        };
        let rate = Self {
            every_micros: unit_micros.div_ceil(number),
            burst: burst.unwrap_or(number),
        };
        if rate.burst_micros() > REFILL_MAX_MICROS {
            return Err(RateError);
        }
        Ok(rate)
    }
}

fn number(digits: &str) -> Result<u64, RateError> {
    let number = digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())
        .flatten();
    number.filter(|n| (1..=NUMBER_MAX).contains(n)).ok_or(RateError)
}

impl TryFrom<String> for Rate {
    type Error = RateError;
    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

/// What a caller reads: `200 in a second`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = Duration::from_micros(self.every_micros);
        match self.every_micros {
            0 => f.write_str("no limit"),
            1..=1_000_000 => write!(f, "{} a second", 1_000_000 / self.every_micros),
            _ => write!(f, "one in {} s", every.as_secs_f32().ceil()),
        }
    }
}
