//! The rules for ids, styles and URLs, one pure function each.
//!
//! Ids are hostile: they end up in SQL parameters, cache keys and logs. So they are refused where
//! they could break a line (control characters) or mean nothing (blank), and otherwise kept as the
//! exact text that came; nothing is trimmed or folded. The one exception is a draft id whose column
//! is not text: it takes the column's own spelling, so that one draft has one cache key.
//!
//! Messages name the field. They quote an id or a style, shortened and escaped, but never a URL:
//! signed URLs carry their credentials in the query.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use fluent_uri::Uri;
use fluent_uri::component::Authority;

use crate::reject::{Fault, Reason};

/// The styles of the images, in the order in which everything lists them.
pub const STYLES: [&str; 3] = ["simple", "fancy", "trendy"];

/// The longest id in bytes: what fits a `varchar(255)`, the widest column that ids commonly have.
pub const ID_BYTES_MAX: usize = 255;

/// The longest URL in bytes: the customary limit, which the strictest browsers and proxies share.
pub const URL_BYTES_MAX: usize = 2_048;

/// How much of an id or a style a message quotes, in bytes after escaping.
const EXCERPT_BYTES_MAX: usize = 64;

/// Type of the `event_draft_id` column: the draft id has to fit it, and takes its canonical text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DraftIdType {
    /// `text`, or `varchar(n)` with at most `max_chars` characters.
    Text {
        /// The `n` of a `varchar(n)`.
        max_chars: Option<u32>,
    },
    /// `uuid`.
    Uuid,
    /// `bigint`.
    BigInt,
    /// `integer`.
    Integer,
}

impl DraftIdType {
    /// Its name in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            DraftIdType::Text { .. } => "text",
            DraftIdType::Uuid => "uuid",
            DraftIdType::BigInt => "int8",
            DraftIdType::Integer => "int4",
        }
    }
}

/// An id that is not blank, not too long, and fits on one line; `field` is for the message.
pub fn id<'a>(field: &str, text: Cow<'a, str>) -> Result<Cow<'a, str>, Fault> {
    if is_plain_id(&text) {
        return Ok(text);
    }
    if text.chars().all(char::is_whitespace) {
        let message = format!("{field}: expected an id, got blank text of {} bytes", text.len());
        return Err(Fault::new(Reason::BlankId, message));
    }
    if text.len() > ID_BYTES_MAX {
        let message = format!("{field}: expected at most {ID_BYTES_MAX} bytes, got {}", text.len());
        return Err(Fault::new(Reason::IdTooLong, message));
    }
    if text.chars().any(char::is_control) {
        let message = format!("{field}: expected no control characters, got {}", excerpt(&text));
        return Err(Fault::new(Reason::IdControlCharacter, message));
    }
    Ok(text)
}

/// Whether an id is of the plainest kind, as most are: it breaks no rule, and stands in JSON as it
/// is.
pub(crate) fn is_plain_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() & (byte != b'\\');
    all(text.as_bytes(), is_plain) && matches!(text.len(), 1..=ID_BYTES_MAX)
}

/// The draft id as its column spells it.
pub fn draft_id<'a>(
    field: &str,
    text: Cow<'a, str>,
    column: DraftIdType,
) -> Result<Cow<'a, str>, Fault> {
    let (canonical, expected) = match column {
        DraftIdType::Text { max_chars: None } => return Ok(text),
        DraftIdType::Text { max_chars: Some(max) } => return short_enough(field, text, max),
        DraftIdType::Uuid => (uuid(&text), "a uuid"),
        DraftIdType::BigInt => (integer::<i64>(&text), "an integer of 64 bits"),
        DraftIdType::Integer => (integer::<i32>(&text), "an integer of 32 bits"),
    };
    match canonical {
        Some(Cow::Borrowed(_)) => Ok(text),
        Some(Cow::Owned(respelt)) => Ok(Cow::Owned(respelt)),
        None => {
            let message =
                format!("{field}: expected {expected}, as its column is, got {}", excerpt(&text));
            Err(Fault::new(Reason::InvalidDraftId, message))
        }
    }
}

fn short_enough<'a>(
    field: &str,
    text: Cow<'a, str>,
    max_chars: u32,
) -> Result<Cow<'a, str>, Fault> {
    let chars = text.chars().count();
    if u32::try_from(chars).is_ok_and(|chars| chars <= max_chars) {
        return Ok(text);
    }
    let message = format!(
        "{field}: expected at most {max_chars} characters, as its column holds, got {chars}"
    );
    Err(Fault::new(Reason::InvalidDraftId, message))
}

/// A uuid in lower case with hyphens, from any form that PostgreSQL reads: upper case, in braces,
/// and with or without a hyphen after every group of four digits but the last. Borrowed where it is
/// spelt so already.
fn uuid(text: &str) -> Option<Cow<'_, str>> {
    let canonical_byte = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    if text.len() == 36 && text.bytes().enumerate().all(canonical_byte) {
        return Some(Cow::Borrowed(text));
    }
    let mut rest = match text.strip_prefix('{') {
        Some(braced) => braced.strip_suffix('}')?,
        None => text,
    };
    let mut respelt = String::with_capacity(36);
    for group in 0..8 {
        let (digits, after) = rest.split_at_checked(4)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        if matches!(group, 2..=5) {
            respelt.push('-');
        }
        respelt.push_str(digits);
        rest = if group < 7 { after.strip_prefix('-').unwrap_or(after) } else { after };
    }
    respelt.make_ascii_lowercase();
    rest.is_empty().then_some(Cow::Owned(respelt))
}

