//! How the resource names the two replica sets and their secrets.

// `kubectl explain` shows these texts as they are: no backticks.
#![allow(clippy::doc_markdown)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// The replica set that is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_URI)]
pub struct SourceSpec {
    /// Connection string without credentials, for example "mongodb+srv://cluster0.example.net" or
    /// "mongodb://a.example:27017,b.example:27017/?replicaSet=rs0". Hosts may change later; the replica set
    /// behind them may not. Set this or uriSecretRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^mongodb(\+srv)?://.+"))]
    #[x_kube(validation = rules::NO_CREDENTIALS_IN_URI)]
    pub uri: Option<String>,
    /// Key of a Secret that holds the connection string, which may include credentials. Set this or uri.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_secret_ref: Option<SecretKeyRef>,
    /// Secret with the keys username and password, and optionally authSource (default admin) and
    /// authMechanism (SCRAM-SHA-256 or SCRAM-SHA-1; default negotiated). With authMechanism MONGODB-X509 the
    /// client certificate is the login: no password, and tls.clientCertSecretRef is required. The user needs the roles
    /// readAnyDatabase and clusterMonitor. A change is picked up within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// TLS settings. TLS itself is turned on by this block, by "mongodb+srv://" or by "tls=true" in the uri.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// See [`ReadPreference`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_preference: Option<ReadPreference>,
    /// Compression offered to the servers, in order of preference; they take the first that they know. Default
    /// none. It costs CPU here and on the server: worth it on a link slower than about 1 Gbit/s. In place of what
    /// the connection string says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub compressors: Vec<Compressor>,
}

/// The replica set that is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_URI)]
pub struct TargetSpec {
    /// Connection string without credentials. Immutable; keep the string in a Secret (uriSecretRef) if its
    /// hosts may change. Set this or uriSecretRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = r"^mongodb(\+srv)?://.+"))]
    #[x_kube(validation = rules::NO_CREDENTIALS_IN_URI)]
    pub uri: Option<String>,
    /// Key of a Secret that holds the connection string, which may include credentials. Immutable; the
    /// Secret's content may change as long as it names the same replica set. Set this or uri.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri_secret_ref: Option<SecretKeyRef>,
    /// Secret with the keys username and password, and optionally authSource (default admin) and
    /// authMechanism (SCRAM-SHA-256 or SCRAM-SHA-1; default negotiated). With authMechanism MONGODB-X509 the
    /// client certificate is the login: no password, and tls.clientCertSecretRef is required. The user needs the roles
    /// readWriteAnyDatabase, clusterMonitor and restore. A change is picked up within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretRef>,
    /// TLS settings. TLS itself is turned on by this block, by "mongodb+srv://" or by "tls=true" in the uri.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Compression offered to the servers, in order of preference; they take the first that they know. Default
    /// none. It costs CPU here and on the server: worth it on a link slower than about 1 Gbit/s. In place of what
    /// the connection string says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub compressors: Vec<Compressor>,
}

/// A Secret in the namespace of the resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret. It must be in the namespace of the ClusterSync.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// One key of a Secret in the namespace of the resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret. It must be in the namespace of the ClusterSync.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Key within it, for example "uri".
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// One key of a ConfigMap or Secret, with a usual name for the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaKeyRef {
    /// Name of the object. It must be in the namespace of the ClusterSync.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Key within it. Default "ca.crt".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: Option<String>,
}

/// TLS settings of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Certificate authorities (PEM) to trust in place of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<CertificateAuthority>,
    /// Secret with a client certificate: the keys tls.crt and tls.key (PEM, as in Secrets of type kubernetes.io/tls),
    /// and tls.keyPassword if the key is encrypted. Shown to servers that ask for one; it is the login where
    /// authMechanism is MONGODB-X509.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_cert_secret_ref: Option<SecretRef>,
}

/// Where a CA bundle is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::ONE_CA)]
pub struct CertificateAuthority {
    /// A Secret that holds the bundle. Set this or configMapRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<CaKeyRef>,
    /// A ConfigMap that holds the bundle. Set this or secretRef.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<CaKeyRef>,
}

/// Which member to read from. Default SecondaryPreferred, which spares the primary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

/// Compression of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compressor {
    /// The best ratio for its cost.
    Zstd,
    /// The least CPU.
    Snappy,
    /// What every server knows.
    Zlib,
}
