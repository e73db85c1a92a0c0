//! Certificates of an authority that nobody else knows.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

/// A local authority with certificates for this host, for another, and for this one until yesterday.
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
