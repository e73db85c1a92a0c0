//! Secrets are never shown.

use super::*;

#[test]
fn a_secret_is_shown_without_its_password() {
    let cases = [
        ("postgres://user:SENTINEL@host:5432/db", "postgres://user:***@host:5432/db"),
        ("postgres://user@host/db?sslmode=require", "postgres://user@host/db?sslmode=require"),
        ("postgres://user@host/db?password=SENTINEL", "postgres://user@host/db?password=***"),
        (
            "postgres://user@host/db?sslmode=require&p%61ssword=SENTINEL",
            "postgres://user@host/db?sslmode=require&***",
        ),
        ("postgres://user:p%40SENTINEL@host/db", "postgres://user:***@host/db"),
        ("postgres://user:SEN@TI/NEL@host/db", "postgres://user:***@host/db"),
        ("postgres://user:SEN?TINEL@host/db", "postgres://***"),
        ("postgres://user@host/db?password=SEN@TINEL", "postgres://***"),
        ("postgres://user:SENTINEL", "postgres://***"),
        ("postgres://u:SENTINEL@a:1,b:2/db", "postgres://u:***@a:1,b:2/db"),
        ("redis://:SENTINEL@host:6379/0", "redis://:***@host:6379/0"),
        ("rediss://user:SENTINEL@[::1]:6379/0", "rediss://user:***@[::1]:6379/0"),
        ("redis+cluster://u:SENTINEL@a:1,b:2", "redis+cluster://u:***@a:1,b:2"),
        (
            "rediss+sentinel://:SENTINEL@a,b:2/m/0?sentinel_password=SENTINEL",
            "rediss+sentinel://:***@a,b:2/m/0?***",
        ),
        ("host=a user=b password=SENTINEL", "***"),
        ("SENTINEL", "***"),
    ];
    for (url, shown) in cases {
        let secret = Secret::new(url);
        assert_eq!(secret.to_string(), shown);
        assert_eq!(format!("{secret:?}"), format!("Secret({shown})"));
        assert_eq!(secret.expose(), url);
    }
}

#[test]
fn the_configuration_shows_no_secret_of_a_property() {
    let config = from_environment(&[
        ("CONTENTFLOW_KAFKA__PROPERTIES__SASL_PASSWORD", "SENTINEL"),
        ("CONTENTFLOW_KAFKA__PROPERTIES__SSL_KEY_PASSWORD", "SENTINEL"),
        ("DATABASE_URL", "postgres://a:SENTINEL@b/c"),
        ("REDIS_URL", "redis://:SENTINEL@b"),
        ("CONTENTFLOW_HTTP__TOKEN", "SENTINEL-SENTINEL"),
    ]);
    let shown = format!("{:?}", config.unwrap());
    assert!(shown.contains("sasl.password") && !shown.contains("SENTINEL"), "{shown}");
}

#[test]
fn no_error_shows_what_may_be_a_secret_of_a_property() {
    for name in [
        "sasl.pasword",
        "SASL.PASSWORD",
        "ssl.kye.pem",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
    ] {
        for value in ["'SENTINEL'", "['SENTINEL']"] {
            let refused = from_file(&format!("[kafka.properties]\n'{name}' = {value}\n"));
            let shown = refused
                .map_or_else(|error| format!("{error} {error:?}"), |config| format!("{config:?}"));
            assert!(shown.contains(name) && !shown.contains("SENTINEL"), "{shown}");
        }
    }
    let message = complaint(from_file("[kafka.properties]\n'linger.ms' = 'soon'\n"));
    assert!(message.contains("kafka.properties.linger.ms = \"soon\""), "{message}");
}

proptest! {
    /// Whatever a password is made of, escaped or not, and wherever it stands, neither the secret
    /// nor an error about it shows it.
    #[test]
    fn no_password_is_ever_shown(noise in "[ -~]{0,12}", scheme in "(postgres|rediss?(\\+(cluster|sentinel))?|http|x)", place in 0..7) {
        let password = format!("SENTI{noise}NEL");
        let escaped: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = match place {
            0 => format!("{scheme}://user:{password}@host:1/db"),
            1 => format!("{scheme}://user:{escaped}@host:1/db"),
            2 => format!("{scheme}://user@host/db?password={password}&sslmode=require"),
            3 => format!("{scheme}://:{password}@host"),
            4 => format!("{scheme}://user@host/db?sslmode=require&password={password}"),
            5 => format!("{scheme}://host,other/db?sentinel_password={password}"),
            // With an @ in it, this would be a URL with a host.
            _ => format!("{scheme}://user:{}", password.replace('@', "")),
        };
        let secret = Secret::new(&url);
        let mut shown = format!("{secret} {secret:?}");
        for variable in ["DATABASE_URL", "REDIS_URL", "CONTENTFLOW_DATABASE__URL", "CONTENTFLOW_CACHE__URL"] {
            match from_environment(&[(variable, &url)]) {
                Ok(config) => shown.push_str(&format!("{config:?}")),
                Err(error) => shown.push_str(&format!("{error} {error:?}")),
            }
        }
        for part in ["SENTI", "NEL", escaped.as_str()] {
            prop_assert!(!shown.contains(part), "{part} of {url} in {shown}");
        }
    }
}
