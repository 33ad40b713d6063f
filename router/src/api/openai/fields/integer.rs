//! Whole numbers, as languages write them whose numbers are all floating point: 2 and 2.0.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Up to here a floating-point number means one whole number: 2^53.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Integer(i128);

struct IntegerVisitor;

// === impl Integer ===

impl Integer {
    /// The number; one beyond 64 bits as the nearest that fits, which every range check refuses.
    pub(crate) fn get(self) -> i64 {
        let nearest = self.0.clamp(i64::MIN.into(), i64::MAX.into());
        i64::try_from(nearest).unwrap_or_default()
    }

    /// The number, signed or unsigned.
    pub(crate) fn wide(self) -> i128 {
        self.0
    }

    /// The whole number that a JSON value is, if it is one.
    pub(crate) fn of(value: &serde_json::Value) -> Option<i64> {
        Self::deserialize(value).ok().map(Self::get)
    }
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IntegerVisitor)
    }
}

// === impl IntegerVisitor ===

impl Visitor<'_> for IntegerVisitor {
    type Value = Integer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Integer, E> {
        Ok(Integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Integer, E> {
        Ok(Integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Integer, E> {
        if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
            return Ok(Integer(value as i128));
        }
        Err(E::invalid_type(serde::de::Unexpected::Float(value), &self))
    }
}
