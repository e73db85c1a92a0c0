//! `[http]`: where the page and the metrics are served, and to whom.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::secret;

/// Where it is served unless somebody says otherwise: this machine only, the port that metrics of
/// applications have by convention.
pub(super) const DEFAULT: &str = "127.0.0.1:9464";

/// `[http]`
#[derive(Clone, Debug)]
pub struct Http {
    /// `http.listen`. Default `127.0.0.1:9464`: whoever is on this machine may look, nobody else.
    pub listen: Listen,
    /// `http.token`: what everybody has to know who looks. Default none.
    pub token: Option<Token>,
}

/// Where to listen, if at all.
#[derive(Clone, Copy)]
pub struct Listen {
    /// The address; `None` for `"off"`. Port 0 is for any that is free.
    pub address: Option<SocketAddr>,
    /// Whether somebody has asked for it, so that another one would not do.
    pub is_asked_for: bool,
}

impl Listen {
    pub(super) fn parse(text: &str, is_asked_for: bool) -> Result<Listen, String> {
        let text = text.trim();
        if text == "off" {
            return Ok(Listen { address: None, is_asked_for });
        }
        let address = match text.strip_prefix("localhost:") {
            Some(port) => {
                port.parse().ok().map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
            }
            None => text.parse().ok(),
        };
        match address {
            Some(address) => Ok(Listen { address: Some(address), is_asked_for }),
            None => Err("is no address with a port".to_owned()),
        }
    }
}

/// Without whether it was asked for: it means the same, however it came about.
impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("off"),
        }
    }
}

/// A secret of whoever may look. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    pub(super) fn parse(text: String) -> Result<Token, String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !(16..=256).contains(&text.len()) {
            return Err("is too short to be a secret, or longer than 256 characters".to_owned());
        }
        if !text.bytes().all(fits) {
            return Err("has a character that no header takes".to_owned());
        }
        Ok(Token(text))
    }

    /// The token as it is, to compare it and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(secret::HIDDEN)
    }
}
