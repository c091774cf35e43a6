//! Spec and Secrets → configuration: parsed once, so that what follows has one valid input.

use std::time::Duration;

use crate::api::endpoint::{Compressor, ReadPreference as ApiReadPreference, SecretKeyRef, SecretRef, Tls};
use crate::api::spec::ReplicationSpec;
use crate::api::{ClusterSync, ClusterSyncSpec, OnExistingData as ApiOnExistingData, State};
use crate::sync::config::{
    DEFAULT_METADATA_DATABASE, Holder, InitialSync, Limits, OnExistingData, Replication, SyncConfig,
};
use crate::sync::endpoint::{Compression, Credentials, EndpointConfig, ReadPreference};
use crate::sync::scope::Scope;
use crate::sync::{Desired, DesiredState};

use super::Unusable;
use super::references::{Fetched, Reference, ca_location};

/// Everything that a worker is built from. Two equal materials need no restart; what may change while a sync
/// runs ([`desired`]) is not in it. No `Debug`: it holds passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct Material {
    id: String,
    resource_uid: String,
    source: EndpointMaterial,
    target: EndpointMaterial,
    metadata_database: String,
    include: Vec<String>,
    exclude: Vec<String>,
    initial_sync: InitialSync,
    replication: Replication,
    limits: Limits,
}

#[derive(Clone, PartialEq, Eq)]
struct EndpointMaterial {
    /// For messages: where the string came from.
    origin: String,
    uri: String,
    /// The string came out of a Secret and may hold credentials.
    confidential: bool,
    login: Option<Login>,
    /// There is a block of TLS settings, however empty.
    tls: bool,
    ca: Option<Vec<u8>>,
    certificate: Option<Certificate>,
    compression: Vec<Compression>,
    read_preference: ReadPreference,
}

/// A client certificate with its key, one after the other.
#[derive(Clone, PartialEq, Eq)]
struct Certificate {
    origin: Reference,
    pem: Vec<u8>,
    key_password: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    origin: Reference,
    username: String,
    password: String,
    auth_source: Option<String>,
    auth_mechanism: Option<String>,
}

impl Material {
    /// Put spec and Secrets together.
    pub fn resolve(resource: &ClusterSync, fetched: &Fetched) -> Result<Self, Unusable> {
        let spec = &resource.spec;
        let uid = resource.metadata.uid.clone().unwrap_or_default();
        let source = EndpointMaterial::resolve(
            &EndpointRefs {
                path: "spec.source",
                uri: spec.source.uri.as_deref(),
                uri_secret: spec.source.uri_secret_ref.as_ref(),
                credentials: spec.source.credentials_secret_ref.as_ref(),
                tls: spec.source.tls.as_ref(),
                compressors: &spec.source.compressors,
                read_preference: read_preference(spec.source.read_preference.unwrap_or_default()),
            },
            fetched,
        )?;
        let target = EndpointMaterial::resolve(
            &EndpointRefs {
                path: "spec.target",
                uri: spec.target.uri.as_deref(),
                uri_secret: spec.target.uri_secret_ref.as_ref(),
                credentials: spec.target.credentials_secret_ref.as_ref(),
                tls: spec.target.tls.as_ref(),
                compressors: &spec.target.compressors,
                read_preference: ReadPreference::Primary,
            },
            fetched,
        )?;
        let scope = spec.scope.clone().unwrap_or_default();
        Ok(Self {
            id: sync_id(spec, &uid),
            resource_uid: uid,
            source,
            target,
            metadata_database: spec
                .metadata_database
                .clone()
                .unwrap_or_else(|| DEFAULT_METADATA_DATABASE.to_owned()),
            include: scope.include,
            exclude: scope.exclude,
            initial_sync: initial_sync(spec),
            replication: replication(spec),
            limits: limits(spec),
        })
    }

