//! The rules for connection strings: an allow-list, because an option can be a way in. `authMechanism=MONGODB-OIDC`
//! would send a pod's token to the string's host, `tlsCertificateKeyFile` could name another sync's file.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mongodb::options::{AuthMechanism, ClientOptions, ConnectionString, Credential, Tls, TlsOptions};

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
const MECHANISMS: [&str; 3] = ["SCRAM-SHA-1", "SCRAM-SHA-256", "MONGODB-X509"];

/// How long a server may take to be found, unless the string says otherwise.
const SERVER_SELECTION: Duration = Duration::from_secs(5);

/// How long a connection may take, unless the string says otherwise.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an operation may take, unless the user says otherwise. A transaction lives for 60 s at most.
const OPERATION: Duration = Duration::from_secs(75);

/// Connections: lanes, partitions, cursors and housekeeping together stay far below.
const POOL: u32 = 64;

/// Why a connection string is refused. Never holds the string itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UriError(String);

/// Which member to read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadPreference {
    /// Only the primary.
    Primary,
    /// The primary, or a secondary where there is none.
    PrimaryPreferred,
    /// Only a secondary.
    Secondary,
    /// A secondary, or the primary where there is none.
    #[default]
    SecondaryPreferred,
    /// The nearest member.
    Nearest,
}

/// A user of the database. Debug output hides the password.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password; empty for X.509.
    pub password: String,
    /// Where the user is defined; default `admin`.
    pub auth_source: Option<String>,
    /// `SCRAM-SHA-1`, `SCRAM-SHA-256` or `MONGODB-X509`; default negotiated.
    pub auth_mechanism: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How to reach a replica set. Debug output shows hosts only.
#[derive(Clone)]
pub struct EndpointConfig {
    uri: String,
    hosts: String,
    read_preference: ReadPreference,
    credentials: Option<Credentials>,
    /// The private CA in memory: the driver takes paths only, and a file would survive a kill.
    ca: Option<Arc<File>>,
    /// Client certificate and key, likewise, and the key's password.
    certificate: Option<(Arc<File>, Option<String>)>,
    operation_timeout: Duration,
    avoid: Vec<Feature>,
}

/// What a source may not offer; the engine has another way for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Updates as the oplog has them; else each updated document is read again.
    RawUpdates,
    /// The whole catalogue at one time; else it is listed collection by collection.
    ListCatalog,
}

