//! Connecting to Redis, whether it is one server, the master of some sentinels, or a cluster:
//! deadlines from the first byte on, errors that say what to do.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode,
};

use self::place::{Place, has_tls};
use crate::config::{Cache, Secret};
use crate::traces::shape;

mod connection;
mod error;
mod place;
mod scan;

pub use connection::CacheConnection;
pub use error::{CacheError, ConnectError, is_away};
pub use scan::{Keys, Scan};

/// The forms of `cache.url`.
pub const URL_FORMS: &str = "redis://user:password@host:6379/0, redis+cluster://user:password@host:6379,host:6379 or \
     redis+sentinel://user:password@host:26379,host:26379/master/0, with rediss for TLS; in a password write @ : / ? # % and blanks as \
     %XX";

/// How often the client itself tries again to find the owner of a key in a cluster, and how long it
/// waits between two tries, milliseconds. A move is followed with one or two tries; what takes
/// longer is an outage, and held by whoever asks.
const TRIES: u32 = 4;
const WAIT_MS: [u64; 2] = [20, 100];

/// Connects, and asks for a sign of life: a server that wants a password takes a connection without
/// one and refuses only the first command.
pub async fn connect(config: &Cache) -> Result<CacheConnection, ConnectError> {
    let place =
        Place::parse(config.url.expose()).map_err(|reason| ConnectError::BadUrl { reason })?;
    match place {
        Place::Server(server) => {
            let names = Names::of(&[&server]);
            let client = client_of(server, config).map_err(|error| names.classify(&error))?;
            Ok(CacheConnection::Server(open(&client, config.timeout, &names).await?))
        }
        Place::Sentinel { sentinels, master, node } => {
            let mut names = Names::of(&sentinels.iter().collect::<Vec<_>>());
            names.address = format!("{master} (sentinels {})", names.address);
            let client = find_master(&sentinels, &master, &node, config, &names).await?;
            let at = format!("{master} at {}", client.get_connection_info().addr());
            Ok(CacheConnection::Master(open(&client, config.timeout, &names).await?, at))
        }
        Place::Cluster(nodes) => join(nodes, config).await,
    }
}

/// A client of one server by itself.
fn client_of(server: ConnectionInfo, config: &Cache) -> RedisResult<Client> {
    match certificates(config) {
        Some(certificates) => Client::build_with_tls(server, certificates),
        None => Client::open(server),
    }
}

/// The authorities that are trusted in place of the client's own, which are those that browsers
/// trust; and who we are.
fn certificates(config: &Cache) -> Option<TlsCertificates> {
    let root_cert = config.root_certificates.as_ref().map(|roots| roots.pem().to_vec());
    let client_tls = config.identity.as_ref().map(|identity| {
        let [client_cert, client_key] = identity.pem().map(<[u8]>::to_vec);
        ClientTlsConfig { client_cert, client_key }
    });
    (root_cert.is_some() || client_tls.is_some())
        .then_some(TlsCertificates { client_tls, root_cert })
}

async fn open(
    client: &Client,
    timeout: Duration,
    names: &Names,
) -> Result<MultiplexedConnection, ConnectError> {
    let deadlines = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    let connected = client.get_multiplexed_async_connection_with_config(&deadlines).await;
    let mut connection = connected.map_err(|error| names.classify(&error))?;
    match redis::cmd("PING").query_async::<()>(&mut connection).await {
        Ok(()) => Ok(connection),
        // Its user may delete keys and not ping: alive, and that is what was asked.
        Err(error) if error.code() == Some("NOPERM") => Ok(connection),
        Err(error) => Err(names.classify(&error)),
    }
}

/// Asks the sentinels where the master is, and asks it whether it is one. The client has deadlines
/// of its own for both, of a second and less.
async fn find_master(
    sentinels: &[ConnectionInfo],
    master: &str,
    node: &ConnectionInfo,
    config: &Cache,
    names: &Names,
) -> Result<Client, ConnectError> {
    let found = match client_of_sentinels(sentinels, master, node, config) {
        Ok(mut asked) => asked.async_get_client().await,
        Err(error) => Err(error),
    };
    match found {
        Ok(client) => Ok(client),
        Err(error) if error.kind() == ErrorKind::MasterNameNotFoundBySentinel => {
            // That is said of a master that is down, too.
            let address = names.address.clone();
            let known = masters(sentinels, config).await;
            Err(if known.is_empty() || known.iter().any(|name| name == master) {
                let reason = "the sentinels see no master that is up: a failover".to_owned();
                ConnectError::NotReady { address, reason }
            } else {
                ConnectError::UnknownMaster { address, known: known.join(", ") }
            })
        }
        Err(error) => Err(names.classify(&error)),
    }
}