    /// The configuration of a worker that runs as `holder`.
    pub fn configuration(&self, holder: Holder) -> Result<SyncConfig, Unusable> {
        let scope = Scope::new(&self.include, &self.exclude)
            .map_err(|error| Unusable::invalid(format!("spec.scope: {error}")))?;
        Ok(SyncConfig {
            id: self.id.clone(),
            resource_uid: Some(self.resource_uid.clone()),
            source: self.source.parse()?,
            target: self.target.parse()?,
            metadata_database: self.metadata_database.clone(),
            scope,
            initial_sync: self.initial_sync.clone(),
            replication: self.replication.clone(),
            limits: self.limits.clone(),
            holder,
        })
    }
}

/// One endpoint's part of the spec; source and target differ in type only.
struct EndpointRefs<'a> {
    path: &'static str,
    uri: Option<&'a str>,
    uri_secret: Option<&'a SecretKeyRef>,
    credentials: Option<&'a SecretRef>,
    tls: Option<&'a Tls>,
    compressors: &'a [Compressor],
    read_preference: ReadPreference,
}

impl EndpointMaterial {
    fn resolve(refs: &EndpointRefs<'_>, fetched: &Fetched) -> Result<Self, Unusable> {
        let path = refs.path;
        let (origin, uri, confidential) = match (refs.uri, refs.uri_secret) {
            (Some(uri), None) => (format!("{path}.uri"), uri.to_owned(), false),
            (None, Some(secret)) => (
                format!("{path}.uriSecretRef: Secret {}, key {}", secret.name, secret.key),
                fetched.text(&secret.into(), &secret.key)?,
                true,
            ),
            _ => return Err(Unusable::invalid(format!("{path}: set exactly one of uri and uriSecretRef."))),
        };
        let login = refs.credentials.map(|secret| Login::resolve(secret, fetched)).transpose()?;
        let ca = match refs.tls.and_then(|tls| tls.ca.as_ref()) {
            None => None,
            Some(ca) => {
                let (reference, key) = ca_location(ca).ok_or_else(|| {
                    Unusable::invalid(format!(
                        "{path}.tls.ca: set exactly one of secretRef and configMapRef."
                    ))
                })?;
                Some(fetched.bytes(&reference, key)?.to_vec())
            }
        };
        let certificate = refs.tls.and_then(|tls| tls.client_cert_secret_ref.as_ref());
        let certificate = certificate.map(|secret| Certificate::resolve(secret, fetched)).transpose()?;
        let compression = refs.compressors.iter().copied().map(compression).collect();
        let (read_preference, tls) = (refs.read_preference, refs.tls.is_some());
        Ok(Self { origin, uri, confidential, login, tls, ca, certificate, compression, read_preference })
    }

    fn parse(&self) -> Result<EndpointConfig, Unusable> {
        let origin = &self.origin;
        let mut endpoint = EndpointConfig::parse(&self.uri, self.confidential)
            .map_err(|error| Unusable::invalid(format!("{origin}: {error}")))?;
        if let Some(login) = &self.login {
            endpoint = endpoint
                .with_credentials(login.credentials())
                .map_err(|error| Unusable::invalid(format!("{}: {error}", login.origin)))?;
        }
        if self.tls {
            endpoint =
                endpoint.with_tls().map_err(|error| Unusable::invalid(format!("{origin}: {error}")))?;
        }
        if let Some(ca) = &self.ca {
            endpoint = endpoint
                .with_ca(ca)
                .map_err(|error| Unusable::invalid(format!("{origin}, with tls.ca: {error}")))?;
        }
        if let Some(certificate) = &self.certificate {
            endpoint = endpoint
                .with_client_certificate(&certificate.pem, certificate.key_password.as_deref())
                .map_err(|error| Unusable::invalid(format!("{}: {error}", certificate.origin)))?;
        }
        let endpoint = endpoint.checked().map_err(|error| {
            Unusable::invalid(format!("{origin}: {error}: name its Secret in tls.clientCertSecretRef"))
        })?;
        Ok(endpoint.with_compression(&self.compression).with_read_preference(self.read_preference))
    }
}

impl Certificate {
    fn resolve(secret: &SecretRef, fetched: &Fetched) -> Result<Self, Unusable> {
        let origin = Reference::from(secret);
        let pem = [fetched.bytes(&origin, "tls.crt")?, b"\n", fetched.bytes(&origin, "tls.key")?].concat();
        let key_password = fetched.optional_text(&origin, "tls.keyPassword")?;
        Ok(Self { origin, pem, key_password })
    }
}

