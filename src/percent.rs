//! Percent-encoding, as RFC 3986 has it, the other way round.

/// `%2B` -> `+`. `None` where two hexadecimal digits do not follow a `%`.
pub(crate) fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        // A sign would pass for a digit.
        let digits = digits.strip_prefix('+').map_or(digits, |_| "");
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_digits_are_a_byte() {
        assert_eq!(decoded("a%2Bb%c3%A9").as_deref(), Some("a+bé".as_bytes()));
        assert_eq!(decoded("%00%ff").as_deref(), Some([0, 0xff].as_slice()));
        for wrong in ["%", "%4", "a%4", "%+1", "%-1", "%4é", "% 4", "%%20"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