impl fmt::Debug for EndpointConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointConfig").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl EndpointConfig {
    /// Parse a connection string. `inline_credentials` allows `user:password@`, which only a string out of a
    /// Secret or a flag may have.
    pub fn parse(uri: &str, inline_credentials: bool) -> Result<Self, UriError> {
        let uri = uri.trim();
        let rest = uri.strip_prefix("mongodb://").or_else(|| uri.strip_prefix("mongodb+srv://")).ok_or_else(
            || UriError("the connection string must begin with mongodb:// or mongodb+srv://".to_owned()),
        )?;
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
        Ok(Self {
            uri: clean,
            hosts: hosts.to_owned(),
            read_preference: ReadPreference::default(),
            credentials: None,
            ca: None,
            certificate: None,
            operation_timeout: OPERATION,
            avoid: Vec::new(),
        })
    }

    /// With credentials kept apart from the string.
    pub fn with_credentials(mut self, credentials: Credentials) -> Result<Self, UriError> {
        if let Some(mechanism) = &credentials.auth_mechanism
            && !MECHANISMS.contains(&mechanism.as_str())
        {
            return Err(UriError(format!("authMechanism is none of {}", MECHANISMS.join(", "))));
        }
        if self.uri.split('?').next().is_some_and(|address| address.contains('@')) {
            return Err(UriError(
                "credentials are given twice: in the connection string and apart from it".to_owned(),
            ));
        }
        if credentials.username.is_empty() && credentials.auth_mechanism.as_deref() != Some("MONGODB-X509") {
            return Err(UriError("the user name is empty".to_owned()));
        }
        self.credentials = Some(credentials);
        Ok(self)
    }

    /// With a private CA bundle (PEM) in place of the public ones; turns TLS on.
    pub fn with_ca(mut self, pem: &[u8]) -> Result<Self, UriError> {
        if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
            return Err(UriError("the CA bundle holds no certificate in PEM form".to_owned()));
        }
        self.ca = Some(in_memory(pem)?);
        Ok(self)
    }

    /// With a client certificate and its key (PEM, one after the other); turns TLS on. A user is proved by it where
    /// the mechanism is `MONGODB-X509`.
    pub fn with_client_certificate(mut self, pem: &[u8], password: Option<&str>) -> Result<Self, UriError> {
        let holds = |mark: &[u8]| pem.windows(mark.len()).any(|window| window == mark);
        if !holds(b"-----BEGIN CERTIFICATE-----") || !holds(b"PRIVATE KEY-----") {
            return Err(UriError("no client certificate with its key in PEM form".to_owned()));
        }
        self.certificate = Some((in_memory(pem)?, password.map(str::to_owned)));
        Ok(self)
    }

    /// With another bound for how long an operation may take than 75 s.
    #[must_use]
    pub fn with_operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Do without a feature although the server offers it.
    #[must_use]
    pub fn without(mut self, feature: Feature) -> Self {
        self.avoid.push(feature);
        self
    }

    /// What is done without.
    pub fn avoided(&self) -> &[Feature] {
        &self.avoid
    }

    /// How long an operation may take.
    pub fn operation_timeout(&self) -> Duration {
        self.operation_timeout
    }

    /// With a read preference for the clone and the change stream.
    #[must_use]
    pub fn with_read_preference(mut self, read_preference: ReadPreference) -> Self {
        self.read_preference = read_preference;
        self
    }

    /// The read preference.
    pub fn read_preference(&self) -> ReadPreference {
        self.read_preference
    }

    /// The seed hosts, for messages: never credentials.
    pub fn hosts(&self) -> String {
        self.hosts.clone()
    }

    /// The driver's options (name lookup for `mongodb+srv` happens here).
    pub async fn client_options(&self) -> Result<ClientOptions, UriError> {
        let parsed = ClientOptions::parse(&self.uri).await;
        let mut options = parsed.map_err(|error| UriError(describe(&error)))?;
        if options.load_balanced == Some(true) {
            return Err(UriError("load balancers are not supported".to_owned()));
        }
        options.app_name = Some("clustersync".to_owned());
        options.server_selection_timeout.get_or_insert(SERVER_SELECTION);
        options.connect_timeout.get_or_insert(CONNECT);
        options.max_pool_size = Some(POOL);
        if self.ca.is_some() || self.certificate.is_some() {
            let mut tls = TlsOptions::default();
            tls.ca_file_path = self.ca.as_deref().map(path);
            if let Some((file, password)) = &self.certificate {
                tls.cert_key_file_path = Some(path(file));
                tls.tls_certificate_key_file_password =
                    password.as_ref().map(|text| text.as_bytes().to_vec());
            }
            options.tls = Some(Tls::Enabled(tls));
        }
        if let Some(credentials) = &self.credentials {
            options.credential = Some(credential(credentials));
        }
        Ok(options)
    }
}

/// Kept in memory: the driver takes paths only, and a file would survive a kill.
fn in_memory(pem: &[u8]) -> Result<Arc<File>, UriError> {
    let keep = || UriError("TLS material could not be kept in memory".to_owned());
    let memory = rustix::fs::memfd_create("tls.pem", rustix::fs::MemfdFlags::CLOEXEC).map_err(|_| keep())?;
    let mut file = File::from(memory);
    file.write_all(pem).map_err(|_| keep())?;
    Ok(Arc::new(file))
}

fn path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn credential(credentials: &Credentials) -> Credential {
    let mechanism = credentials.auth_mechanism.as_deref().map(|mechanism| match mechanism {
        "MONGODB-X509" => AuthMechanism::MongoDbX509,
        "SCRAM-SHA-1" => AuthMechanism::ScramSha1,
        _ => AuthMechanism::ScramSha256,
    });
    let x509 = mechanism == Some(AuthMechanism::MongoDbX509);
    let mut credential = Credential::default();
    credential.username = Some(credentials.username.clone()).filter(|name| !name.is_empty());
    credential.password = (!x509).then(|| credentials.password.clone());
    credential.source = Some(if x509 {
        "$external".to_owned()
    } else {
        credentials.auth_source.clone().unwrap_or_else(|| "admin".to_owned())
    });
    credential.mechanism = mechanism;
    credential
}

/// What is wrong with a string that the driver refuses, without the string.
fn describe(error: &mongodb::error::Error) -> String {
    match error.kind.as_ref() {
        mongodb::error::ErrorKind::DnsResolve { .. } => "its name does not resolve (mongodb+srv)".to_owned(),
        _ => "the driver cannot use the connection string; check its hosts, ports and options".to_owned(),
    }
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

    #[tokio::test]
    async fn a_ca_becomes_a_path_to_memory() {
        let pem = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_vec();
        let config = EndpointConfig::parse("mongodb://h/", false).unwrap().with_ca(&pem).unwrap();
        let options = config.client_options().await.unwrap();
        let Some(Tls::Enabled(tls)) = options.tls else { panic!("no TLS") };
        assert_eq!(std::fs::read(tls.ca_file_path.unwrap()).unwrap(), pem);
        assert!(EndpointConfig::parse("mongodb://h/", false).unwrap().with_ca(b"nonsense").is_err());
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
