//! Events that must be rejected, one for each reason that a publisher can bring about.

use super::DraftIds;
use super::GeneratedEvent;
use super::Generator;
use super::Job;
use super::images;
use super::urls;
use dataflows::reject::Reason;

/// Every reason that a record can be sent for. A value over 1 MiB is not among them: with its batch
/// around it, no broker takes one as it comes out of the box. What the database refuses depends on
/// the database.
const REASONS: [Reason; 18] = [
    Reason::NotJson,
    Reason::MissingField,
    Reason::BadUrl,
    Reason::UnknownDraft,
    Reason::NullValue,
    Reason::MissingStyle,
    Reason::WrongType,
    Reason::NotUtf8,
    Reason::DuplicateKey,
    Reason::UnknownStyle,
    Reason::BlankId,
    Reason::UrlTooLong,
    Reason::NotAnObject,
    Reason::IdControlCharacter,
    Reason::DuplicateStyle,
    Reason::TooDeep,
    Reason::IdTooLong,
    // Last: where the column is text, every id fits.
    Reason::InvalidDraftId,
];

const BAD_URLS: [&str; 6] = [
    "ftp://cdn.example.com/a.png",
    "https:///a.png",
    "https://user:secret@cdn.example.com/a.png",
    "https://cdn.example.com/a b.png",
    "cdn.example.com/a.png",
    "https://cdn.example.com:99999/a.png",
];

/// The reasons that take turns when drafts have such ids.
pub fn bad_reasons(draft_ids: DraftIds) -> &'static [Reason] {
    match draft_ids {
        DraftIds::Text => &REASONS[..REASONS.len() - 1],
        DraftIds::Number | DraftIds::Uuid => &REASONS,
    }
}

/// The reason whose turn it is.
pub(super) fn next_reason(draft_ids: DraftIds, turn: u64) -> Reason {
    let reasons = bad_reasons(draft_ids);
    reasons[index(turn, reasons.len())]
}

fn index(turn: u64, len: usize) -> usize {
    usize::try_from(turn).unwrap_or_default() % len
}

/// Makes a good event of that job bad in exactly one way.
pub(super) fn spoil(
    generator: &Generator,
    job: Job,
    turn: u64,
    reason: Reason,
    event: &mut GeneratedEvent,
) {
    let draft_ids = generator.mix.draft_ids;
    if reason == Reason::UnknownDraft {
        event.key = draft_ids.absent(job.number);
    } else if reason == Reason::InvalidDraftId {
        event.key = String::from("neither-a-number-nor-a-uuid");
    }
    let job_id = generator.job_id(job);
    let members = Members { images: images(&urls(&job_id)), job_id, draft_id: event.key.clone() };
    // A reason has more than one face: the rounds alternate between them.
    let round = turn / u64::try_from(bad_reasons(draft_ids).len()).unwrap_or(1);
    event.value = match reason {
        Reason::NullValue => None,
        Reason::NotUtf8 => {
            let mut bytes = members.object().into_bytes();
            bytes.pop();
            bytes.extend_from_slice(b",\"note\":\"\xff\xfe\"}");
            Some(bytes)
        }
        _ => Some(spoil_text(members, reason, round).into_bytes()),
    };
}

/// The members of an event's object, as JSON without the quotes of the ids.
struct Members {
    job_id: String,
    draft_id: String,
    images: String,
}

impl Members {
    fn object(&self) -> String {
        let Members { job_id, draft_id, images } = self;
        format!(r#"{{"jobId":"{job_id}","eventDraftId":"{draft_id}","imageUrls":{images}}}"#)
    }
}

fn spoil_text(members: Members, reason: Reason, round: u64) -> String {
    let object = members.object();
    let Members { job_id, draft_id, images } = &members;
    match (reason, round % 3) {
        (Reason::NotJson, 0) => format!("{{{object}"),
        (Reason::NotJson, 1) => format!("\u{feff}{object}"),
        (Reason::NotJson, _) => format!("{object} and more"),
        (Reason::NotAnObject, _) => format!("[{object}]"),
        (Reason::MissingField, 0) => {
            format!(r#"{{"jobId":"{job_id}","eventDraftId":"{draft_id}"}}"#)
        }
        (Reason::MissingField, 1) => {
            format!(r#"{{"eventDraftId":"{draft_id}","imageUrls":{images}}}"#)
        }
        (Reason::MissingField, _) => format!(r#"{{"jobId":"{job_id}","imageUrls":{images}}}"#),
        (Reason::WrongType, 0) => {
            format!(r#"{{"jobId":true,"eventDraftId":"{draft_id}","imageUrls":{images}}}"#)
        }
        (Reason::DuplicateKey, _) => object.replacen('{', r#"{"jobId":"another","#, 1),
        // The object itself is the first level.
        (Reason::TooDeep, _) => {
            object.replacen('{', &format!(r#"{{"note":{}{},"#, "[".repeat(64), "]".repeat(64)), 1)
        }
        _ => spoil_members(members, reason, round).object(),
    }
}

fn spoil_members(mut members: Members, reason: Reason, round: u64) -> Members {
    let mut urls = urls(&members.job_id).to_vec();
    match reason {
        Reason::WrongType => members.images = String::from("\"none\""),
        Reason::BlankId => members.job_id = " ".repeat(if round.is_multiple_of(2) { 0 } else { 3 }),
        Reason::IdTooLong => members.job_id = "j".repeat(256),
        Reason::IdControlCharacter => members.job_id.push_str("\\u001b[2J"),
        Reason::MissingStyle => members.images = images(&urls[..2]),
        Reason::UnknownStyle => {
            urls.push(("baroque", String::from("https://cdn.example.com/baroque.png")));
            members.images = images(&urls);
        }
        Reason::DuplicateStyle => {
            urls.push(("fancy", String::from("https://cdn.example.com/another.png")));
            let pair =
                |(style, url): &(&str, String)| format!(r#"{{"style":"{style}","url":"{url}"}}"#);
            members.images = format!("[{}]", urls.iter().map(pair).collect::<Vec<_>>().join(","));
        }
        Reason::BadUrl => {
            urls[1].1 = String::from(BAD_URLS[index(round, BAD_URLS.len())]);
            members.images = images(&urls);
        }
        Reason::UrlTooLong => {
            urls[2].1 = format!("https://cdn.example.com/{}.png", "u".repeat(2_048));
            members.images = images(&urls);
        }
        // What is wrong is the id's, and it is there already.
        _ => {}
    }
    members
}
