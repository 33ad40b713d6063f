//! Halves of characters that clients leave in JSON when they cut a text in the middle of an emoji.
//!
//! JSON writes characters beyond 16 bits as two escapes, a high and a low surrogate, and strings of
//! JavaScript, Java and C# are counted and cut in such halves. A half alone is no character: as in
//! browsers, it becomes U+FFFD. Otherwise one cut message would spoil its conversation for ever.

/// What U+FFFD looks like as an escape, and as UTF-8: as long as what it replaces.
const ESCAPED: &[u8] = br"\ufffd";
const ENCODED: &[u8] = "\u{FFFD}".as_bytes();

const HIGH: std::ops::RangeInclusive<u16> = 0xD800..=0xDBFF;
const LOW: std::ops::RangeInclusive<u16> = 0xDC00..=0xDFFF;

/// Replaces surrogates without their other half, escaped or encoded, in place and in one pass.
/// Whether there were any.
pub(super) fn replace_unpaired(json: &mut [u8]) -> bool {
    let (mut at, mut any) = (0, false);
    while let Some(next) = json[at..].iter().position(|byte| matches!(byte, b'\\' | 0xED)) {
        at += next;
        let (bytes, replacement) = sequence(&json[at..]);
        if let Some(replacement) = replacement {
            json[at..at + bytes].copy_from_slice(replacement);
            any = true;
        }
        at = (at + bytes).min(json.len());
    }
    any
}

/// The bytes of the escape or character that `json` begins with, and what to put in its place.
fn sequence(json: &[u8]) -> (usize, Option<&'static [u8]>) {
    if json[0] == 0xED {
        let surrogate = matches!(json, [_, 0xA0..=0xBF, 0x80..=0xBF, ..]);
        return if surrogate { (3, Some(ENCODED)) } else { (1, None) };
    }
    match escaped_unit(json) {
        Some(high) if HIGH.contains(&high) => match escaped_unit(&json[6..]) {
            Some(low) if LOW.contains(&low) => (12, None),
            _ => (6, Some(ESCAPED)),
        },
        Some(low) if LOW.contains(&low) => (6, Some(ESCAPED)),
        Some(_) => (6, None),
        None => (2, None),
    }
}

/// The number in an escape of the form `\uXXXX`.
fn escaped_unit(json: &[u8]) -> Option<u16> {
    let digits = json.get(..6)?.strip_prefix(br"\u")?;
    let digit = |unit: u16, digit: &u8| {
        let value = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | u16::try_from(value).ok()?)
    };
    digits.iter().try_fold(0, digit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn replaced(json: &[u8]) -> (String, bool) {
        let mut json = json.to_vec();
        let any = replace_unpaired(&mut json);
        (String::from_utf8(json).unwrap(), any)
    }

    #[rstest]
    #[case(br#"hi\ud83d"#, r"hi\ufffd")]
    #[case(br#"\uDE00 low first"#, r"\ufffd low first")]
    #[case(br#"\ud83d\ud83d\ude00"#, r"\ufffd\ud83d\ude00")]
    #[case(br#"\ud83d\n"#, r"\ufffd\n")]
    #[case(br#"\ud83d\u0041"#, r"\ufffd\u0041")]
    #[case(b"cut\xED\xA0\xBD", "cut\u{FFFD}")]
    fn a_half_becomes_a_replacement_character(#[case] json: &[u8], #[case] expected: &str) {
        assert_eq!(replaced(json), (expected.to_owned(), true));
    }

    #[rstest]
    #[case(r"\ud83d\ude00")]
    #[case(r"\\ud83d is an escaped backslash")]
    #[case(r"\u00e9 \ufffd \u123")]
    #[case(r"ends with \")]
    #[case("\u{D7FF} begins with the same byte")]
    fn anything_else_stays(#[case] json: &str) {
        assert_eq!(replaced(json.as_bytes()), (json.to_owned(), false));
    }

    proptest! {
        /// The definition: a string of 16-bit units, written as escapes, reads as Rust reads it.
        #[test]
        fn every_string_of_units_can_be_read(units in proptest::collection::vec(0xD700..=0xE0FF_u16, 0..12)) {
            let escapes: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let (json, _) = replaced(format!("\"{escapes}\"").as_bytes());
            let read: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, String::from_utf16_lossy(&units));
        }
    }
}
