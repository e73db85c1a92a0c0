//! What can go wrong with Redis, whichever kind it is.

use std::time::Duration;

use redis::{ErrorKind, RedisError};

use super::URL_FORMS;
use super::place::description;
use crate::config::is_doubted;
use crate::sink::outage::Loss;

/// Why keys could not be read or deleted. A lane of a run holds all of it as an outage: a DEL is
/// never given up, and no event can be blamed.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The server did not answer in time; the connection is given up.
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    /// The server's or the connection's error.
    #[error(transparent)]
    Refused(#[from] RedisError),
    /// There is no connection to be had.
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl CacheError {
    /// True if it may pass by itself.
    pub fn is_outage(&self) -> bool {
        match self {
            CacheError::NoAnswer(_) => true,
            CacheError::Refused(error) => is_away(error),
            CacheError::Connect(error) => error.is_outage(),
        }
    }

    /// Whether a connection is gone that was there.
    pub fn loss(&self) -> Option<Loss> {
        match self {
            CacheError::NoAnswer(_) => Some(Loss::Unanswered),
            CacheError::Refused(error) => error.is_io_error().then_some(Loss::Closed),
            CacheError::Connect(_) => None,
        }
    }
}

/// What a server says that takes no commands now, or none that write: it loads its data, runs a
/// script, fails over, or waits for its disk or its replicas.
const NOT_NOW: [&str; 8] = [
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
];

fn is_not_now(error: &RedisError) -> bool {
    error.code().is_some_and(|code| NOT_NOW.contains(&code))
}

/// Whether the error on a connection may pass by itself: it is lost, or its server takes no such
/// command now.
pub fn is_away(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::ClusterConnectionNotFound)
        || is_not_now(error)
}

/// Why there is no connection. None of them shows a password.
#[derive(Debug, thiserror::Error)]
#[error("{}; {}", self.what(), self.remedy())]
pub enum ConnectError {
    /// No server there, or it does not answer.
    Unreachable {
        /// Host and port.
        address: String,
        /// What the system says.
        reason: String,
    },
    /// A server that takes no commands now: it loads its data, or fails over.
    NotReady {
        /// Host and port.
        address: String,
        /// What it says.
        reason: String,
    },
    /// It wants a password, or another one.
    Authentication {
        /// Host and port.
        address: String,
        /// What it says.
        reason: String,
    },
    /// No encrypted connection could be made, and the URL asks for one.
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong.
        reason: String,
    },
    /// The sentinels watch no master of that name.
    UnknownMaster {
        /// The name, and where the sentinels are.
        address: String,
        /// The masters that they do watch.
        known: String,
    },
    /// The URL cannot be used.
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The server refuses for another reason.
    Refused {
        /// Host and port.
        address: String,
        /// What it says.
        reason: String,
    },
}

impl ConnectError {
    /// What happened.
    pub fn what(&self) -> String {
        match self {
            ConnectError::Unreachable { address, reason } => {
                format!("Redis cannot be reached at {address}: {reason}")
            }
            ConnectError::NotReady { address, reason } => {
                format!("Redis at {address} is not ready: {reason}")
            }
            ConnectError::Authentication { address, reason } => {
                format!("Redis at {address} does not let us in: {reason}")
            }
            ConnectError::Tls { address, reason } => {
                format!("no TLS with Redis at {address}: {reason}")
            }
            ConnectError::UnknownMaster { address, known: _ } => {
                format!("cache.url names a master that is not known there: {address}")
            }
            ConnectError::BadUrl { reason } => format!("cache.url {reason}"),
            ConnectError::Refused { address, reason } => {
                format!("Redis at {address} refuses: {reason}")
            }
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            ConnectError::Unreachable { .. } => "start the server, or set cache.url (or REDIS_URL) to where it is, with rediss:// if it speaks TLS there".to_owned(),
            ConnectError::NotReady { .. } => "wait until it is up".to_owned(),
            ConnectError::Authentication { .. } => {
                "check user and password in cache.url: redis://user:password@host:6379/0, special characters as %XX; those of \
                 sentinels are the parameters sentinel_user and sentinel_password".to_owned()
            }
            ConnectError::Tls { reason, .. } => tls_remedy(reason).to_owned(),
            ConnectError::UnknownMaster { known, .. } => {
                format!("behind the addresses of the sentinels, write one of the masters that they watch: {known}")
            }
            ConnectError::BadUrl { .. } => format!("write {URL_FORMS}"),
            ConnectError::Refused { .. } => "check the database number in cache.url, the rights of its user (docs/cache.md), and the server's log".to_owned(),
        }
    }

