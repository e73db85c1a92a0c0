//! A URL that may hold a password, and never shows it.

use std::fmt;

/// What stands where a secret stood.
pub(super) const HIDDEN: &str = "***";

/// Query parameters that may be shown: every other one might be a password.
const HARMLESS: [&str; 16] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "db",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "protocol",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "user",
];

/// A URL that may hold a password. `Debug` and `Display` show it with the password replaced.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Secret {
        Secret(url.into())
    }

    /// The URL as it is, for the client that connects with it and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL as it may be shown. What cannot be told apart from a password with certainty is
    /// hidden.
    fn shown(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return HIDDEN.to_owned();
        };
        if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+') {
            return HIDDEN.to_owned();
        }
        // The last @ of all, not the first: an unescaped password may itself hold an @ or a slash.
        // Behind a question mark it may as well be in a password that is a parameter, and then the
        // rest of that would pass for a host.
        let (user_info, rest) = match rest.rsplit_once('@') {
            Some((user_info, _)) if user_info.contains(['?', '#']) => {
                return format!("{scheme}://{HIDDEN}");
            }
            Some((user_info, rest)) => (Some(user_info), rest),
            None => (None, rest),
        };
        let user = match user_info.map(|info| info.split_once(':')) {
            None => String::new(),
            Some(None) => format!("{}@", user_info.filter(|user| is_plain(user)).unwrap_or(HIDDEN)),
            Some(Some((user, _))) => {
                format!("{}:{HIDDEN}@", if is_plain(user) { user } else { HIDDEN })
            }
        };
        let (place, query) = match rest.split_once(['?', '#']) {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let (hosts, path) =
            place.split_once('/').map_or((place, None), |(hosts, path)| (hosts, Some(path)));
        // What is no host may be the beginning of a password, and what follows the rest of it.
        if !hosts.split(',').all(is_host) {
            return format!("{scheme}://{user}{HIDDEN}");
        }
        let path = path.map_or(String::new(), |path| {
            format!("/{}", if is_plain(path) { path } else { HIDDEN })
        });
        let query = query.map_or(String::new(), |query| format!("?{}", shown_query(query)));
        format!("{scheme}://{user}{hosts}{path}{query}")
    }
}

fn shown_query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((key, value)) if HARMLESS.contains(&key) && is_plain(value) => pair.to_owned(),
        Some((key, _)) if key == "password" || HARMLESS.contains(&key) => format!("{key}={HIDDEN}"),
        _ => HIDDEN.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// `host`, `host:port`, `[v6]:port`: without an @, `user:password` must not pass for a host.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_is_plain = match bracketed {
        Some(address) => {
            address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.')
        }
        None => is_plain(host) && !host.contains(':'),
    };
    host_is_plain && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-%/~+".contains(&byte))
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.shown())
    }
}