fn compression(compressor: Compressor) -> Compression {
    match compressor {
        Compressor::Zstd => Compression::Zstd,
        Compressor::Snappy => Compression::Snappy,
        Compressor::Zlib => Compression::Zlib,
    }
}

impl Login {
    fn resolve(secret: &SecretRef, fetched: &Fetched) -> Result<Self, Unusable> {
        let origin = Reference::from(secret);
        let auth_mechanism = fetched.optional_text(&origin, "authMechanism")?;
        // The certificate's subject is the name then, and the certificate the proof.
        let by_certificate = auth_mechanism.as_deref() == Some("MONGODB-X509");
        let text = |key| {
            if by_certificate {
                fetched.optional_text(&origin, key).map(Option::unwrap_or_default)
            } else {
                fetched.text(&origin, key)
            }
        };
        Ok(Self {
            username: text("username")?,
            password: text("password")?,
            auth_source: fetched.optional_text(&origin, "authSource")?,
            auth_mechanism,
            origin,
        })
    }

    fn credentials(&self) -> Credentials {
        Credentials {
            username: self.username.clone(),
            password: self.password.clone(),
            auth_source: self.auth_source.clone(),
            auth_mechanism: self.auth_mechanism.clone(),
        }
    }
}

/// What the user wants now.
pub fn desired(spec: &ClusterSyncSpec) -> Desired {
    let requests = spec.requests.clone().unwrap_or_default();
    Desired {
        state: match spec.state {
            State::Running => DesiredState::Running,
            State::Paused => DesiredState::Paused,
            State::Completed => DesiredState::Completed,
        },
        retry: requests.retry.unwrap_or_default(),
        restart: requests.restart.unwrap_or_default(),
    }
}

/// The key of the durable state: the UID, unless the user named one.
pub fn sync_id(spec: &ClusterSyncSpec, uid: &str) -> String {
    spec.sync_id.as_deref().filter(|id| !id.is_empty()).unwrap_or(uid).to_owned()
}

/// The part of a spec that a [`Material`] comes from: without what may change while a sync runs. Two specs with the same
/// part, and the same Secrets, make the same material.
pub fn part_of(spec: &ClusterSyncSpec) -> ClusterSyncSpec {
    let mut part =
        ClusterSyncSpec { state: State::default(), requests: None, deletion_policy: None, ..spec.clone() };
    if let Some(replication) = &mut part.replication {
        replication.max_lag_seconds = None;
    }
    // Absent and empty are the same.
    part.replication = part.replication.filter(|replication| *replication != ReplicationSpec::default());
    part
}

fn limits(spec: &ClusterSyncSpec) -> Limits {
    let wish = spec.limits.clone().unwrap_or_default();
    let number = |wish: Option<i32>| wish.and_then(|wish| u64::try_from(wish).ok()).unwrap_or(0);
    Limits {
        bytes_per_second: wish.bytes_per_second.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        max_source_latency: Duration::from_millis(number(wish.max_source_latency_ms)),
        max_replication_lag: Duration::from_secs(number(wish.max_replication_lag_seconds)),
    }
}

/// The lag above which a sync is `Lagging`, in seconds.
pub fn max_lag_seconds(spec: &ClusterSyncSpec) -> i64 {
    let wish = spec.replication.as_ref().and_then(|replication| replication.max_lag_seconds);
    seconds(wish, Replication::default().max_lag).as_secs().try_into().unwrap_or(i64::MAX)
}

fn initial_sync(spec: &ClusterSyncSpec) -> InitialSync {
    let wish = spec.initial_sync.clone().unwrap_or_default();
    InitialSync {
        on_existing_data: match wish.on_existing_data.unwrap_or_default() {
            ApiOnExistingData::Fail => OnExistingData::Fail,
            ApiOnExistingData::Drop => OnExistingData::Drop,
        },
        parallel_collections: count(wish.parallel_collections),
        readers_per_collection: count(wish.readers_per_collection),
        skip_unsupported: wish.skip_unsupported.unwrap_or(false),
    }
}

