//! What is told on standard error beside the log: errors, hints, how far a command is. Lines for
//! people, each with its kind; where the log is JSON, objects of the log's own shape, so that
//! whoever reads it by the line can read all of it. (What is wrong with the command line itself
//! stays in words: nobody knows yet which form it asks for.)

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::printable::visible;

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on, objects.
pub fn speak_json() {
    IS_JSON.store(true, Ordering::Relaxed);
}

/// Something to tell.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// What has failed, and what to do about it.
    Error(&'a str, Option<&'a str>),
    /// What can be done where nothing has failed.
    Hint(&'a str),
    /// What is going on.
    Note(&'a str),
}

impl Notice<'_> {
    /// Writes it. When standard error is closed, there is nobody left to tell.
    pub fn tell(&self) {
        let told = if IS_JSON.load(Ordering::Relaxed) { self.object() } else { self.lines() };
        drop(io::stderr().lock().write_all(told.as_bytes()));
    }

    /// One line each, whatever is in the message.
    fn lines(&self) -> String {
        // Where the program itself breaks a line there is nothing hidden; anything else may be
        // foreign.
        let one_line = |text: &str| visible(&text.replace(['\n', '\r'], " ")).into_owned();
        let hint = |hint: &str| format!("hint: {}\n", one_line(hint));
        match self {
            Notice::Error(what, remedy) => {
                format!("error: {}\n{}", one_line(what), remedy.map_or(String::new(), hint))
            }
            Notice::Hint(what) => hint(what),
            Notice::Note(what) => format!("{}\n", one_line(what)),
        }
    }

    fn object(&self) -> String {
        let (level, message, hint) = match self {
            Notice::Error(what, hint) => ("ERROR", what, *hint),
            Notice::Hint(what) | Notice::Note(what) => ("INFO", what, None),
        };
        let timestamp = format!("{:.6}", jiff::Timestamp::now());
        let target = env!("CARGO_CRATE_NAME");
        let mut object =
            json!({ "timestamp": timestamp, "level": level, "message": message, "target": target });
        if let Some(hint) = hint {
            object["hint"] = hint.into();
        }
        format!("{object}\n")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_error_is_one_line_and_its_hint_another() {
        let text = Notice::Error("it\nbroke \u{1b}[2J\u{202e}", Some("mend\rit")).lines();
        assert_eq!(text, "error: it broke \\u{1b}[2J\\u{202e}\nhint: mend it\n");
        assert_eq!(Notice::Hint("go on").lines(), "hint: go on\n");
    }

    #[test]
    fn for_machines_each_notice_is_one_object_with_the_fields_of_the_log() {
        let read = |notice: Notice<'_>| -> Value {
            let text = notice.object();
            assert_eq!(text.lines().count(), 1, "{text}");
            serde_json::from_str(&text).unwrap()
        };
        let error = read(Notice::Error("it\nbroke", Some("mend it")));
        assert_eq!((&error["level"], &error["message"]), (&json!("ERROR"), &json!("it\nbroke")));
        assert_eq!((&error["hint"], &error["target"]), (&json!("mend it"), &json!("contentflow")));
        let at: jiff::Timestamp = error["timestamp"].as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(at).as_secs() < 60);
        for notice in [Notice::Hint("half done"), Notice::Note("half done")] {
            let note = read(notice);
            assert_eq!((&note["level"], &note["message"]), (&json!("INFO"), &json!("half done")));
            assert_eq!(note["hint"], Value::Null);
        }
    }
}
