//! `imageUrls`: an object by style, or an array of elements with `style` and `url`.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use crate::decode::json::{self, Kind, Members};
use crate::decode::{missing_field, repeated, string, wrong_type};
use crate::reject::{Fault, Reason};
use crate::validate::{self, STYLES};

/// The keys of one element, where `imageUrls` is an array.
const ELEMENT_KEYS: [&str; 2] = ["style", "url"];
const ELEMENT_STYLE: usize = 0;
const ELEMENT_URL: usize = 1;

/// Where a URL stands, for the messages.
#[derive(Clone, Copy, Debug)]
enum Place {
    Key(&'static str),
    Element(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Key(style) => write!(formatter, "imageUrls.{style}"),
            Place::Element(index) => write!(formatter, "imageUrls[{index}].url"),
        }
    }
}

/// A URL not yet checked, `None` where the style is missing.
type Image<'a> = Option<(Place, &'a RawValue)>;

pub(super) fn urls(images: &RawValue) -> Result<[Cow<'_, str>; 3], Fault> {
    let [simple, fancy, trendy] = match Kind::of(images) {
        Kind::Object => images_by_key(images)?,
        Kind::Array => images_by_element(images)?,
        kind => return Err(wrong_type(&"imageUrls", "an object or an array", kind)),
    };
    Ok([url(simple, STYLES[0])?, url(fancy, STYLES[1])?, url(trendy, STYLES[2])?])
}

fn url<'a>(image: Image<'a>, style: &str) -> Result<Cow<'a, str>, Fault> {
    let (place, value) = image.ok_or_else(|| {
        Fault::new(
            Reason::MissingStyle,
            format!("imageUrls: expected simple, fancy and trendy, {style} is missing"),
        )
    })?;
    let text = string(value, &place)?;
    validate::url(&place, &text)?;
    Ok(text)
}

fn images_by_key(images: &RawValue) -> Result<[Image<'_>; 3], Fault> {
    let members = Members::parse(images.get(), &STYLES)?;
    if let Some(style) = members.repeated_name() {
        return Err(repeated(&Place::Key(style)));
    }
    if let Some(name) = members.other_name() {
        validate::style(&"imageUrls", name)?;
    }
    let image = |index| members.get(index).map(|value| (Place::Key(STYLES[index]), value));
    Ok([image(0), image(1), image(2)])
}

fn images_by_element(images: &RawValue) -> Result<[Image<'_>; 3], Fault> {
    let mut by_style = [None; 3];
    for (index, element) in json::elements(images)?.into_iter().enumerate() {
        if Kind::of(element) != Kind::Object {
            let kind = Kind::of(element);
            return Err(wrong_type(
                &format_args!("imageUrls[{index}]"),
                "an object with style and url",
                kind,
            ));
        }
        let members = Members::parse(element.get(), &ELEMENT_KEYS)?;
        if let Some(name) = members.repeated_name() {
            return Err(repeated(&format_args!("imageUrls[{index}].{name}")));
        }
        let field = format_args!("imageUrls[{index}].style");
        let name = members.get(ELEMENT_STYLE).ok_or_else(|| missing_field(&field))?;
        let name = string(name, &field)?;
        let style = validate::style(&field, &name)?;
        let url = members.get(ELEMENT_URL).ok_or_else(|| missing_field(&Place::Element(index)))?;
        let earlier = by_style[style].replace((Place::Element(index), url));
        if earlier.is_some() {
            let message = format!("{field}: expected each style once, got {name} again");
            return Err(Fault::new(Reason::DuplicateStyle, message));
        }
    }
    Ok(by_style)
}