/// A decimal integer without a plus sign and leading zeros, from what PostgreSQL and Rust both
/// read: an optional sign, any number of leading zeros, within the range. Borrowed where it is
/// spelt so already.
fn integer<T: FromStr + ToString>(text: &str) -> Option<Cow<'_, str>> {
    let number: T = text.parse().ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if text == "0" || !digits.starts_with(['+', '0']) {
        return Some(Cow::Borrowed(text));
    }
    Some(Cow::Owned(number.to_string()))
}

/// The place of a style in [`STYLES`]; `field` is for the message.
pub fn style(field: &dyn Display, text: &str) -> Result<usize, Fault> {
    STYLES.iter().position(|style| *style == text).ok_or_else(|| {
        let message = format!("{field}: expected simple, fancy or trendy, got {}", excerpt(text));
        Fault::new(Reason::UnknownStyle, message)
    })
}

/// Checks that the text is an absolute http(s) URL by RFC 3986 with a host and without user info.
///
/// RFC 3986 knows neither quotes nor backslashes, nor anything outside printable ASCII: a URL that
/// passes can stand between quotes in JSON as it is.
pub fn url(field: &dyn Display, text: &str) -> Result<(), Fault> {
    if text.len() > URL_BYTES_MAX {
        let message =
            format!("{field}: expected at most {URL_BYTES_MAX} bytes, got {}", text.len());
        return Err(Fault::new(Reason::UrlTooLong, message));
    }
    if is_plain_url(text) { Ok(()) } else { url_by_grammar(field, text) }
}

/// [`url`] without the short cut.
fn url_by_grammar(field: &dyn Display, text: &str) -> Result<(), Fault> {
    let bad = |found: &str| {
        let message =
            format!("{field}: expected an absolute http or https URL by RFC 3986, got {found}");
        Err(Fault::new(Reason::BadUrl, message))
    };
    let uri = match Uri::parse(text) {
        Ok(uri) => uri,
        Err(error) => {
            return bad(&format!("text that breaks its grammar at byte {}", error.index()));
        }
    };
    let scheme = uri.scheme().as_str();
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return bad("another scheme");
    }
    match uri.authority() {
        Some(authority) if authority.has_userinfo() => bad("one with user info"),
        Some(authority) if authority.host().is_empty() => bad("one with an empty host"),
        Some(authority) if !has_possible_port(&authority) => bad("one with a port over 65535"),
        Some(_) => {
            debug_assert!(
                stands_in_json_unescaped(text),
                "RFC 3986 allows only what JSON need not escape"
            );
            Ok(())
        }
        None => bad("one without a host"),
    }
}

/// Whether the URL is of the plainest kind, as most are: a scheme, a host and a path of letters,
/// digits and `.-_~`. Those are unreserved in RFC 3986, so that there is nothing to take apart. In
/// one pass without a branch, a fraction of the parser's work.
pub(crate) fn is_plain_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest.map(str::as_bytes) else { return false };
    rest.first().is_some_and(u8::is_ascii_alphanumeric)
        && all(rest, is_unreserved_or_slash)
        && text.len() <= URL_BYTES_MAX
}

/// Letters, of which one bit parts the cases, digits, `.-_~`, and the slash.
fn is_unreserved_or_slash(byte: u8) -> bool {
    (byte | 0x20).is_ascii_lowercase()
        | matches!(byte, b'-'..=b'9')
        | (byte == b'_')
        | (byte == b'~')
}

/// Whether all bytes are such, without a branch for each. The processor takes sixteen at once, and
/// so the last sixteen are looked at together, too, though some of them for the second time.
#[inline(always)]
fn all(bytes: &[u8], is_such: impl Fn(u8) -> bool) -> bool {
    let Some(last) = bytes.last_chunk::<16>() else {
        return bytes.iter().fold(true, |all, byte| all & is_such(*byte));
    };
    let are_such = |bytes: &[u8; 16]| bytes.iter().fold(true, |all, byte| all & is_such(*byte));
    let (sixteens, _) = bytes.as_chunks();
    sixteens.iter().fold(are_such(last), |all, bytes| all & are_such(bytes))
}

/// No port, an empty one (which RFC 3986 allows), or one of 16 bits.
fn has_possible_port(authority: &Authority<'_>) -> bool {
    authority
        .port()
        .is_none_or(|port| port.as_str().is_empty() || port.as_str().parse::<u16>().is_ok())
}

fn stands_in_json_unescaped(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\')
}

/// The beginning of a text from the payload, quoted and escaped, so that a message stays short and
/// on one line.
fn excerpt(text: &str) -> String {
    let mut shown = String::from('"');
    for escaped in text.chars().map(char::escape_debug) {
        if shown.len() + escaped.len() > EXCERPT_BYTES_MAX {
            shown.push('…');
            break;
        }
        shown.extend(escaped);
    }
    shown.push('"');
    shown
}
