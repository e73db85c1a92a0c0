//! Who may look, and what a browser may do with it.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Shared;
use crate::config::Token;
use crate::percent::decoded;

/// On every answer. The page has nothing from elsewhere, sends nothing elsewhere, and stands in no
/// frame.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Who may look.
pub(super) struct Guard {
    /// What has to be known, hashed: hashes can be compared without telling by the time how much of
    /// them is right.
    token: Option<[u8; 32]>,
    /// The name and the value of the cookie of a page that was opened with the token. The value is
    /// not the token.
    cookie: (String, String),
    /// Whether only this machine reaches us, so that a page from elsewhere that pretends to be ours
    /// gives itself away by its host.
    is_loopback: bool,
}

/// Whether a request comes from somebody who knows the token, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IsTrusted(pub(super) bool);

impl Guard {
    pub(super) fn new(address: SocketAddr, token: Option<&Token>) -> Guard {
        let hash = |text: &str| <[u8; 32]>::from(Sha256::digest(text.as_bytes()));
        let mut value = String::new();
        if let Some(token) = token {
            for byte in hash(&format!("contentflow page {}", token.expose())) {
                write!(value, "{byte:02x}").expect("a text takes everything");
            }
        }
        Guard {
            token: token.map(|token| hash(token.expose())),
            // Ports share their cookies.
            cookie: (format!("contentflow_{}", address.port()), value),
            is_loopback: address.ip().is_loopback(),
        }
    }

    fn knows(&self, said: &str) -> bool {
        self.token.is_some_and(|token| token == <[u8; 32]>::from(Sha256::digest(said.as_bytes())))
    }

    fn trusts(&self, headers: &HeaderMap) -> bool {
        if self.token.is_none() {
            return true;
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = bearer.and_then(|value| value.split_once(' '));
        if bearer.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && self.knows(token.trim())
        }) {
            return true;
        }
        let (name, value) = &self.cookie;
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
        let mut pairs =
            cookies.flat_map(|it| it.split(';')).filter_map(|it| it.trim().split_once('='));
        let same = |said: &str| Sha256::digest(said.as_bytes()) == Sha256::digest(value.as_bytes());
        pairs.any(|(its_name, said)| its_name == name && same(said))
    }

    /// A name that a browser on this machine has for this machine.
    fn is_ours(&self, headers: &HeaderMap) -> bool {
        if !self.is_loopback {
            return true;
        }
        let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
            return false;
        };
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => name,
            _ => host,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// The token that the page was asked for with, if it is the right one: it is taken into a
    /// cookie, and out of the address.
    fn admits(&self, uri: &Uri) -> Option<Response> {
        let said = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("token="))?;
        if uri.path() != "/" || !self.knows(&String::from_utf8(decoded(said)?).ok()?) {
            return None;
        }
        let (name, value) = &self.cookie;
        let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict");
        Some(
            (
                StatusCode::SEE_OTHER,
                [(header::LOCATION, "/".to_owned()), (header::SET_COOKIE, cookie)],
            )
                .into_response(),
        )
    }
}

/// Lets through who may look, and adds the headers.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Response {
    let guard = &shared.guard;
    let is_trusted = guard.trusts(request.headers());
    request.extensions_mut().insert(IsTrusted(is_trusted));
    // Whoever starts and stops the program asks these two, and has no use for the reasons.
    let is_open = matches!(request.uri().path(), "/healthz" | "/readyz");
    let mut response = if !guard.is_ours(request.headers()) {
        let text = "this address is for this machine: its Host is localhost, 127.0.0.1 or [::1]\n";
        (StatusCode::FORBIDDEN, text).into_response()
    } else if is_trusted || is_open {
        next.run(request).await
    } else if let Some(admitted) = guard.admits(request.uri()) {
        admitted
    } else {
        let text = "a token is needed: Authorization: Bearer ..., or /?token=... for the page\n";
        let mut refused = (StatusCode::UNAUTHORIZED, text).into_response();
        let bearer = HeaderValue::from_static("Bearer realm=\"contentflow\"");
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        refused
    };
    response.headers_mut().extend(HEADERS);
    response
}