fn replication(spec: &ClusterSyncSpec) -> Replication {
    let wish = spec.replication.clone().unwrap_or_default();
    let default = Replication::default();
    Replication {
        lanes: count(wish.lanes),
        checkpoint_interval: seconds(wish.checkpoint_interval_seconds, default.checkpoint_interval),
        // Judged by the status alone ([`max_lag_seconds`]): a change of it must not restart the worker.
        max_lag: default.max_lag,
    }
}

fn read_preference(wish: ApiReadPreference) -> ReadPreference {
    match wish {
        ApiReadPreference::Primary => ReadPreference::Primary,
        ApiReadPreference::PrimaryPreferred => ReadPreference::PrimaryPreferred,
        ApiReadPreference::Secondary => ReadPreference::Secondary,
        ApiReadPreference::SecondaryPreferred => ReadPreference::SecondaryPreferred,
        ApiReadPreference::Nearest => ReadPreference::Nearest,
    }
}

fn count(wish: Option<i32>) -> usize {
    wish.and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

fn seconds(wish: Option<i32>, default: Duration) -> Duration {
    wish.and_then(|n| u64::try_from(n).ok()).map_or(default, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Material, desired, max_lag_seconds, part_of, sync_id};
    use crate::api::ClusterSync;
    use crate::resource::references::references;
    use crate::resource::{Content, Fetched, Reference};
    use crate::sync::config::Holder;
    use crate::sync::{DesiredState, Reason};

    fn resource(spec: &str) -> ClusterSync {
        let text = format!(
            "apiVersion: clustersync.dev/v1alpha1\nkind: ClusterSync\nmetadata: {{name: a, uid: u-1}}\nspec: {spec}"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    fn secret(name: &str, data: &[(&str, &str)]) -> (Reference, Content) {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        (Reference::Secret(name.into()), Content { labels: BTreeMap::new(), data })
    }

    fn fetched(objects: impl IntoIterator<Item = (Reference, Content)>) -> Fetched {
        Fetched::new(objects.into_iter().collect(), false)
    }

    const WITH_SECRETS: &str = r#"{
        source: {uri: "mongodb://a:1/?replicaSet=s", credentialsSecretRef: {name: src},
                 tls: {ca: {configMapRef: {name: ca}}}},
        target: {uriSecretRef: {name: tgt, key: uri}}}"#;

    fn secrets() -> [(Reference, Content); 3] {
        let ca = Content { data: [("ca.crt".to_owned(), b"pem".to_vec())].into(), ..Content::default() };
        [
            secret("src", &[("username", "u\n"), ("password", "p4ss\n")]),
            secret("tgt", &[("uri", "mongodb://u:secret@b:2/?replicaSet=t\n")]),
            (Reference::ConfigMap("ca".into()), ca),
        ]
    }

    #[test]
    fn everything_named_is_referenced() {
        let names: Vec<String> =
            references(&resource(WITH_SECRETS).spec).iter().map(ToString::to_string).collect();
        assert_eq!(names, ["Secret src", "Secret tgt", "ConfigMap ca"]);
    }

    #[test]
    fn equal_inputs_need_no_restart_and_any_change_does() {
        let resource = resource(WITH_SECRETS);
        let material = Material::resolve(&resource, &fetched(secrets())).ok().unwrap();
        assert!(material == Material::resolve(&resource, &fetched(secrets())).ok().unwrap());
        let mut changed = secrets();
        changed[0] = secret("src", &[("username", "u"), ("password", "other")]);
        assert!(material != Material::resolve(&resource, &fetched(changed)).ok().unwrap());
    }

    #[test]
    fn what_may_change_while_a_sync_runs_restarts_nothing() {
        let with = |more: &str| resource(&WITH_SECRETS.replacen('{', &format!("{{{more},"), 1));
        let before = resource(WITH_SECRETS);
        let material = Material::resolve(&before, &fetched(secrets())).ok().unwrap();
        let same = [
            "state: Paused",
            "requests: {retry: '1'}",
            "deletionPolicy: Delete",
            "replication: {maxLagSeconds: 5}",
        ];
        for more in same {
            let after = with(more);
            assert!(material == Material::resolve(&after, &fetched(secrets())).ok().unwrap(), "{more}");
            assert_eq!(part_of(&before.spec), part_of(&after.spec), "{more}");
        }
        for more in [
            "replication: {lanes: 2}",
            "limits: {bytesPerSecond: 5}",
            "limits: {maxSourceLatencyMs: 5}",
            "limits: {maxReplicationLagSeconds: 5}",
        ] {
            let after = with(more);
            assert!(material != Material::resolve(&after, &fetched(secrets())).ok().unwrap(), "{more}");
            assert_ne!(part_of(&before.spec), part_of(&after.spec), "{more}");
        }
        assert_eq!(max_lag_seconds(&with("replication: {maxLagSeconds: 5}").spec), 5);
    }

    #[test]
    fn what_may_not_be_read_is_waited_for() {
        let [src, _, ca] = secrets();
        let tgt = Reference::Secret("tgt".into());
        let fetched = fetched([src, ca]).with_forbidden([tgt].into());
        let error = Material::resolve(&resource(WITH_SECRETS), &fetched).err().unwrap();
        assert_eq!(error.reason, Reason::CredentialsMissing);
        assert!(error.message.contains("may not get Secret tgt in this namespace"), "{}", error.message);
    }

    #[test]
    fn what_is_missing_is_named_and_waited_for() {
        let resource = resource(WITH_SECRETS);
        let [src, tgt, ca] = secrets();
        let cases = [
            (vec![tgt.clone(), ca.clone()], "Secret src does not exist"),
            (
                vec![secret("src", &[("username", "u")]), tgt.clone(), ca.clone()],
                "Secret src has no key password",
            ),
            (
                vec![secret("src", &[("username", ""), ("password", "p")]), tgt.clone(), ca],
                "Secret src, key username: empty",
            ),
            (vec![src, tgt], "ConfigMap ca does not exist"),
        ];
        for (objects, expected) in cases {
            let error = Material::resolve(&resource, &fetched(objects)).err().unwrap();
            assert_eq!(error.reason, Reason::CredentialsMissing);
            assert!(error.message.starts_with(expected), "{}", error.message);
        }
    }

    #[test]
    fn a_required_label_is_required() {
        let resource = resource(WITH_SECRETS);
        let mut objects: BTreeMap<_, _> = secrets().into_iter().collect();
        let error = Material::resolve(&resource, &Fetched::new(objects.clone(), true)).err().unwrap();
        assert_eq!(error.reason, Reason::CredentialsMissing);
        assert!(error.message.contains("clustersync.dev/use=true"), "{}", error.message);
        for content in objects.values_mut() {
            content.labels.insert("clustersync.dev/use".into(), "true".into());
        }
        assert!(Material::resolve(&resource, &Fetched::new(objects, true)).is_ok());
    }

    #[test]
    fn no_message_holds_what_a_secret_holds() {
        let resource =
            resource(r#"{source: {uri: "mongodb://a"}, target: {uriSecretRef: {name: tgt, key: uri}}}"#);
        let objects = vec![secret("tgt", &[("uri", "mongodb://u:s3cr3t@b:2/?bad=option")])];
        let holder = Holder { id: "h".into(), term: None };
        let material = Material::resolve(&resource, &fetched(objects)).ok().unwrap();
        let error = material.configuration(holder).err().unwrap();
        assert_eq!(error.reason, Reason::InvalidConfiguration);
        assert!(error.message.contains("Secret tgt, key uri"), "{}", error.message);
        assert!(!error.message.contains("s3cr3t"), "{}", error.message);
    }

    #[test]
    fn the_wish_and_the_key() {
        let resource = resource(
            r#"{state: Paused, syncID: "", requests: {retry: "1"},
                source: {uri: "mongodb://a"}, target: {uri: "mongodb://b"}}"#,
        );
        let wish = desired(&resource.spec);
        assert_eq!((wish.state, wish.retry.as_str(), wish.restart.as_str()), (DesiredState::Paused, "1", ""));
        assert_eq!(sync_id(&resource.spec, "u-1"), "u-1");
    }
}