/// A client that finds the master. Only this one of the library's can be told whom to trust, and it
/// wants everything one by one.
fn client_of_sentinels(
    sentinels: &[ConnectionInfo],
    master: &str,
    node: &ConnectionInfo,
    config: &Cache,
) -> RedisResult<SentinelClient> {
    let addresses = sentinels.iter().map(|sentinel| sentinel.addr().clone());
    let settings = node.redis_settings();
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
        .set_client_to_redis_db(settings.db())
        .set_client_to_redis_protocol(settings.protocol());
    if let Some(user) = settings.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = settings.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    // The sentinels differ in nothing but their addresses.
    let own = sentinels.first().map(ConnectionInfo::redis_settings);
    if let Some(user) = own.and_then(RedisConnectionInfo::username) {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = own.and_then(RedisConnectionInfo::password) {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if has_tls(node) {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(config) {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    builder.build()
}

/// The names of the masters that the first sentinel with an answer watches.
async fn masters(sentinels: &[ConnectionInfo], config: &Cache) -> Vec<String> {
    for sentinel in sentinels {
        let names = Names::of(&[sentinel]);
        let Ok(client) = client_of(sentinel.clone(), config) else { continue };
        let Ok(mut connection) = open(&client, config.timeout, &names).await else { continue };
        let mut ask = redis::cmd("SENTINEL");
        let answer =
            ask.arg("MASTERS").query_async::<Vec<HashMap<String, String>>>(&mut connection).await;
        if let Ok(masters) = answer {
            return masters.into_iter().filter_map(|mut master| master.remove("name")).collect();
        }
    }
    Vec::new()
}

/// Joins the cluster by way of any of these nodes.
async fn join(nodes: Vec<ConnectionInfo>, config: &Cache) -> Result<CacheConnection, ConnectError> {
    let names = Names::of(&nodes.iter().collect::<Vec<_>>());
    let [least, most] = WAIT_MS;
    let mut builder = ClusterClientBuilder::new(nodes.clone())
        .connection_timeout(config.timeout)
        .response_timeout(config.timeout)
        .retries(TRIES)
        .min_retry_wait(least)
        .max_retry_wait(most);
    if let Some(certificates) = certificates(config) {
        builder = builder.certs(certificates);
    }
    let client = builder.build().map_err(|error| names.classify(&error))?;
    let error = match client.get_async_connection().await {
        Ok(cluster) => return Ok(CacheConnection::Cluster(cluster)),
        Err(error) => error,
    };
    // The client makes one error of what all the nodes say. What one of them says by itself tells
    // more.
    let mut last = None;
    for node in nodes {
        let names = Names::of(&[&node]);
        let client = client_of(node, config).map_err(|error| names.classify(&error))?;
        match open(&client, config.timeout, &names).await {
            Ok(_alive) => return Err(names.classify(&error)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| names.classify(&error)))
}

/// Whether a URL is one that [`connect`] can use. The message shows nothing of it.
pub fn check_url(url: &Secret) -> Result<(), String> {
    Place::parse(url.expose()).map(drop)
}

/// Whether a URL that has been checked asks for TLS.
pub fn is_encrypted(url: &Secret) -> bool {
    Place::parse(url.expose()).is_ok_and(|place| place.is_encrypted())
}

/// Where the keys are, as far as a URL that has been checked says it. Of several servers none.
pub fn whereabouts(url: &Secret) -> shape::Place {
    let Ok(Place::Server(server)) = Place::parse(url.expose()) else {
        return shape::Place::default();
    };
    let database = Some(server.redis_settings().db().to_string());
    let server = match server.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    };
    shape::Place { database, server }
}

/// What servers are called in an error, and how they are spoken to.
struct Names {
    address: String,
    encrypted: bool,
}

impl Names {
    fn of(servers: &[&ConnectionInfo]) -> Names {
        let addresses: Vec<String> =
            servers.iter().map(|server| server.addr().to_string()).collect();
        let encrypted = servers.iter().any(|server| has_tls(server));
        if encrypted {
            // The client asks for the process's choice and would panic without one. Chosen already
            // is as good.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        Names { address: addresses.join(", "), encrypted }
    }

    fn classify(&self, error: &RedisError) -> ConnectError {
        ConnectError::from_client(error, self.address.clone(), self.encrypted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn nobody_there_is_an_outage_and_shows_no_password() {
        let mut config = Config::default().cache;
        for (url, place) in [
            ("redis://user:SENTINEL@127.0.0.1:1/0", "127.0.0.1:1"),
            ("redis+cluster://user:SENTINEL@127.0.0.1:1,127.0.0.1:2", "127.0.0.1:2"),
            (
                "redis+sentinel://user:SENTINEL@127.0.0.1:1,127.0.0.1:2/m?sentinel_password=SENTINEL",
                "m (sentinels 127.0.0.1:1, 127.0.0.1:2)",
            ),
        ] {
            config.url = Secret::new(url);
            let Err(error) = connect(&config).await else { panic!("somebody is there") };
            assert!(error.is_outage(), "{error}");
            let shown = format!("{error} {error:?} {}", config.url);
            assert!(
                shown.contains(&format!("cannot be reached at {place}: "))
                    && !shown.contains("SENTINEL"),
                "{shown}"
            );
        }
    }
}
