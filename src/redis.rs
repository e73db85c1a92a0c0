//! Connecting to Redis: deadlines from the first byte on, errors that say what to do.

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError,
};

use crate::config::{Cache, Secret};

/// Connects, and asks for a sign of life: a server that wants a password takes a connection without one and refuses
/// only the first command.
pub async fn connect(config: &Cache) -> Result<MultiplexedConnection, ConnectError> {
    let info = config.url.expose().into_connection_info().map_err(|_| ConnectError::BadUrl {
        reason: check_url(&config.url).err().unwrap_or_else(|| "is not usable".to_owned()),
    })?;
    let address = info.addr().to_string();
    let encrypted = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    if encrypted {
        // The client asks for the process's choice and would panic without one. Chosen already is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
    let classify =
        |error: RedisError| ConnectError::from_client(&error, address.clone(), encrypted);
    let deadlines = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.timeout))
        .set_response_timeout(Some(config.timeout));
    let client = Client::open(info).map_err(classify)?;
    let mut connection =
        client.get_multiplexed_async_connection_with_config(&deadlines).await.map_err(classify)?;
    match redis::cmd("PING").query_async::<()>(&mut connection).await {
        Ok(()) => Ok(connection),
        // Its user may delete keys and not ping: alive, and that is what was asked.
        Err(error) if error.code() == Some("NOPERM") => Ok(connection),
        Err(error) => Err(classify(error)),
    }
}

/// Whether a URL is one that [`connect`] can use. The message shows nothing of it.
pub fn check_url(url: &Secret) -> Result<(), String> {
    let url = url.expose();
    if url.is_empty() {
        return Err("is empty".to_owned());
    }
    if redis::parse_redis_url(url).is_none() {
        return Err("is not a URL that begins with redis:// or rediss://".to_owned());
    }
    match url.into_connection_info() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is not usable: {}", description(&error))),
    }
}

/// The client's own words about a URL; they are fixed texts, while the detail behind them may quote it.
fn description(error: &RedisError) -> String {
    let text = error.to_string();
    text.split(" - ").next().unwrap_or_default().to_lowercase()
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
            ConnectError::BadUrl { reason } => format!("cache.url {reason}"),
            ConnectError::Refused { address, reason } => {
                format!("Redis at {address} refuses: {reason}")
            }
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            ConnectError::Unreachable { .. } => "start the server, or set cache.url (or REDIS_URL) to where it is, with rediss:// if it speaks TLS there",
            ConnectError::NotReady { .. } => "wait until it is up",
            ConnectError::Authentication { .. } => {
                "check user and password in cache.url: redis://user:password@host:6379/0, special characters as %XX"
            }
            ConnectError::Tls { .. } => "check that the server speaks TLS on this port, with a certificate for this host",
            ConnectError::BadUrl { .. } => {
                "write redis://user:password@host:6379/0, or rediss:// for TLS; in the password @ : / ? # % and blanks as \
                 %XX"
            }
            ConnectError::Refused { .. } => "check the database number in cache.url, and the server's log",
        }
        .to_owned()
    }

    /// True if it may pass by itself.
    pub fn is_outage(&self) -> bool {
        matches!(self, ConnectError::Unreachable { .. } | ConnectError::NotReady { .. })
    }

    fn from_client(error: &RedisError, address: String, encrypted: bool) -> ConnectError {
        // Of an answer, its own words; of anything else, the client's.
        let reason = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        let reason = reason.trim_end_matches('.').to_owned();
        match (error.kind(), error.code()) {
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                let reason =
                    error.detail().map_or("user or password are wrong".to_owned(), |_| reason);
                ConnectError::Authentication { address, reason }
            }
            (_, Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY")) => {
                ConnectError::NotReady { address, reason }
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

fn is_tls(reason: &str) -> bool {
    ["certificate", "handshake", "corrupt message", "alert", "tls"]
        .iter()
        .any(|word| reason.to_lowercase().contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_url_that_cannot_be_used_says_why_and_shows_nothing() {
        let cases = [
            ("", "is empty"),
            ("SENTINEL", "is not a URL that begins with redis://"),
            ("http://:SENTINEL@h", "is not a URL that begins with redis://"),
            ("redis://:SENTINEL@h/zero", "invalid database number"),
            ("rediss://:SENTINEL@h/0#SENTINEL", "only #insecure is supported"),
        ];
        for (url, why) in cases {
            let message = check_url(&Secret::new(url)).unwrap_err();
            assert!(message.contains(why) && !message.contains("SENTINEL"), "{url}: {message}");
        }
        for url in [
            "redis://h",
            "rediss://u:p@h:1/2",
            "redis+unix:///run/redis.sock",
            "redis://h/0?protocol=resp3",
        ] {
            assert_eq!(check_url(&Secret::new(url)), Ok(()), "{url}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_an_outage_and_shows_no_password() {
        let mut config = Config::default().cache;
        config.url = Secret::new("redis://user:SENTINEL@127.0.0.1:1/0");
        let error = connect(&config).await.unwrap_err();
        assert!(error.is_outage(), "{error}");
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("cannot be reached at 127.0.0.1:1: ") && !shown.contains("SENTINEL"),
            "{shown}"
        );
    }
}
