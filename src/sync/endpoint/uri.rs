//! The rules for connection strings: an allow-list, because an option can be a way in. `authMechanism=MONGODB-OIDC`
//! would send a pod's token to the string's host, `tlsCertificateKeyFile` could name another sync's file.

use mongodb::options::ConnectionString;

/// Options that cannot reach anything but the named hosts.
const ALLOWED: &[&str] = &[
    "appname",
    "authmechanism",
    "authsource",
    "compressors",
    "connecttimeoutms",
    "directconnection",
    "heartbeatfrequencyms",
    "journal",
    "localthresholdms",
    "maxidletimems",
    "maxpoolsize",
    "maxstalenessseconds",
    "minpoolsize",
    "readconcernlevel",
    "readpreference",
    "replicaset",
    "retryreads",
    "retrywrites",
    "serverselectiontimeoutms",
    "sockettimeoutms",
    "ssl",
    "tls",
    "w",
    "waitqueuetimeoutms",
    "wtimeoutms",
    "zlibcompressionlevel",
];

/// Options that the engine decides itself; strings that providers hand out carry them.
const IGNORED: &[&str] = &[
    "journal",
    "localthresholdms",
    "maxstalenessseconds",
    "minpoolsize",
    "readconcernlevel",
    "readpreference",
    "retryreads",
    "retrywrites",
    "sockettimeoutms",
    "w",
    "waitqueuetimeoutms",
    "wtimeoutms",
    "maxpoolsize",
];

/// Mechanisms that prove a password or a certificate to the named hosts only.
pub(super) const MECHANISMS: [&str; 3] = ["SCRAM-SHA-1", "SCRAM-SHA-256", X509];

/// The client certificate is the login.
pub(super) const X509: &str = "MONGODB-X509";

/// Why a connection string is refused. Never holds the string itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UriError(pub(super) String);

/// A connection string that follows the rules.
#[derive(Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The string as the driver is given it; may hold credentials.
    pub uri: String,
    /// Its hosts, for messages.
    pub hosts: String,
}

/// Check a connection string. `inline_credentials` allows `user:password@`.
pub fn accept(uri: &str, inline_credentials: bool) -> Result<Accepted, UriError> {
    let uri = uri.trim();
    let rest =
        uri.strip_prefix("mongodb://").or_else(|| uri.strip_prefix("mongodb+srv://")).ok_or_else(|| {
            UriError("the connection string must begin with mongodb:// or mongodb+srv://".to_owned())
        })?;
    let (before_query, query) = rest.split_once('?').unwrap_or((rest, ""));
    if query.contains('@') {
        return Err(UriError(
            "the connection string has an '@' among its options; encode it as %40".to_owned(),
        ));
    }
    let (authority, _) = before_query.split_once('/').unwrap_or((before_query, ""));
    let (user, hosts) = match before_query.rsplit_once('@') {
        Some((user, _)) => {
            let hosts = before_query[user.len() + 1..].split('/').next().unwrap_or_default();
            (Some(user), hosts)
        }
        None => (None, authority),
    };
    if user.is_some() && !inline_credentials {
        return Err(UriError("credentials belong in a Secret, not in the connection string".to_owned()));
    }
    if user.is_some_and(|user| user.contains(['/', '@'])) {
        return Err(UriError(
            "the user name or password has a character that must be percent-encoded".to_owned(),
        ));
    }
    if hosts.is_empty() || hosts.split(',').any(str::is_empty) {
        return Err(UriError("the connection string names no host".to_owned()));
    }
    let lower = hosts.to_ascii_lowercase();
    if lower.contains("%2f") || lower.split(',').any(|host| host.strip_suffix(".sock").is_some()) {
        return Err(UriError("UNIX sockets are not supported".to_owned()));
    }
    let kept = check_options(query)?;
    let path = before_query.rsplit_once('@').map_or(before_query, |(_, after)| after);
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let scheme = if uri.starts_with("mongodb+srv://") { "mongodb+srv" } else { "mongodb" };
    let user_part = user.map(|user| format!("{user}@")).unwrap_or_default();
    let clean = format!("{scheme}://{user_part}{hosts}/{path}?{kept}");
    let clean = clean.trim_end_matches('?').to_owned();
    // The driver's own reading, here rather than at the first connection: ports and values of options.
    if ConnectionString::parse(&clean).is_err() {
        return Err(UriError(
            "the connection string has a host, port or option value that is not valid".to_owned(),
        ));
    }
    Ok(Accepted { uri: clean, hosts: hosts.to_owned() })
}

