//! Where the keys live, as `cache.url` says it: on one server, on the master that Sentinel names,
//! or in a cluster.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};

/// Where a sentinel listens unless its address says otherwise.
const SENTINEL_PORT: u16 = 26_379;

/// The parameters of a `redis+sentinel` URL that are the sentinels' own: user and password.
const SENTINEL_USER: &str = "sentinel_user";
const SENTINEL_PASSWORD: &str = "sentinel_password";

/// Where the keys live.
#[derive(Clone)]
pub(super) enum Place {
    /// On one server.
    Server(ConnectionInfo),
    /// On the master that these sentinels know by that name. Its address is theirs to say;
    /// everything else is as in `node`.
    Sentinel { sentinels: Vec<ConnectionInfo>, master: String, node: ConnectionInfo },
    /// In the cluster that these nodes belong to.
    Cluster(Vec<ConnectionInfo>),
}

impl Place {
    /// Reads a URL. The message of a failure shows nothing of it.
    pub(super) fn parse(url: &str) -> Result<Place, String> {
        if url.is_empty() {
            return Err("is empty".to_owned());
        }
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let many = Many::parse(rest);
        match scheme {
            "redis+sentinel" => many.sentinel("redis"),
            "rediss+sentinel" => many.sentinel("rediss"),
            "redis+cluster" => many.cluster("redis"),
            "rediss+cluster" => many.cluster("rediss"),
            "redis" | "rediss" if many.hosts.contains(',') => Err(
                "names several servers, and does not say whether they are a cluster or sentinels"
                    .to_owned(),
            ),
            _ => many.no_sentinel_parameters().and_then(|()| server(url)).map(Place::Server),
        }
    }

    /// Whether TLS is asked for, which it is of all servers or of none.
    pub(super) fn is_encrypted(&self) -> bool {
        match self {
            Place::Server(server) => has_tls(server),
            Place::Sentinel { node, .. } => has_tls(node),
            Place::Cluster(nodes) => nodes.iter().all(has_tls),
        }
    }
}

pub(super) fn has_tls(server: &ConnectionInfo) -> bool {
    matches!(server.addr(), ConnectionAddr::TcpTls { .. })
}

/// The parts of a URL that may name several hosts, as they are written.
struct Many<'a> {
    /// With its `@`, if there is one.
    user_info: &'a str,
    hosts: &'a str,
    path: &'a str,
    /// Of the sentinels.
    user: &'a str,
    password: &'a str,
    /// What else follows `?` or `#`, with that.
    tail: String,
}

impl Many<'_> {
    fn parse(rest: &str) -> Many<'_> {
        let (place, tail) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
        let (user_info, place) = place.split_at(place.rfind('@').map_or(0, |at| at + 1));
        let (hosts, path) = place.split_once('/').unwrap_or((place, ""));
        let (mut user, mut password) = ("", "");
        let mut others = Vec::new();
        for parameter in tail.strip_prefix('?').unwrap_or_default().split('&') {
            match parameter.split_once('=') {
                Some((SENTINEL_USER, value)) => user = value,
                Some((SENTINEL_PASSWORD, value)) => password = value,
                _ => others.push(parameter),
            }
        }
        let tail =
            if tail.starts_with('?') { ["?", &others.join("&")].concat() } else { tail.to_owned() };
        Many { user_info, hosts, path, user, password, tail }
    }

    fn cluster(&self, scheme: &str) -> Result<Place, String> {
        self.no_sentinel_parameters()?;
        if !matches!(self.path, "" | "0") {
            return Err("names a database, and a cluster has only number 0".to_owned());
        }
        let Many { user_info, hosts, tail, .. } = self;
        let node = |host| server(&format!("{scheme}://{user_info}{host}/{tail}"));
        Ok(Place::Cluster(hosts.split(',').map(node).collect::<Result<_, _>>()?))
    }

    fn sentinel(&self, scheme: &str) -> Result<Place, String> {
        let Many { user_info, hosts, path, user, password, tail } = self;
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err(
                "does not name the master, behind the addresses of its sentinels".to_owned()
            );
        }
        let own = if user.is_empty() && password.is_empty() {
            String::new()
        } else {
            format!("{user}:{password}@")
        };
        let sentinel = |host: &str| {
            // What is behind the bracket of an IPv6 address is a port.
            let has_port = host.rsplit(']').next().unwrap_or_default().contains(':');
            let port = if has_port { String::new() } else { format!(":{SENTINEL_PORT}") };
            server(&format!("{scheme}://{own}{host}{port}"))
        };
        Ok(Place::Sentinel {
            sentinels: hosts.split(',').map(sentinel).collect::<Result<_, _>>()?,
            master: master.to_owned(),
            node: server(&format!("{scheme}://{user_info}master/{database}{tail}"))?,
        })
    }

    fn no_sentinel_parameters(&self) -> Result<(), String> {
        if self.user.is_empty() && self.password.is_empty() {
            return Ok(());
        }
        Err(format!(
            "has {SENTINEL_USER} or {SENTINEL_PASSWORD}, which only redis+sentinel:// and rediss+sentinel:// take"
        ))
    }
}

