//! The certificates of the authorities that a server's certificate may come from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// A PEM file with at least one certificate, all of which can be trusted. It is read once, when the
/// configuration is.
#[derive(Clone)]
pub struct RootCertificates {
    file: PathBuf,
    pem: Arc<[u8]>,
}

impl RootCertificates {
    /// Reads a file, and proves that it can be used. The message of a failure shows nothing of what
    /// is in it.
    pub fn read(file: impl AsRef<Path>) -> Result<RootCertificates, String> {
        let file = file.as_ref().to_owned();
        let pem = std::fs::read(&file).map_err(|error| format!("cannot be read: {error}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            // What the library says about PEM may quote it, and a wrong file may be one with a key.
            if !certificate.is_ok_and(|certificate| roots.add(certificate).is_ok()) {
                return Err(format!("is broken at its certificate {}", roots.len() + 1));
            }
        }
        if roots.is_empty() {
            return Err("has no certificate in PEM in it".to_owned());
        }
        Ok(RootCertificates { file, pem: pem.into() })
    }

    /// The file as it was.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }
}

/// The file's name tells enough.
impl fmt::Debug for RootCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RootCertificates").field(&self.file).finish()
    }
}