/// Check the options and return those that the driver is given.
fn check_options(query: &str) -> Result<String, UriError> {
    let mut seen: Vec<String> = Vec::new();
    let mut kept: Vec<String> = Vec::new();
    for option in query.split(['&', ';']).filter(|option| !option.is_empty()) {
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| UriError("an option of the connection string has no value".to_owned()))?;
        let lower = name.to_ascii_lowercase();
        if !name.chars().all(|character| character.is_ascii_alphanumeric()) {
            return Err(UriError("an option's name has a character that no option has".to_owned()));
        }
        if !ALLOWED.contains(&lower.as_str()) {
            return Err(UriError(format!(
                "the option '{}' is not allowed in a connection string",
                printable(name)
            )));
        }
        if seen.contains(&lower)
            || (lower == "ssl" && seen.iter().any(|s| s == "tls"))
            || (lower == "tls" && seen.iter().any(|s| s == "ssl"))
        {
            return Err(UriError(format!("the option '{}' is given twice", printable(name))));
        }
        if lower == "authmechanism" && !MECHANISMS.contains(&value) {
            return Err(UriError(format!("authMechanism is none of {}", MECHANISMS.join(", "))));
        }
        if !IGNORED.contains(&lower.as_str()) {
            kept.push(format!("{name}={value}"));
        }
        seen.push(lower);
    }
    Ok(kept.join("&"))
}

fn printable(name: &str) -> String {
    name.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::endpoint::EndpointConfig;
    use proptest::prelude::*;

    fn refused(uri: &str) -> String {
        EndpointConfig::parse(uri, true).unwrap_err().to_string()
    }

    #[test]
    fn ordinary_strings_are_accepted() {
        for uri in [
            "mongodb://127.0.0.1:27017",
            "mongodb://a:1,b:2/?replicaSet=rs0",
            "mongodb+srv://cluster0.example.net/?retryWrites=true&w=majority&appName=Cluster0",
            "mongodb://[::1]:27017/db?tls=true&authSource=admin",
        ] {
            assert!(EndpointConfig::parse(uri, false).is_ok(), "{uri}");
        }
        assert!(EndpointConfig::parse("mongodb://u:p%40ss@h/", true).is_ok());
    }

    #[test]
    fn ways_in_are_refused_by_name() {
        for option in [
            "tlsInsecure=true",
            "tlsAllowInvalidCertificates=true",
            "tlsCAFile=/etc/x",
            "tlsCertificateKeyFile=/etc/x",
            "TLSCERTIFICATEKEYFILE=/etc/x",
            "authMechanismProperties=ENVIRONMENT:k8s",
            "proxyHost=evil",
            "loadBalanced=true",
            "srvServiceName=x",
        ] {
            let message = refused(&format!("mongodb://h/?{option}"));
            assert!(message.contains(option.split('=').next().unwrap()), "{message}");
            assert!(!message.contains("/etc/x") && !message.contains("evil"), "{message}");
        }
        for mechanism in ["MONGODB-OIDC", "MONGODB-AWS", "GSSAPI", "PLAIN", "MONGODB%2DOIDC", "mongodb-oidc"]
        {
            assert!(refused(&format!("mongodb://h/?authMechanism={mechanism}")).contains("authMechanism"));
        }
        assert!(refused("mongodb://h/?tls=true&tls=false").contains("twice"));
        assert!(refused("mongodb://h/?tls%49nsecure=true").contains("character"));
        assert!(refused("mongodb://%2Ftmp%2Fmongodb.sock/").contains("socket"));
        assert!(refused("http://h/").contains("mongodb://"));
        for value in [
            "mongodb://h:99999/",
            "mongodb://h/?tls=perhaps",
            "mongodb://h/?connectTimeoutMS=x",
            "mongodb://user:hunter2",
        ] {
            let message = refused(value);
            assert!(message.contains("not valid") && !message.contains("hunter2"), "{value}: {message}");
        }
        assert!(EndpointConfig::parse("mongodb://db.sockets.example.com/", false).is_ok());
    }

    #[test]
    fn credentials_stay_out_of_plain_strings_and_of_debug_output() {
        assert!(
            EndpointConfig::parse("mongodb://u:hunter2@h/", false)
                .unwrap_err()
                .to_string()
                .contains("Secret")
        );
        let config = EndpointConfig::parse("mongodb://u:hunter2@h:1/", true).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
        assert_eq!(config.hosts(), "h:1");
    }

    proptest! {
        #[test]
        fn a_password_never_shows(password in "[a-zA-Z0-9]{12,20}", tail in "[ -~]{0,20}") {
            let uri = format!("mongodb://user:{password}@host{tail}");
            match EndpointConfig::parse(&uri, true) {
                Ok(config) => {
                    let shown = format!("{config:?}");
                    prop_assert!(!shown.contains(&password));
                }
                Err(error) => prop_assert!(!error.to_string().contains(&password)),
            }
        }

        #[test]
        fn unknown_options_are_refused_in_any_case(name in "[a-zA-Z]{3,20}") {
            let uri = format!("mongodb://h/?{name}=1");
            prop_assume!(!ALLOWED.contains(&name.to_ascii_lowercase().as_str()));
            prop_assert!(EndpointConfig::parse(&uri, false).is_err());
        }
    }
}