    /// True if it may pass by itself.
    pub fn is_outage(&self) -> bool {
        matches!(self, ConnectError::Unreachable { .. } | ConnectError::NotReady { .. })
    }

    pub(super) fn from_client(
        error: &RedisError,
        address: String,
        encrypted: bool,
    ) -> ConnectError {
        // Of an answer, its own words; of anything else, the client's.
        let reason = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        let reason = reason.trim_end_matches('.').to_owned();
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                let reason =
                    error.detail().map_or("user or password are wrong".to_owned(), |_| reason);
                ConnectError::Authentication { address, reason }
            }
            _ if is_not_now(error) => ConnectError::NotReady { address, reason },
            _ if reason.contains("cluster support disabled") => {
                let reason = format!("says that {address} is in a cluster, and it is not");
                ConnectError::BadUrl { reason }
            }
            (ErrorKind::InvalidClientConfig, _) => {
                ConnectError::BadUrl { reason: description(error) }
            }
            (ErrorKind::Io, _) if error.is_timeout() => {
                ConnectError::Unreachable { address, reason: "no answer in time".to_owned() }
            }
            // A handshake that fails is an I/O error like any other, but for its words.
            (ErrorKind::Io, _) if encrypted && is_tls(&reason) => {
                ConnectError::Tls { address, reason }
            }
            (ErrorKind::Io, _) => ConnectError::Unreachable { address, reason },
            _ if reason.contains("max number of clients") => {
                ConnectError::NotReady { address, reason }
            }
            _ => ConnectError::Refused { address, reason },
        }
    }
}

fn tls_remedy(reason: &str) -> &'static str {
    let says = |word| reason.contains(word);
    // An authority that goes by the name of a trusted one, and is another, is known by its
    // signature alone.
    if says("UnknownIssuer") || says("BadSignature") {
        "set cache.root_certificates to a PEM file with the certificate of the authority that has signed the server's"
    } else if is_doubted(reason) {
        "the server asks who we are: set cache.client_certificate and cache.client_key to PEM files with a certificate of an authority that it \
         trusts, and its key"
    } else if says("CaUsedAsEndEntity") {
        "give the server a certificate that is no authority's (basicConstraints CA:FALSE), and set cache.root_certificates to a PEM file \
         with that of whoever has signed it"
    } else {
        "check that the server speaks TLS on this port, with a certificate for this host"
    }
}

fn is_tls(reason: &str) -> bool {
    ["certificate", "handshake", "corrupt message", "alert", "tls"]
        .iter()
        .any(|word| reason.to_lowercase().contains(word))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// What the client makes of an error reply.
    fn reply(text: &str) -> RedisError {
        let value = ::redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn a_server_that_takes_no_command_now_is_an_outage_and_one_that_forbids_it_is_none() {
        for text in [
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script.",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "CLUSTERDOWN The cluster is down",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "READONLY You can't write against a read only replica.",
            "MISCONF Redis is configured to save RDB snapshots, but it is unable to persist",
            "NOREPLICAS Not enough good replicas to write.",
        ] {
            let error = reply(text);
            let connecting = ConnectError::from_client(&error, "here".to_owned(), false);
            assert!(connecting.is_outage(), "{connecting}");
            assert!(CacheError::from(error).is_outage(), "{text}");
        }
        for text in ["NOPERM no permissions", "NOAUTH Authentication required.", "ERR what?"] {
            assert!(!CacheError::from(reply(text)).is_outage(), "{text}");
        }
        for kind in [io::ErrorKind::BrokenPipe, io::ErrorKind::UnexpectedEof] {
            assert!(
                CacheError::from(RedisError::from(io::Error::from(kind))).is_outage(),
                "{kind}"
            );
        }
    }
}
