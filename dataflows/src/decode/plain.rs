//! The short cut for values of the plainest shape, as most are: the three fields at the top level,
//! nothing else, nothing escaped, URLs without a query. One pass over the bytes, a fraction of the
//! parser's work.
//!
//! It knows no rule of its own: whatever it does not take goes the long way and is judged there,
//! and what it takes the long way would take too, with the same result
//! (`decode/tests/properties.rs` holds them against each other).

use std::borrow::Cow;

use super::{ContentCreated, DRAFT_ID, IMAGE_URLS, JOB_ID, KEYS};
use crate::validate::{self, DraftIdType, STYLES};

/// No event of this shape is longer: three URLs, two ids, their names, and some white space.
const BYTES_MAX: usize = 8_192;

/// The event, if the value is of that shape.
pub(super) fn event(value: &[u8], draft_ids: DraftIdType) -> Option<ContentCreated<'_>> {
    if value.len() > BYTES_MAX {
        return None;
    }
    // Once for all of it: each text by itself would take several times as long.
    let text = std::str::from_utf8(value).ok()?;
    let mut rest = Cursor { text, at: 0 };
    let (mut ids, mut urls) = ([None; 2], [None; 3]);
    rest.object(&FIELDS, |rest, field| match ids.get_mut(field) {
        Some(id) => once(id, rest.string()?),
        None => rest.object(&STYLES, |rest, style| once(&mut urls[style], rest.string()?)),
    })?;
    if rest.peek().is_some() {
        return None;
    }
    let ([Some(job_id), Some(draft_id)], [Some(simple), Some(fancy), Some(trendy)]) = (ids, urls)
    else {
        return None;
    };
    let urls = [simple, fancy, trendy];
    let is_plain = [job_id, draft_id].into_iter().all(validate::is_plain_id)
        && urls.into_iter().all(validate::is_plain_url);
    if !is_plain {
        return None;
    }
    let draft_id = validate::draft_id(KEYS[DRAFT_ID], Cow::Borrowed(draft_id), draft_ids).ok()?;
    Some(ContentCreated { job_id: Cow::Borrowed(job_id), draft_id, urls: urls.map(Cow::Borrowed) })
}

/// The ids, and behind them the object of images.
const FIELDS: [&str; 3] = [KEYS[JOB_ID], KEYS[DRAFT_ID], KEYS[IMAGE_URLS]];

/// Fills a place that is still empty: what is there twice is not plain.
fn once<'a>(place: &mut Option<&'a str>, text: &'a str) -> Option<()> {
    place.replace(text).is_none().then_some(())
}

/// A text, and how far it has been read. It is looked at byte by byte: to cut it anew behind each
/// token would mean to ask each time whether a character ends there.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// The next byte that is not white space, left where it is.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let next = self.text.as_bytes().get(self.at)?;
            if !matches!(next, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(*next);
            }
            self.at += 1;
        }
    }

    fn eat(&mut self, token: u8) -> Option<()> {
        if self.peek()? != token {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// A string as it is written, to the next quote: where that one is escaped, a backslash stands
    /// before it, which is never plain.
    fn string(&mut self) -> Option<&'a str> {
        self.eat(b'"')?;
        let start = self.at;
        let end = start + memchr::memchr(b'"', self.rest())?;
        self.at = end + 1;
        Some(&self.text[start..end])
    }

    /// Which of these names stands here as it is. Where they are known when this is compiled, a
    /// name is compared as one number or two.
    #[inline(always)]
    fn name<const N: usize>(&mut self, names: &[&str; N]) -> Option<usize> {
        self.eat(b'"')?;
        let rest = self.rest();
        let stands_here =
            |name: &str| rest.starts_with(name.as_bytes()) && rest.get(name.len()) == Some(&b'"');
        let found = names.iter().position(|name| stands_here(name))?;
        self.at += names[found].len() + 1;
        Some(found)
    }

    /// An object that is not empty, with members of these names. `member` reads the value of one.
    #[inline(always)]
    fn object<const N: usize>(
        &mut self,
        names: &[&str; N],
        mut member: impl FnMut(&mut Self, usize) -> Option<()>,
    ) -> Option<()> {
        self.eat(b'{')?;
        loop {
            let name = self.name(names)?;
            self.eat(b':')?;
            member(self, name)?;
            if self.peek()? == b'}' {
                return self.eat(b'}');
            }
            self.eat(b',')?;
        }
    }
}
