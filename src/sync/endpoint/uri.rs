//! The rules for connection strings: an allow-list, because an option can be a way in.

use mongodb::options::ClientOptions;

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

/// How to reach a replica set. Debug output shows hosts only.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    read_preference: ReadPreference,
}

impl EndpointConfig {
    /// Parse a connection string. `inline_credentials` allows `user:password@`, which only a string out of a
    /// Secret or a flag may have.
    pub fn parse(uri: &str, inline_credentials: bool) -> Result<Self, UriError> {
        let _ = (uri, inline_credentials);
        Ok(Self { read_preference: ReadPreference::default() })
    }

    /// With credentials kept apart from the string.
    pub fn with_credentials(self, credentials: Credentials) -> Result<Self, UriError> {
        let _ = credentials;
        Ok(self)
    }

    /// With a private CA bundle (PEM) in place of the public ones; turns TLS on.
    pub fn with_ca(self, pem: Vec<u8>) -> Result<Self, UriError> {
        let _ = pem;
        Ok(self)
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
        String::new()
    }

    /// The driver's options (name lookup for `mongodb+srv` happens here).
    pub async fn client_options(&self) -> Result<ClientOptions, UriError> {
        Err(UriError("not there yet".to_owned()))
    }
}
