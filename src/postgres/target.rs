//! Where a URL points to, and how the server there is to be spoken to: `sslmode` as libpq means it.

use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode};

use super::error::with_cause;
use crate::config::Secret;
use crate::percent;
use crate::traces::shape::Place;

/// How far the server's certificate is trusted. Encryption itself is the driver's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// `prefer`, `require`: any certificate.
    Nothing,
    /// `verify-ca`, and `require` with root certificates: one that leads to a root.
    Chain,
    /// `verify-full`: that, and it is for the host in the URL.
    ChainAndName,
}

/// What a URL says, with what the driver does not know taken out of it.
pub(super) struct Target {
    pub(super) config: tokio_postgres::Config,
    /// The same without its hosts, which the driver does not take back.
    hostless: tokio_postgres::Config,
    pub(super) verify: Verify,
    pub(super) root_certificates: Option<PathBuf>,
    /// Files with our certificate and its key.
    pub(super) identity: Option<[PathBuf; 2]>,
}

/// Parameters that libpq knows and that would change nothing here if they were dropped silently, or
/// would be missed.
const UNSUPPORTED: [&str; 6] =
    ["passfile", "service", "sslpassword", "sslcrl", "krbsrvname", "requirepeer"];

/// Parameters that name hosts.
const HOSTS: [&str; 3] = ["host=", "hostaddr=", "port="];

