//! Certificates of an authority that nobody else knows.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A local authority with certificates for this host, for another, and for this one until
/// yesterday.
pub(crate) fn certificates() -> TempDir {
    let directory = TempDir::new().unwrap();
    let openssl = |arguments: String| {
        let mut openssl = Command::new("openssl");
        let output = openssl.args(arguments.split(' ')).current_dir(directory.path()).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {said}");
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=authority"));
    for (name, host, days) in [
        ("good", "IP:127.0.0.1", 2),
        ("other", "DNS:other.example", 2),
        ("expired", "IP:127.0.0.1", -1),
    ] {
        openssl(format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        let extensions = directory.path().join("extensions");
        fs::write(extensions, format!("subjectAltName={host}")).unwrap();
        openssl(format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days {days} \
             -extfile extensions"
        ));
    }
    directory
}

/// How a Redis server or a sentinel speaks TLS at that port, as its configuration has it: with the
/// certificate for this host, and with servers that show one of the same authority.
pub(super) fn redis_tls(certificates: &Path, port: u16) -> Vec<(&'static str, String)> {
    let file = |name: &str| certificates.join(name).display().to_string();
    vec![
        ("tls-port", port.to_string()),
        ("tls-cert-file", file("good.crt")),
        ("tls-key-file", file("good.key")),
        ("tls-ca-cert-file", file("ca.crt")),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-replication", "yes".to_owned()),
    ]
}
