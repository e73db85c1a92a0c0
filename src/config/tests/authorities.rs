//! The authorities that the cache's servers are known by.

use super::*;

/// An authority that nobody knows, made with openssl.
const AUTHORITY: &str = "-----BEGIN CERTIFICATE-----
MIIBbjCCARWgAwIBAgIUbW0blrCr2yjzO2Yb7w6zIE4LU/AwCgYIKoZIzj0EAwIw
DDEKMAgGA1UEAwwBYTAgFw0yNjExMjgxMDQ4MzFaGA8yMTI2MTEwNDEwNDgzMVow
DDEKMAgGA1UEAwwBYTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABIZlB9Jm7iQS
wNTFfbR0sMyZB8Uc4fT3ROoSPaDbMO1tg2u2Kcx6/RrvL1NA+tHNgjULB8wqaGMl
RcVU2SG+OcGjUzBRMB0GA1UdDgQWBBSHrCCWzBpW/ffrqZzlJ/T+820rYjAfBgNV
HSMEGDAWgBSHrCCWzBpW/ffrqZzlJ/T+820rYjAPBgNVHRMBAf8EBTADAQH/MAoG
CCqGSM49BAMCA0cAMEQCID98oGnIpuR4KAeGhfNbHCxzMGrlDReAGDSsyKJggQbs
AiAy/+/vJIXQ0+De/WfBtlE209gblGfdN7rUdwikYTd/3g==
-----END CERTIFICATE-----
";

#[test]
fn the_authorities_of_the_cache_are_read_once_and_only_for_tls() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorities.pem");
    let name = file.to_str().unwrap();
    let with = |pem: &str, url: &str| {
        std::fs::write(&file, pem).unwrap();
        from_environment(&[("CONTENTFLOW_CACHE__ROOT_CERTIFICATES", name), ("REDIS_URL", url)])
    };
    let several = format!("Ours\n{AUTHORITY}\nTheirs\n{AUTHORITY}");
    for url in ["rediss://a", "rediss+cluster://a,b", "rediss+sentinel://a,b/m"] {
        let roots = with(&several, url).unwrap().cache.root_certificates.unwrap();
        assert_eq!(roots.pem(), several.as_bytes(), "{url}");
        assert_eq!(format!("{roots:?}"), format!("RootCertificates({name:?})"));
    }
    for url in ["redis://a", "redis+cluster://a,b", "redis+sentinel://a,b/m", "redis+unix:///a"] {
        let message = complaint(with(AUTHORITY, url));
        assert!(message.contains("is for TLS, and cache.url asks for none"), "{message}");
        assert!(message.contains(name), "{message}");
    }
    let broken = several.replacen("MIIBbjCC", "SENTINEL", 2).replacen("SENTINEL", "MIIBbjCC", 1);
    for (pem, fault) in [
        ("", "has no certificate in PEM in it"),
        (&AUTHORITY.replace(" CERTIFICATE", " PRIVATE KEY"), "has no certificate in PEM in it"),
        (&broken, "is broken at its certificate 2"),
        (&several.replace("-----END", "SENTINEL"), "is broken at its certificate 1"),
    ] {
        let message = complaint(with(pem, "rediss://a"));
        assert!(message.contains(fault) && message.contains(name), "{message}");
        assert!(!message.contains("SENTINEL"), "{message}");
    }
    // A URL that is wrong may be meant to be an encrypted one.
    let message = complaint(with(AUTHORITY, "http://a"));
    assert!(message.starts_with("cache.url"), "{message}");
    // Left empty, nothing is read.
    let none = from_environment(&[("CONTENTFLOW_CACHE__ROOT_CERTIFICATES", "")]).unwrap();
    assert!(none.cache.root_certificates.is_none());
}
