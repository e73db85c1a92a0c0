//! Foreign text for a terminal: on one line, and without anything that the terminal would obey.
//!
//! Ids, messages and header values are whatever somebody published. Printed as they are, an escape
//! sequence could clear the screen, a line break could fake a row, and a direction mark could swap
//! what is read.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

/// The text on one line: invisible and control characters, the backslash, and bytes that are not
/// UTF-8 are escaped. The result names the input without doubt.
pub fn one_line(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || is_unsafe(c) {
                line.extend(c.escape_debug());
            } else {
                line.push(c);
            }
        }
        for byte in chunk.invalid() {
            write!(line, "\\x{byte:02x}").expect("a string takes any text");
        }
    }
    line
}

/// A message on one line: prose that may quote foreign text. Its backslashes stay single.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) { line.extend(c.escape_debug()) } else { line.push(c) }
    }
    Cow::Owned(line)
}

/// The text on one line and not longer than so many characters; `…` stands for the rest.
pub fn shortened(bytes: &[u8], chars_max: usize) -> String {
    let line = one_line(bytes);
    match line.char_indices().nth(chars_max) {
        None => line,
        Some(_) => line.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Whether a terminal may act on the character instead of showing it, or shows nothing.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Bytes as a hex dump: offset, sixteen bytes, and the same as ASCII, on each line.
pub fn hex_dump(bytes: &[u8]) -> String {
    let mut dump = String::with_capacity(bytes.len() * 5);
    for (index, row) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| {
            if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' }
        };
        let ascii: String = row.iter().map(shown).collect();
        let (offset, hex) = (index * 16, hex.join(" "));
        writeln!(dump, "{offset:08x}  {hex:<47}  {ascii}").expect("a string takes any text");
    }
    dump
}

/// Lowercase hexadecimal digits, two a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut digits, byte| {
        write!(digits, "{byte:02x}").expect("a string takes any text");
        digits
    })
}

/// A JSON text with line breaks and indentation; nothing else about it changes, not even a key that
/// stands twice. Characters that are unsafe on a terminal become JSON's own escapes.
///
/// The text must be JSON already: this only moves white space.
pub fn indented_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let (mut in_string, mut escaped) = (false, false);
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut rest = json.chars().peekable();
    while let Some(c) = rest.next() {
        if in_string {
            push_json(&mut out, c);
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                while rest.next_if(|next| next.is_ascii_whitespace()).is_some() {}
                if let Some(close) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => {
                in_string = c == '"';
                out.push(c);
            }
        }
    }
    out
}

fn push_json(out: &mut String, c: char) {
    if !is_unsafe(c) {
        out.push(c);
        return;
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        write!(out, "\\u{unit:04x}").expect("a string takes any text");
    }
}

/// Writes a table in aligned columns. The cells must be safe to print.
///
/// # Errors
///
/// When the output cannot be written.
pub fn table<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].as_str()).chain([header[column]]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    line(header)?;
    rows.iter().try_for_each(|row| line(row.each_ref().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_the_rest_stays() {
        assert_eq!(one_line("Grüße, 猫 \u{1f408}".as_bytes()), "Grüße, 猫 \u{1f408}");
        assert_eq!(one_line(b"\x1b[2Ja\r\nb\0"), "\\u{1b}[2Ja\\r\\nb\\0");
        assert_eq!(one_line("a\u{202e}b\u{9b}c".as_bytes()), "a\\u{202e}b\\u{9b}c");
        assert_eq!(one_line(b"a\xff\\xff"), "a\\xff\\\\xff");
    }

    #[test]
    fn prose_keeps_its_backslashes() {
        assert_eq!(visible("it said \"a\\n\"\n\u{1b}[2J"), "it said \"a\\n\"\\n\\u{1b}[2J");
        assert!(matches!(visible("nothing to hide"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("äöü".as_bytes(), 3), "äöü");
        assert_eq!(shortened("äöüß".as_bytes(), 3), "äö…");
    }

    #[test]
    fn json_is_indented_and_otherwise_untouched() {
        let json = r#"{ "a":[1, {} ,[ ]],"a":"x,\"{\\","b":{"c":1e400}}"#;
        let indented = indented_json(json);
        assert_eq!(
            indented,
            "{\n  \"a\": [\n    1,\n    {},\n    []\n  ],\n  \"a\": \"x,\\\"{\\\\\",\n  \"b\": {\n    \"c\": 1e400\n  }\n}"
        );
        assert_eq!(
            indented_json("\"a\u{202e}\u{7f}\u{e0001}\""),
            "\"a\\u202e\\u007f\\udb40\\udc01\""
        );
    }

    #[test]
    fn a_hex_dump_shows_offset_bytes_and_ascii() {
        let dump = hex_dump(b"0123456789abcdef\x00\xffz");
        let lines: Vec<&str> = dump.lines().collect();
        assert_eq!(
            lines[0],
            "00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef"
        );
        assert_eq!(lines[1], format!("00000010  {:<47}  ..z", "00 ff 7a"));
    }
}
