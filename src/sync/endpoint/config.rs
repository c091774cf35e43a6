//! How to reach a replica set: a connection string with what is kept apart from it.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mongodb::options::{AuthMechanism, ClientOptions, Compressor, Credential, Tls, TlsOptions};

use super::uri::{Accepted, MECHANISMS, UriError, X509, accept};

/// How long a server may take to be found, unless the string says otherwise.
const SERVER_SELECTION: Duration = Duration::from_secs(5);

/// How long a connection may take, unless the string says otherwise.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an operation may take, unless the user says otherwise. A transaction lives for 60 s at most.
const OPERATION: Duration = Duration::from_secs(75);

/// Connections: lanes, partitions, cursors and housekeeping together stay far below.
const POOL: u32 = 64;

/// Compression of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// The best ratio for its cost.
    Zstd,
    /// The least CPU.
    Snappy,
    /// What every server knows.
    Zlib,
}

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
    /// Whether TLS is on whatever the string says.
    tls: bool,
    /// The private CA in memory: the driver takes paths only, and a file would survive a kill.
    ca: Option<Arc<File>>,
    /// Client certificate and key, likewise, and the key's password.
    certificate: Option<(Arc<File>, Option<String>)>,
    compression: Vec<Compression>,
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
        let Accepted { uri, hosts } = accept(uri, inline_credentials)?;
        Ok(Self {
            uri,
            hosts,
            read_preference: ReadPreference::default(),
            credentials: None,
            tls: false,
            ca: None,
            certificate: None,
            compression: Vec::new(),
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
        if credentials.username.is_empty() && credentials.auth_mechanism.as_deref() != Some(X509) {
            return Err(UriError("the user name is empty".to_owned()));
        }
        self.credentials = Some(credentials);
        Ok(self)
    }

    /// With TLS, although the string may not speak of it.
    pub fn with_tls(mut self) -> Result<Self, UriError> {
        let off = |name: &&str| self.option(name).is_some_and(|value| value == "false");
        if let Some(name) = ["tls", "ssl"].iter().find(|name| off(name)) {
            return Err(UriError(format!("{name}=false turns TLS off, and the tls settings turn it on")));
        }
        self.tls = true;
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

    /// With compression, in order of preference; none leaves what the string says.
    #[must_use]
    pub fn with_compression(mut self, compression: &[Compression]) -> Self {
        self.compression = compression.to_vec();
        self
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

    /// What only the whole tells: a login by certificate needs one. To be called when all is put together.
    pub fn checked(self) -> Result<Self, UriError> {
        let apart = self.credentials.as_ref().and_then(|credentials| credentials.auth_mechanism.as_deref());
        let mechanism = apart.or_else(|| self.option("authMechanism"));
        if mechanism == Some(X509) && self.certificate.is_none() {
            return Err(UriError(format!("authMechanism {X509} needs a client certificate")));
        }
        Ok(self)
    }

    /// What the string says of an option.
    fn option(&self, name: &str) -> Option<&str> {
        let options = self.uri.split(['?', '&']).skip(1).filter_map(|option| option.split_once('='));
        options.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
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
        if self.tls || self.ca.is_some() || self.certificate.is_some() {
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
        if !self.compression.is_empty() {
            options.compressors = Some(self.compression.iter().copied().map(compressor).collect());
        }
        Ok(options)
    }
}

fn compressor(compression: Compression) -> Compressor {
    match compression {
        Compression::Zstd => Compressor::Zstd { level: None },
        Compression::Snappy => Compressor::Snappy,
        Compression::Zlib => Compressor::Zlib { level: None },
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
        X509 => AuthMechanism::MongoDbX509,
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

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

    #[tokio::test]
    async fn a_ca_becomes_a_path_to_memory() {
        let config = EndpointConfig::parse("mongodb://h/", false).unwrap().with_ca(CERTIFICATE).unwrap();
        let options = config.client_options().await.unwrap();
        let Some(Tls::Enabled(tls)) = options.tls else { panic!("no TLS") };
        assert_eq!(std::fs::read(tls.ca_file_path.unwrap()).unwrap(), CERTIFICATE);
        assert!(EndpointConfig::parse("mongodb://h/", false).unwrap().with_ca(b"nonsense").is_err());
    }

    #[tokio::test]
    async fn tls_is_turned_on_apart_from_the_string() {
        let with_tls = |uri: &str| EndpointConfig::parse(uri, false).unwrap().with_tls();
        let options = with_tls("mongodb://h/").unwrap().client_options().await.unwrap();
        let Some(Tls::Enabled(tls)) = options.tls else { panic!("no TLS") };
        assert!(tls.ca_file_path.is_none(), "public authorities");
        assert!(with_tls("mongodb://h/?tls=true").is_ok());
        for off in ["tls=false", "retryReads=true&SSL=false"] {
            let refused = with_tls(&format!("mongodb://h/?{off}")).unwrap_err().to_string();
            assert!(refused.contains("turns TLS off"), "{refused}");
        }
    }

    #[test]
    fn a_login_by_certificate_needs_one() {
        let uri = "mongodb+srv://h.example.net/?authSource=%24external&authMechanism=MONGODB-X509";
        let by_string = EndpointConfig::parse(uri, false).unwrap();
        assert!(by_string.clone().checked().unwrap_err().to_string().contains("client certificate"));
        let login = Credentials {
            username: String::new(),
            password: String::new(),
            auth_source: None,
            auth_mechanism: Some(X509.to_owned()),
        };
        let apart = EndpointConfig::parse("mongodb://h/", false).unwrap().with_credentials(login).unwrap();
        assert!(apart.clone().checked().is_err());
        let pem = [CERTIFICATE, b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"].concat();
        for endpoint in [by_string, apart] {
            assert!(endpoint.with_client_certificate(&pem, None).unwrap().checked().is_ok());
        }
    }

    #[tokio::test]
    async fn compression_apart_from_the_string_wins() {
        let config = EndpointConfig::parse("mongodb://h/?compressors=zlib", false).unwrap();
        let of_string = config.client_options().await.unwrap().compressors.unwrap();
        assert!(matches!(of_string[..], [Compressor::Zlib { .. }]));
        let config = config.with_compression(&[Compression::Zstd, Compression::Snappy]);
        let apart = config.client_options().await.unwrap().compressors.unwrap();
        assert!(matches!(apart[..], [Compressor::Zstd { .. }, Compressor::Snappy]));
    }
}
