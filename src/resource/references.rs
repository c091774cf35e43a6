//! Which objects a spec names, and what was found under those names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::api::endpoint::{CaKeyRef, CertificateAuthority, SecretKeyRef, SecretRef};
use crate::api::{ClusterSyncSpec, SECRET_LABEL};

use super::Unusable;

/// The usual key of a CA bundle.
const CA_KEY: &str = "ca.crt";

/// An object in the resource's namespace that the spec names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A Secret by name.
    Secret(String),
    /// A `ConfigMap` by name.
    ConfigMap(String),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) => write!(f, "Secret {name}"),
            Self::ConfigMap(name) => write!(f, "ConfigMap {name}"),
        }
    }
}

/// What an object holds. No `Debug`: it may be a Secret's content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its data.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// What was found under each name; a name without an entry does not exist, or may not be read.
#[derive(Clone, Default)]
pub struct Fetched {
    found: BTreeMap<Reference, Content>,
    forbidden: BTreeSet<Reference>,
    require_secret_label: bool,
}

impl Fetched {
    /// `require_secret_label`: Secrets without the label [`SECRET_LABEL`] are as good as missing.
    pub fn new(found: BTreeMap<Reference, Content>, require_secret_label: bool) -> Self {
        Self { found, forbidden: BTreeSet::new(), require_secret_label }
    }

    /// Names that the operator was refused.
    #[must_use]
    pub fn with_forbidden(mut self, forbidden: BTreeSet<Reference>) -> Self {
        self.forbidden = forbidden;
        self
    }

    fn content(&self, reference: &Reference) -> Result<&Content, Unusable> {
        if self.forbidden.contains(reference) {
            return Err(Unusable::missing(format!(
                "The operator may not get {reference} in this namespace. Grant it: see deploy/base/role.yaml."
            )));
        }
        let content = self.found.get(reference).ok_or_else(|| {
            Unusable::missing(format!("{reference} does not exist in this namespace. Create it."))
        })?;
        let labelled = content.labels.get(SECRET_LABEL).is_some_and(|value| value == "true");
        if self.require_secret_label && matches!(reference, Reference::Secret(_)) && !labelled {
            return Err(Unusable::missing(format!(
                "{reference} is not labelled {SECRET_LABEL}=true, which this operator requires. Label it."
            )));
        }
        Ok(content)
    }

    /// A key that must be there.
    pub(super) fn bytes(&self, reference: &Reference, key: &str) -> Result<&[u8], Unusable> {
        self.content(reference)?
            .data
            .get(key)
            .map(Vec::as_slice)
            .ok_or_else(|| Unusable::missing(format!("{reference} has no key {key}. Add it.")))
    }

    /// A key that must be there and be text. A final line break is not part of it: `echo` adds one.
    pub(super) fn text(&self, reference: &Reference, key: &str) -> Result<String, Unusable> {
        let text = std::str::from_utf8(self.bytes(reference, key)?)
            .map_err(|_| Unusable::invalid(format!("{reference}, key {key}: not valid UTF-8.")))?
            .trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(Unusable::missing(format!("{reference}, key {key}: empty. Set it.")));
        }
        Ok(text.to_owned())
    }

    /// A key that may be absent or empty.
    pub(super) fn optional_text(&self, reference: &Reference, key: &str) -> Result<Option<String>, Unusable> {
        match self.content(reference)?.data.get(key) {
            Some(value) if !value.is_empty() => self.text(reference, key).map(Some),
            _ => Ok(None),
        }
    }
}

impl From<&SecretRef> for Reference {
    fn from(secret: &SecretRef) -> Self {
        Self::Secret(secret.name.clone())
    }
}

impl From<&SecretKeyRef> for Reference {
    fn from(secret: &SecretKeyRef) -> Self {
        Self::Secret(secret.name.clone())
    }
}

/// The object and the key that hold a CA bundle; none where the schema's "exactly one" is not met.
pub(super) fn ca_location(ca: &CertificateAuthority) -> Option<(Reference, &str)> {
    let key = |r: &CaKeyRef| r.name.clone();
    match (&ca.secret_ref, &ca.config_map_ref) {
        (Some(secret), None) => {
            Some((Reference::Secret(key(secret)), secret.key.as_deref().unwrap_or(CA_KEY)))
        }
        (None, Some(map)) => Some((Reference::ConfigMap(key(map)), map.key.as_deref().unwrap_or(CA_KEY))),
        _ => None,
    }
}

/// Every object that the spec names.
pub fn references(spec: &ClusterSyncSpec) -> BTreeSet<Reference> {
    let (source, target) = (&spec.source, &spec.target);
    let keys = [&source.uri_secret_ref, &target.uri_secret_ref];
    let secrets = [&source.credentials_secret_ref, &target.credentials_secret_ref];
    let tls = [&source.tls, &target.tls];
    let ca = tls.into_iter().flatten().filter_map(|tls| tls.ca.as_ref());
    let certificates = tls.into_iter().flatten().filter_map(|tls| tls.client_cert_secret_ref.as_ref());
    keys.into_iter()
        .flatten()
        .map(Reference::from)
        .chain(secrets.into_iter().flatten().map(Reference::from))
        .chain(certificates.map(Reference::from))
        .chain(ca.filter_map(|ca| ca_location(ca).map(|(reference, _)| reference)))
        .collect()
}
