//! One JSON text, read without building it.
//!
//! The parsing is serde_json's. Members are kept as the text they came in, so that what nobody asks
//! for costs a scan and no memory.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::decode::text::has_backslash;
use crate::reject::{Fault, Reason};

/// The members of one object that bear one of `N` names. Of the others only the first name is kept.
#[derive(Debug)]
pub(super) struct Members<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<&'a RawValue>; N],
    repeated: [bool; N],
    other_name: Option<Cow<'a, str>>,
}

impl<'a, const N: usize> Members<'a, N> {
    /// Reads an object that fills the whole text. Names are compared decoded: `"job\u0049d"` is
    /// `jobId`.
    pub(super) fn parse(
        text: &'a str,
        names: &'static [&'static str; N],
    ) -> Result<Members<'a, N>, Fault> {
        let mut parser = serde_json::Deserializer::from_str(text);
        if !text.trim_ascii_start().starts_with('{') {
            let other: Result<&RawValue, _> = serde_json::from_str(text);
            return Err(other.map_or_else(|error| not_json(&error), not_an_object));
        }
        let mut members =
            Members { names, values: [None; N], repeated: [false; N], other_name: None };
        parser
            .deserialize_map(&mut members)
            .and_then(|()| parser.end())
            .map_err(|error| not_json(&error))?;
        Ok(members)
    }

    /// The member with the name at `index`, in its first copy.
    pub(super) fn get(&self, index: usize) -> Option<&'a RawValue> {
        self.values[index]
    }

    /// Whether the name at `index` stands in the object more than once.
    pub(super) fn is_repeated(&self, index: usize) -> bool {
        self.repeated[index]
    }

    /// The first of the names that stands in the object more than once.
    pub(super) fn repeated_name(&self) -> Option<&'static str> {
        self.repeated.iter().position(|repeated| *repeated).map(|index| self.names[index])
    }

    /// The first name in the object that is none of the `N`.
    pub(super) fn other_name(&self) -> Option<&str> {
        self.other_name.as_deref()
    }

    /// Whether one of the first `count` names stands in the object.
    pub(super) fn any_of_first(&self, count: usize) -> bool {
        self.values[..count].iter().any(Option::is_some)
    }
}

impl<'a, const N: usize> Visitor<'a> for &mut Members<'a, N> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(name)) = map.next_key()? {
            let Some(index) = self.names.iter().position(|known| *known == name) else {
                map.next_value::<IgnoredAny>()?;
                self.other_name.get_or_insert(name);
                continue;
            };
            let value = map.next_value()?;
            match self.values[index] {
                None => self.values[index] = Some(value),
                Some(_) => self.repeated[index] = true,
            }
        }
        Ok(())
    }
}

/// The elements of an array.
pub(super) fn elements(array: &RawValue) -> Result<Vec<&RawValue>, Fault> {
    serde_json::from_str(array.get()).map_err(|error| not_json(&error))
}

/// The text that a JSON string stands for; borrowed, unless it contains escapes.
pub(super) fn string(value: &RawValue) -> Result<Cow<'_, str>, Fault> {
    let quoted = value.get();
    if !has_backslash(quoted.as_bytes()) {
        return Ok(Cow::Borrowed(quoted.trim_matches('"')));
    }
    match serde_json::from_str(quoted) {
        Ok(Text(text)) => Ok(text),
        Err(error) => Err(not_json(&error)),
    }
}

/// A decoded string. serde's own `Cow` always copies.
struct Text<'a>(Cow<'a, str>);

impl<'a> Deserialize<'a> for Text<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Text<'a>, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'a> Visitor<'a> for TextVisitor {
    type Value = Text<'a>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// The types of JSON, integers told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Integer,
    Fraction,
    String,
    Array,
    Object,
}

impl Kind {
    /// The type of a value, by how it is written: `1.0` and `1e3` are no integers.
    pub(super) fn of(value: &RawValue) -> Kind {
        let text = value.get();
        match text.as_bytes().first() {
            Some(b'n') => Kind::Null,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'"') => Kind::String,
            Some(b'[') => Kind::Array,
            Some(b'{') => Kind::Object,
            _ if text.contains(['.', 'e', 'E']) => Kind::Fraction,
            _ => Kind::Integer,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Kind::Null => "null",
            Kind::Boolean => "a boolean",
            Kind::Integer => "an integer",
            Kind::Fraction => "a number with a fraction or an exponent",
            Kind::String => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        })
    }
}

fn not_an_object(value: &RawValue) -> Fault {
    Fault::new(Reason::NotAnObject, format!("expected a JSON object, got {}", Kind::of(value)))
}

/// The parser's own words are safe to pass on: a syntax error quotes nothing of the text.
fn not_json(error: &serde_json::Error) -> Fault {
    Fault::new(Reason::NotJson, format!("expected one JSON text: {error}"))
}
