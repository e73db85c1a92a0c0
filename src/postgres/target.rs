//! Where a URL points to, and how the server there is to be spoken to: `sslmode` as libpq means it.

use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::config::{Host, SslMode};

use super::error::with_cause;
use crate::config::Secret;
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
    pub(super) verify: Verify,
    pub(super) root_certificates: Option<PathBuf>,
    /// Files with our certificate and its key.
    pub(super) identity: Option<[PathBuf; 2]>,
}

/// Parameters that libpq knows and that would change nothing here if they were dropped silently, or
/// would be missed.
const UNSUPPORTED: [&str; 6] =
    ["passfile", "service", "sslpassword", "sslcrl", "krbsrvname", "requirepeer"];

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
        Ok(Target { config, verify, root_certificates, identity })
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
    fn addresses_are_shown_with_their_ports() {
        let address = |url: &str| Target::parse(&Secret::new(url)).unwrap().address();
        assert_eq!(address("postgres://u:p@h"), "h:5432");
        assert_eq!(address("postgres://u:p@a:1,b:2/d"), "a:1,b:2");
        assert_eq!(address("postgres://u:p@%2Frun%2Fpg/d"), "/run/pg");
    }
}
