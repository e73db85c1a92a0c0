//! The certificate that a server knows us by, and its key.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;

/// A PEM file with our certificate, before those that lead from it to an authority, and one with
/// its key. Each is read once.
#[derive(Clone)]
pub struct Identity {
    certificate: Pem,
    key: Pem,
}

/// A file as it was. What is in it is never shown.
#[derive(Clone)]
pub struct Pem {
    file: PathBuf,
    bytes: Arc<[u8]>,
}

impl Pem {
    fn read(file: impl AsRef<Path>) -> Result<Pem, String> {
        let file = file.as_ref().to_owned();
        let bytes = std::fs::read(&file).map_err(|error| format!("cannot be read: {error}"))?;
        Ok(Pem { file, bytes: bytes.into() })
    }

    /// A file with our certificate.
    pub fn certificate(file: impl AsRef<Path>) -> Result<Pem, String> {
        let pem = Pem::read(file)?;
        chain(&pem).map(|_| pem)
    }

    /// A file with our key.
    pub fn key(file: impl AsRef<Path>) -> Result<Pem, String> {
        let pem = Pem::read(file)?;
        key(&pem).map(|_| pem)
    }
}

impl Identity {
    /// Proves that a key is that of a certificate.
    pub fn new(certificate: Pem, key: Pem) -> Result<Identity, String> {
        let identity = Identity { certificate, key };
        let (chain, key) = identity.parts()?;
        // Each for itself can be read by now.
        match CertifiedKey::from_der(chain, key, &ring::default_provider()) {
            Ok(_) => Ok(identity),
            Err(_) => {
                Err(format!("is not the key of the certificate in {:?}", identity.certificate.file))
            }
        }
    }

    /// The certificates, ours first, and the key.
    pub fn parts(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        Ok((chain(&self.certificate)?, key(&self.key)?))
    }

    /// Both files as they were, the certificate's first.
    pub fn pem(&self) -> [&[u8]; 2] {
        [&self.certificate.bytes, &self.key.bytes]
    }
}

/// What the library says about PEM may quote it, and a wrong file may be one with a key.
fn chain(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem.bytes) {
        match certificate {
            Ok(certificate) if ParsedCertificate::try_from(&certificate).is_ok() => {
                chain.push(certificate);
            }
            _ => return Err(format!("is broken at its certificate {}", chain.len() + 1)),
        }
    }
    if chain.is_empty() { Err("has no certificate in PEM in it".to_owned()) } else { Ok(chain) }
}

fn key(pem: &Pem) -> Result<PrivateKeyDer<'static>, String> {
    let key = PrivateKeyDer::from_pem_slice(&pem.bytes)
        .map_err(|_| "has no key in PEM in it, or one that wants a password")?;
    ring::sign::any_supported_type(&key)
        .map_err(|_| "is broken, or of a kind that is not known")?;
    Ok(key)
}

/// Whether what a TLS client has to say is what a server says of our certificate, or of none.
pub(crate) fn is_doubted(reason: &str) -> bool {
    reason.contains("fatal alert")
        && ["Certificate", "UnknownCA"].iter().any(|it| reason.contains(it))
}

/// The files' names tell enough.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.certificate.file).field(&self.key.file).finish()
    }
}