fn server(url: &str) -> Result<ConnectionInfo, String> {
    if redis::parse_redis_url(url).is_none() {
        return Err(
            "is not a URL that begins with redis:// or rediss://, redis+cluster:// or redis+sentinel://".to_owned(),
        );
    }
    url.into_connection_info().map_err(|error| format!("is not usable: {}", description(&error)))
}

/// The client's own words about a URL; they are fixed texts, while the detail behind them may quote
/// it.
pub(super) fn description(error: &RedisError) -> String {
    let text = error.to_string();
    text.split(" - ").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(servers: &[ConnectionInfo]) -> Vec<String> {
        servers.iter().map(|server| server.addr().to_string()).collect()
    }

    #[test]
    fn a_url_that_cannot_be_used_says_why_and_shows_nothing() {
        let begin = "is not a URL that begins with redis://";
        let cases = [
            ("", "is empty"),
            ("SENTINEL", begin),
            ("http://:SENTINEL@h", begin),
            ("redis+cluster://:SENTINEL@", begin),
            ("redis+cluster://:SENTINEL@h,", begin),
            ("redis+sentinel://:SENTINEL@h,,i/master", begin),
            ("redis+cluster://h:SENTINEL", begin),
            ("redis+sentinels://:SENTINEL@h/master", begin),
            ("redis://:SENTINEL@h/zero", "invalid database number"),
            ("redis+sentinel://:SENTINEL@h/master/zero", "invalid database number"),
            ("rediss://:SENTINEL@h/0#SENTINEL", "only #insecure is supported"),
            ("redis://:SENTINEL@h,i", "names several servers"),
            ("redis+cluster://:SENTINEL@h,i/1", "a cluster has only number 0"),
            ("redis+sentinel://:SENTINEL@h,i", "does not name the master"),
            ("redis+sentinel://:SENTINEL@h//0", "does not name the master"),
            ("redis://h/0?sentinel_password=SENTINEL", "which only redis+sentinel://"),
            ("redis+cluster://h?sentinel_user=SENTINEL", "which only redis+sentinel://"),
        ];
        for (url, why) in cases {
            let Err(message) = Place::parse(url) else { panic!("{url} is taken") };
            assert!(message.contains(why) && !message.contains("SENTINEL"), "{url}: {message}");
        }
        let servers = [
            "redis://h",
            "rediss://u:p@h:1/2",
            "redis+unix:///run/redis.sock",
            "redis://h/0?protocol=resp3",
        ];
        for url in servers {
            assert!(matches!(Place::parse(url), Ok(Place::Server(_))), "{url}");
        }
    }

    #[test]
    fn the_nodes_of_a_cluster_share_everything_but_their_addresses() {
        let Ok(Place::Cluster(nodes)) =
            Place::parse("rediss+cluster://us%40er:pa%2Css@a,b:1,[::1]:2/0?protocol=resp3")
        else {
            panic!("not a cluster")
        };
        assert_eq!(addresses(&nodes), ["a:6379", "b:1", "::1:2"]);
        for node in nodes {
            assert!(matches!(node.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
            let settings = node.redis_settings();
            assert_eq!((settings.username(), settings.password()), (Some("us@er"), Some("pa,ss")));
            assert_eq!(settings.protocol(), redis::ProtocolVersion::RESP3);
        }
    }

    #[test]
    fn sentinels_have_a_port_and_a_password_of_their_own() {
        let url = "redis+sentinel://user:first@a,b:1,[::1]/my-master/3?sentinel_password=s%40cond&protocol=resp3";
        let Ok(Place::Sentinel { sentinels, master, node }) = Place::parse(url) else {
            panic!("not a sentinel")
        };
        assert_eq!(
            (addresses(&sentinels), master.as_str()),
            (vec!["a:26379".to_owned(), "b:1".to_owned(), "::1:26379".to_owned()], "my-master")
        );
        for sentinel in sentinels {
            let settings = sentinel.redis_settings();
            assert_eq!(
                (settings.username(), settings.password(), settings.db()),
                (None, Some("s@cond"), 0)
            );
        }
        let settings = node.redis_settings();
        assert_eq!(
            (settings.username(), settings.password(), settings.db()),
            (Some("user"), Some("first"), 3)
        );
        assert_eq!(settings.protocol(), redis::ProtocolVersion::RESP3);
    }
}
