//! Connecting to PostgreSQL: TLS as libpq's `sslmode` means it, deadlines from the first byte on, errors that say what
//! to do.

use std::error::Error as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Socket};
use tracing::Instrument;

use crate::config::{Database, Secret};
use crate::traces::shape::Place;

mod tls;

/// From the first packet to a usable session. A server that is there answers in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects, and leaves the connection to a task of its own, which ends with the returned client.
pub async fn connect(config: &Database) -> Result<Client, ConnectError> {
    let target = Target::parse(&config.url).map_err(|reason| ConnectError::BadUrl { reason })?;
    match tokio::time::timeout(CONNECT_TIMEOUT, session(&target, config)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Unreachable {
            address: target.address(),
            reason: format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        }),
    }
}

/// Whether a URL is one that [`connect`] can use. The message shows nothing of it.
pub fn check_url(url: &Secret) -> Result<(), String> {
    Target::parse(url).map(|_| ())
}

async fn session(target: &Target, config: &Database) -> Result<Client, ConnectError> {
    let classify = |error| ConnectError::from_driver(&error, target);
    let client = if target.config.get_ssl_mode() == SslMode::Disable {
        let (client, connection) =
            target.config.connect(tokio_postgres::NoTls).await.map_err(classify)?;
        drive(connection);
        client
    } else {
        let connector = tls::connector(target.verify, target.root_certificates.as_deref())
            .map_err(|reason| ConnectError::Tls { address: target.address(), reason })?;
        let (client, connection) = target.config.connect(connector).await.map_err(classify)?;
        drive(connection);
        client
    };
    // Set in the session and not as start-up options, which connection poolers refuse.
    let timeouts = format!(
        "SET lock_timeout = {}; SET statement_timeout = {}",
        config.lock_timeout.as_millis(),
        config.statement_timeout.as_millis()
    );
    client.batch_execute(&timeouts).await.map_err(classify)?;
    Ok(client)
}

/// The connection's own task: it carries the bytes until the client is dropped or the server goes away. The client's
/// callers see every failure themselves, so that the end is worth no more than a debug line.
fn drive<T>(connection: tokio_postgres::Connection<Socket, T>)
where
    T: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
{
    let task = async move {
        match connection.await {
            Ok(()) => tracing::debug!("closed"),
            Err(error) => tracing::debug!(%error, "lost"),
        }
    };
    tokio::spawn(task.instrument(tracing::debug_span!("postgres_connection")));
}

/// How far the server's certificate is trusted. Encryption itself is the driver's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    /// `prefer`, `require`: any certificate.
    Nothing,
    /// `verify-ca`, and `require` with root certificates: one that leads to a root.
    Chain,
    /// `verify-full`: that, and it is for the host in the URL.
    ChainAndName,
}

/// What a URL says, with what the driver does not know taken out of it.
struct Target {
    config: tokio_postgres::Config,
    verify: Verify,
    root_certificates: Option<PathBuf>,
}

/// Parameters that libpq knows and that would change nothing here if they were dropped silently, or would be missed.
const UNSUPPORTED: [&str; 8] = [
    "passfile",
    "service",
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslcrl",
    "krbsrvname",
    "requirepeer",
];

impl Target {
    fn parse(url: &Secret) -> Result<Target, String> {
        let url = url.expose();
        if url.is_empty() {
            return Err("is empty".to_owned());
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("does not begin with postgres://".to_owned());
        }
        // The driver takes the first @ for the end of the password, and would connect to the rest of it.
        if url.matches('@').count() > 1 {
            return Err(
                "has more than one @: write the ones in user and password as %40".to_owned()
            );
        }
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        let (mut sslmode, mut root_certificates) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => sslmode = Some(value),
                Some(("sslrootcert", value)) => root_certificates = Some(percent_decoded(value)?),
                Some((name, _)) if UNSUPPORTED.contains(&name) => {
                    return Err(format!("has the parameter {name}, which is not supported"));
                }
                _ => kept.push(pair),
            }
        }
        let system_roots = root_certificates.as_deref() == Some("system");
        let root_certificates = root_certificates.filter(|_| !system_roots).map(PathBuf::from);
        let (mode, verify) = match sslmode {
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            None | Some("allow" | "prefer") => (SslMode::Prefer, Verify::Nothing),
            Some("require") if root_certificates.is_some() => (SslMode::Require, Verify::Chain),
            Some("require") => (SslMode::Require, Verify::Nothing),
            Some("verify-ca") => (SslMode::Require, Verify::Chain),
            Some("verify-full") => (SslMode::Require, Verify::ChainAndName),
            Some(_) => {
                return Err(
                    "has an sslmode other than disable, prefer, require, verify-ca, verify-full"
                        .to_owned(),
                );
            }
        };
        let rest =
            if kept.is_empty() { place.to_owned() } else { format!("{place}?{}", kept.join("&")) };
        let mut config =
            tokio_postgres::Config::from_str(&rest).map_err(|error| with_cause(&error))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("has no host".to_owned());
        }
        config.ssl_mode(mode);
        if config.get_application_name().is_none() {
            config.application_name("contentflow");
        }
        Ok(Target { config, verify, root_certificates })
    }

    /// `host:port`, several separated by commas.
    fn address(&self) -> String {
        let ports = self.config.get_ports();
        let port = |at: usize| ports.get(at).or(ports.first()).copied().unwrap_or(5432);
        let hosts = self.config.get_hosts().iter().enumerate().map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            Host::Unix(path) => path.display().to_string(),
        });
        let addresses = hosts.collect::<Vec<_>>();
        if addresses.is_empty() {
            let hosts = self.config.get_hostaddrs().iter().enumerate();
            return hosts
                .map(|(at, host)| format!("{host}:{}", port(at)))
                .collect::<Vec<_>>()
                .join(",");
        }
        addresses.join(",")
    }
}

