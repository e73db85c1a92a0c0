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
    let mut rest = Cursor(std::str::from_utf8(value).ok()?);
    let (mut ids, mut urls) = ([None; 2], [None; 3]);
    rest.object(|rest, name| {
        if name == KEYS[JOB_ID] {
            once(&mut ids[JOB_ID], rest.string()?)
        } else if name == KEYS[DRAFT_ID] {
            once(&mut ids[DRAFT_ID], rest.string()?)
        } else if name == KEYS[IMAGE_URLS] {
            rest.object(|rest, style| {
                let place = STYLES.iter().position(|known| *known == style)?;
                once(&mut urls[place], rest.string()?)
            })
        } else {
            None
        }
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

/// Fills a place that is still empty: what is there twice is not plain.
fn once<'a>(place: &mut Option<&'a str>, text: &'a str) -> Option<()> {
    place.replace(text).is_none().then_some(())
}

/// What is left to read.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// The next byte that is not white space, left where it is.
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\n' | b'\r' | b'\t', ..] = self.0.as_bytes() {
            self.0 = &self.0[1..];
        }
        self.0.as_bytes().first().copied()
    }

    fn eat(&mut self, token: u8) -> Option<()> {
        if self.peek()? != token {
            return None;
        }
        self.0 = &self.0[1..];
        Some(())
    }

    /// A string as it is written, to the next quote: where that one is escaped, a backslash stands
    /// before it, which is never plain.
    fn string(&mut self) -> Option<&'a str> {
        self.eat(b'"')?;
        let end = memchr::memchr(b'"', self.0.as_bytes())?;
        Some(self.up_to(end))
    }

    /// A name as it is written. Those that are known are too short to be worth a call of `memchr`.
    fn name(&mut self) -> Option<&'a str> {
        self.eat(b'"')?;
        let end = self.0.bytes().position(|byte| byte == b'"')?;
        Some(self.up_to(end))
    }

    /// What stands before that place, where a quote is passed.
    fn up_to(&mut self, end: usize) -> &'a str {
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        text
    }

    /// An object that is not empty. `member` reads the value of the member with that name.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.eat(b'{')?;
        loop {
            let name = self.name()?;
            self.eat(b':')?;
            member(self, name)?;
            if self.peek()? == b'}' {
                return self.eat(b'}');
            }
            self.eat(b',')?;
        }
    }
}
