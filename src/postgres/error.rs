//! Why there is no session, and what the server says: errors that say what to do.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use super::target::Target;
use crate::config::is_doubted;

/// Why there is no session. None of them shows a password.
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
    /// A server that takes no sessions now: starting, stopping, in recovery, out of connections.
    NotReady {
        /// Host and port.
        address: String,
        /// What it says.
        reason: String,
    },
    /// User or password are wrong, or this host may not connect as that user.
    Authentication {
        /// Host and port.
        address: String,
        /// What it says.
        reason: String,
    },
    /// There is no such database.
    NoDatabase {
        /// Host and port.
        address: String,
        /// Its name.
        database: String,
    },
    /// No encrypted connection could be made, and the URL asks for one.
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong.
        reason: String,
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
                format!("PostgreSQL cannot be reached at {address}: {reason}")
            }
            ConnectError::NotReady { address, reason } => {
                format!("PostgreSQL at {address} is not ready: {reason}")
            }
            ConnectError::Authentication { address, reason } => {
                format!("PostgreSQL at {address} does not let us in: {reason}")
            }
            ConnectError::NoDatabase { address, database } => {
                format!("PostgreSQL at {address} has no database {database:?}")
            }
            ConnectError::Tls { address, reason } => {
                format!("no TLS with PostgreSQL at {address}: {reason}")
            }
            ConnectError::BadUrl { reason } => format!("database.url {reason}"),
            ConnectError::Refused { address, reason } => {
                format!("PostgreSQL at {address} refuses: {reason}")
            }
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            ConnectError::Unreachable { .. } => "start the server, or set database.url (or DATABASE_URL) to where it is",
            ConnectError::NotReady { .. } => "wait until it is up, or raise its max_connections if it has none left",
            ConnectError::Authentication { reason, .. } | ConnectError::Tls { reason, .. }
                if reason.contains("client certificate") || is_doubted(reason) =>
            {
                "the server asks who we are: set sslcert and sslkey in database.url to PEM files with a certificate of an authority \
                 that it trusts, and its key"
            }
            ConnectError::Authentication { .. } => {
                "check user and password in database.url (special characters as %XX), and the server's pg_hba.conf"
            }
            ConnectError::NoDatabase { .. } => "create it, or name another one at the end of database.url",
            ConnectError::Tls { reason, .. } if reason.contains("does not support TLS") => {
                "turn on ssl in the server, or take sslmode=prefer if plain text is acceptable"
            }
            ConnectError::Tls { .. } => {
                "check sslmode and sslrootcert in database.url against the server's certificate; verify-full wants its \
                 name to be the host"
            }
            ConnectError::BadUrl { .. } => {
                "write postgres://user:password@host:5432/database, in the password @ : / ? # % and blanks as %XX"
            }
            ConnectError::Refused { .. } => "look into the server's log",
        }
        .to_owned()
    }

    /// True if it may pass by itself.
    pub fn is_outage(&self) -> bool {
        matches!(self, ConnectError::Unreachable { .. } | ConnectError::NotReady { .. })
    }

    pub(super) fn from_driver(error: &tokio_postgres::Error, target: &Target) -> ConnectError {
        let address = target.address();
        if let Some(refusal) = error.as_db_error() {
            return ConnectError::from_server(refusal, address, target);
        }
        let reason = with_cause(error);
        // The driver keeps its kinds to itself; its texts are what tells them apart.
        match error.to_string().as_str() {
            "error performing TLS handshake" => {
                ConnectError::Tls { address, reason: cause_of(error) }
            }
            "authentication error" | "invalid configuration" => {
                ConnectError::Authentication { address, reason: cause_of(error) }
            }
            "invalid connection string" => ConnectError::BadUrl { reason },
            // Ours is looked at when the handshake is over for us.
            _ if is_doubted(&cause_of(error)) => {
                ConnectError::Tls { address, reason: cause_of(error) }
            }
            _ => ConnectError::Unreachable { address, reason: cause_of(error) },
        }
    }

    fn from_server(
        refusal: &tokio_postgres::error::DbError,
        address: String,
        target: &Target,
    ) -> ConnectError {
        let reason = refusal.message().to_owned();
        match refusal.code() {
            code if *code == SqlState::INVALID_CATALOG_NAME => ConnectError::NoDatabase {
                address,
                database: target
                    .config
                    .get_dbname()
                    .or(target.config.get_user())
                    .unwrap_or_default()
                    .to_owned(),
            },
            // Class 28 is authorization.
            code if code.code().starts_with("28") => {
                ConnectError::Authentication { address, reason }
            }
            code if is_away(code) => ConnectError::NotReady { address, reason },
            code => {
                ConnectError::Refused { address, reason: format!("{reason} ({})", code.code()) }
            }
        }
    }
}

/// Whether the server is away, as it says itself: it may pass. Class 08 is the connection, 53 a
/// lack of resources; of class 57, an operator's intervention, 57P is a server that stops or
/// starts, and 57014 a statement that took too long.
pub fn is_away(code: &SqlState) -> bool {
    ["08", "53", "57P"].iter().any(|class| code.code().starts_with(class))
}

/// Whether the connection was lost, or the server is away: without a code it was not the server who
/// said so.
pub fn is_lost(error: &tokio_postgres::Error) -> bool {
    error.code().is_none_or(is_away)
}

/// Whether the server says that its user lacks a right.
pub fn is_forbidden(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
}

/// What happened, with the SQLSTATE if it was the server who said it.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(refusal) => format!("{} ({})", refusal.message(), refusal.code().code()),
        None => cause_of(error),
    }
}

/// The deepest cause says most: "connection refused", not "error connecting to server".
fn cause_of(error: &tokio_postgres::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}

pub(super) fn with_cause(error: &tokio_postgres::Error) -> String {
    match error.source() {
        Some(cause) => format!("is not usable: {cause}"),
        None => error.to_string(),
    }
}