/// Where the rows are, as far as a URL that has been checked says it. Of several hosts none.
pub fn whereabouts(url: &Secret) -> Place {
    let Ok(Target { config, .. }) = Target::parse(url) else { return Place::default() };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let server = match config.get_hosts() {
        [Host::Tcp(name)] => Some((name.clone(), port)),
        _ => None,
    };
    Place { database: config.get_dbname().or(config.get_user()).map(str::to_owned), server }
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let decoded = if byte == b'%' {
            let digits = [rest.next(), rest.next()]
                .into_iter()
                .flatten()
                .map(char::from)
                .collect::<String>();
            u8::from_str_radix(&digits, 16)
                .map_err(|_| "has a % that no two hexadecimal digits follow".to_owned())?
        } else {
            byte
        };
        bytes.push(decoded);
    }
    String::from_utf8(bytes).map_err(|_| "has a parameter that is not UTF-8".to_owned())
}

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

    fn from_driver(error: &tokio_postgres::Error, target: &Target) -> ConnectError {
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
            // Class 28 is authorization, 57 an operator's intervention, 53 a lack of resources, 08 the connection.
            code if code.code().starts_with("28") => {
                ConnectError::Authentication { address, reason }
            }
            code if ["57", "53", "08"].iter().any(|class| code.code().starts_with(class)) => {
                ConnectError::NotReady { address, reason }
            }
            code => {
                ConnectError::Refused { address, reason: format!("{reason} ({})", code.code()) }
            }
        }
    }
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

fn with_cause(error: &tokio_postgres::Error) -> String {
    match error.source() {
        Some(cause) => format!("is not usable: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        let cases = [
            ("", SslMode::Prefer, Verify::Nothing, None),
            ("?sslmode=disable", SslMode::Disable, Verify::Nothing, None),
            ("?sslmode=allow", SslMode::Prefer, Verify::Nothing, None),
            ("?sslmode=prefer", SslMode::Prefer, Verify::Nothing, None),
            ("?sslmode=require", SslMode::Require, Verify::Nothing, None),
            (
                "?sslmode=require&sslrootcert=/a%20b.pem",
                SslMode::Require,
                Verify::Chain,
                Some("/a b.pem"),
            ),
            ("?sslmode=verify-ca&connect_timeout=3", SslMode::Require, Verify::Chain, None),
            (
                "?sslrootcert=system&sslmode=verify-full",
                SslMode::Require,
                Verify::ChainAndName,
                None,
            ),
        ];
        for (query, mode, verify, roots) in cases {
            let target = Target::parse(&Secret::new(format!("postgres://u@h/d{query}"))).unwrap();
            let found = (target.config.get_ssl_mode(), target.verify, target.root_certificates);
            assert_eq!(found, (mode, verify, roots.map(PathBuf::from)), "{query}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_says_why_and_shows_nothing() {
        let cases = [
            ("", "is empty"),
            ("host=h password=SENTINEL", "does not begin with postgres://"),
            ("postgres://u:SEN@TINEL@h/d", "more than one @"),
            ("postgres://u:SENTINEL@/d", "has no host"),
            ("postgres://u:SENTINEL@h/d?sslmode=on", "has an sslmode other than"),
            ("postgres://u:SENTINEL@h/d?sslmod=require", "unknown option `sslmod`"),
            ("postgres://u:SENTINEL@h/d?sslcert=x", "sslcert, which is not supported"),
            ("postgres://u:SENTINEL@h:port/d", "`port`"),
        ];
        for (url, why) in cases {
            let message = check_url(&Secret::new(url)).unwrap_err();
            assert!(message.contains(why) && !message.contains("SENTINEL"), "{url}: {message}");
        }
    }

    #[test]
    fn addresses_are_shown_with_their_ports() {
        let address = |url: &str| Target::parse(&Secret::new(url)).unwrap().address();
        assert_eq!(address("postgres://u:p@h"), "h:5432");
        assert_eq!(address("postgres://u:p@a:1,b:2/d"), "a:1,b:2");
        assert_eq!(address("postgres://u:p@%2Frun%2Fpg/d"), "/run/pg");
    }

    #[tokio::test]
    async fn nobody_there_is_an_outage_and_shows_no_password() {
        let mut config = Config::default().database;
        config.url = Secret::new("postgres://user:SENTINEL@127.0.0.1:1/d");
        let error = connect(&config).await.unwrap_err();
        assert!(error.is_outage(), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("cannot be reached at 127.0.0.1:1: ") && !shown.contains("SENTINEL"),
            "{shown}"
        );
    }
}