impl Target {
    pub(super) fn parse(url: &Secret) -> Result<Target, String> {
        let url = url.expose();
        if url.is_empty() {
            return Err("is empty".to_owned());
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("does not begin with postgres://".to_owned());
        }
        // The driver takes the first @ for the end of the password, and would connect to the rest
        // of it.
        if url.matches('@').count() > 1 {
            return Err(
                "has more than one @: write the ones in user and password as %40".to_owned()
            );
        }
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut kept = Vec::new();
        let (mut sslmode, mut root_certificates) = (None, None);
        let (mut certificate, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => sslmode = Some(value),
                Some(("sslrootcert", value)) => root_certificates = Some(percent_decoded(value)?),
                Some(("sslcert", value)) => certificate = Some(percent_decoded(value)?),
                Some(("sslkey", value)) => key = Some(percent_decoded(value)?),
                Some((name, _)) if UNSUPPORTED.contains(&name) => {
                    return Err(format!("has the parameter {name}, which is not supported"));
                }
                _ => kept.push(pair),
            }
        }
        let system_roots = root_certificates.as_deref() == Some("system");
        let root_certificates = root_certificates.filter(|_| !system_roots).map(PathBuf::from);
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some([certificate, key].map(PathBuf::from)),
            (None, None) => None,
            _ => return Err("has only one of sslcert and sslkey".to_owned()),
        };
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
        let mut config = driver_config(place, &kept)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("has no host".to_owned());
        }
        kept.retain(|pair| !HOSTS.iter().any(|name| pair.starts_with(name)));
        let mut hostless = driver_config(&without_hosts(place), &kept)?;
        for config in [&mut config, &mut hostless] {
            config.ssl_mode(mode);
            if config.get_application_name().is_none() {
                config.application_name("contentflow");
            }
        }
        Ok(Target { config, hostless, verify, root_certificates, identity })
    }

    /// The hosts in the order in which they are to be tried, each as if the URL named it alone. The
    /// driver tries all of them too, but knows no deadline for a host that takes the connection and
    /// says nothing.
    pub(super) fn one_by_one(&self) -> Vec<tokio_postgres::Config> {
        let (hosts, addresses) = (self.config.get_hosts(), self.config.get_hostaddrs());
        let ports = self.config.get_ports();
        let count = hosts.len().max(addresses.len());
        let fits = |given: usize| given == count || given == 0;
        if !fits(hosts.len()) || !fits(addresses.len()) || !(fits(ports.len()) || ports.len() == 1)
        {
            // That is for the driver to complain of.
            return vec![self.config.clone()];
        }
        let mut order: Vec<usize> = (0..count).collect();
        if self.config.get_load_balance_hosts() == LoadBalanceHosts::Random {
            fastrand::shuffle(&mut order);
        }
        let one = |at: usize| {
            let mut config = self.hostless.clone();
            match hosts.get(at) {
                Some(Host::Tcp(name)) => _ = config.host(name),
                Some(Host::Unix(path)) => _ = config.host_path(path),
                None => {}
            }
            if let Some(address) = addresses.get(at) {
                config.hostaddr(*address);
            }
            if let Some(port) = ports.get(at).or(ports.first()) {
                config.port(*port);
            }
            config
        };
        order.into_iter().map(one).collect()
    }

    /// `host:port`, several separated by commas.
    pub(super) fn address(&self) -> String {
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

fn driver_config(place: &str, parameters: &[&str]) -> Result<tokio_postgres::Config, String> {
    let parameters = parameters.join("&");
    let url =
        if parameters.is_empty() { place.to_owned() } else { format!("{place}?{parameters}") };
    tokio_postgres::Config::from_str(&url).map_err(|error| with_cause(&error))
}

/// The part of a URL before its parameters, with nothing between the user and the database.
fn without_hosts(place: &str) -> String {
    let (scheme, rest) = place.split_once("://").unwrap_or(("postgres", place));
    let (user, hosts) = rest.split_once('@').unwrap_or(("", rest));
    let at = if user.is_empty() { "" } else { "@" };
    let database = hosts.find('/').map_or("", |at| &hosts[at..]);
    format!("{scheme}://{user}{at}{database}")
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
    let bytes = percent::decoded(text)
        .ok_or_else(|| "has a % that no two hexadecimal digits follow".to_owned())?;
    String::from_utf8(bytes).map_err(|_| "has a parameter that is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("postgres://u:SENTINEL@h/d?sslcrl=x", "sslcrl, which is not supported"),
            ("postgres://u:SENTINEL@h/d?sslcert=x", "has only one of sslcert and sslkey"),
            ("postgres://u:SENTINEL@h/d?sslkey=x", "has only one of sslcert and sslkey"),
            ("postgres://u:SENTINEL@h:port/d", "`port`"),
        ];
        for (url, why) in cases {
            let message = Target::parse(&Secret::new(url)).err().unwrap();
            assert!(message.contains(why) && !message.contains("SENTINEL"), "{url}: {message}");
        }
    }

    #[test]
    fn several_hosts_are_tried_one_by_one_with_everything_that_the_url_says() {
        let one_by_one = |url: &str| Target::parse(&Secret::new(url)).unwrap().one_by_one();
        let rest = "d?sslmode=require&target_session_attrs=read-write&connect_timeout=3\
            &options=-c%20a%3Db&application_name=n&keepalives_idle=7&keepalives_interval=8\
            &keepalives_retries=9&tcp_user_timeout=10&channel_binding=require";
        let hosts = one_by_one(&format!("postgres://u:p@a:1,b:2/{rest}"));
        let alone = ["a:1", "b:2"].map(|host| one_by_one(&format!("postgres://u:p@{host}/{rest}")));
        assert_eq!(hosts, alone.concat());
        let whole = |url: &str| Target::parse(&Secret::new(url)).unwrap().config;
        for url in [
            format!("postgres://u:p@a:1/{rest}"),
            "postgres://u@%2Frun%2Fpg?keepalives=0&load_balance_hosts=random".to_owned(),
            "postgres://u@a?hostaddr=10.0.0.1&sslnegotiation=direct".to_owned(),
        ] {
            assert!(one_by_one(&url) == [whole(&url)], "nothing of it is lost: {url}");
        }
        // One address for two hosts: that is no pair, and the driver says so.
        assert_eq!(one_by_one("postgres://u@a,b?hostaddr=10.0.0.1").len(), 1);
    }

    #[test]
    fn addresses_are_shown_with_their_ports() {
        let address = |url: &str| Target::parse(&Secret::new(url)).unwrap().address();
        assert_eq!(address("postgres://u:p@h"), "h:5432");
        assert_eq!(address("postgres://u:p@a:1,b:2/d"), "a:1,b:2");
        assert_eq!(address("postgres://u:p@%2Frun%2Fpg/d"), "/run/pg");
    }
}
