//! The text of a value, and what the parser would not notice in it.
//!
//! While serde_json skips a value it checks neither UTF-8 nor surrogates, nor how deep the value is
//! nested. So that is looked for here, in all of the value, and the verdict never depends on which
//! fields somebody reads.

use crate::reject::{Fault, Reason};

/// The largest value in bytes, 1 MiB: what a broker takes by default. A compressed batch can
/// smuggle in more.
const VALUE_BYTES_MAX: usize = 1_048_576;

/// The deepest nesting of objects and arrays, the outermost one included; ours needs four.
const DEPTH_MAX: usize = 64;

/// The text of a record's value, if it is worth parsing: of an acceptable size and depth, and free
/// of the faults that the parser would not notice.
pub(super) fn parseable(value: Option<&[u8]>) -> Result<&str, Fault> {
    let Some(value) = value else {
        return Err(Fault::new(
            Reason::NullValue,
            "expected a JSON object, got a tombstone (null value)",
        ));
    };
    if value.len() > VALUE_BYTES_MAX {
        let message =
            format!("expected a value of at most {VALUE_BYTES_MAX} bytes, got {}", value.len());
        return Err(Fault::new(Reason::ValueTooLarge, message));
    }
    let text = match std::str::from_utf8(value) {
        Ok(text) => text,
        Err(error) => {
            let message =
                format!("expected UTF-8, got other bytes from byte {} on", error.valid_up_to());
            return Err(Fault::new(Reason::NotUtf8, message));
        }
    };
    if text.starts_with('\u{feff}') {
        return Err(Fault::new(
            Reason::NotJson,
            "expected a JSON object, got a byte-order mark before it",
        ));
    }
    let found = Suspects::in_text(value);
    if found.brackets > DEPTH_MAX && depth(value) > DEPTH_MAX {
        let message = format!("expected nesting of at most {DEPTH_MAX} levels, got more");
        return Err(Fault::new(Reason::TooDeep, message));
    }
    if found.backslash && has_lone_surrogate(value) {
        return Err(Fault::new(
            Reason::NotJson,
            "expected Unicode text, got a lone surrogate in a string",
        ));
    }
    Ok(text)
}

/// What makes a closer look necessary; found in loops without a branch, which the compiler
/// vectorises.
struct Suspects {
    /// How many opening brackets there are, in strings too: the depth cannot be larger.
    brackets: usize,
    backslash: bool,
}

impl Suspects {
    fn in_text(text: &[u8]) -> Suspects {
        let mut suspects = Suspects { brackets: 0, backslash: false };
        // A block of 255 bytes cannot overflow its counter.
        for block in text.chunks(255) {
            // `[` and `{` differ in the one bit that is set here.
            let brackets: u8 = block.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum();
            suspects.brackets += usize::from(brackets);
            suspects.backslash |= has_backslash(block);
        }
        suspects
    }
}

/// Looks at every byte without a branch, which for short texts is faster than to stop at the first.
pub(super) fn has_backslash(text: &[u8]) -> bool {
    text.iter().fold(false, |found, byte| found | (*byte == b'\\'))
}

/// The depth of nesting outside of strings. Brackets are not matched: that is left to the parser.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.iter();
    let mut in_string = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => {
                bytes.next();
            }
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Whether an escape stands for half a character. In JSON a backslash stands nowhere but in a
/// string, so there is no need to know where strings begin; what is not JSON at all is rejected for
/// the same reason anyway.
fn has_lone_surrogate(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[at..];
        let escape_len = match (utf16_unit(rest), rest.get(6..).and_then(utf16_unit)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => return true,
            _ => 2,
        };
        rest = rest.get(escape_len..).unwrap_or_default();
    }
    false
}

/// The number in an escape `\uXXXX` at the beginning of `text`.
fn utf16_unit(text: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = text else {
        return None;
    };
    let digits = digits.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}
