//! A connection string from the command line. Whoever starts the process may name files of this machine: TLS material
//! is read here, and what remains follows the rules of every connection string.

use std::fs;
use std::time::Duration;

use crate::sync::endpoint::{EndpointConfig, ReadPreference};

/// What is wrong with an address; never holds it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

#[derive(Default)]
struct Files {
    ca: Option<String>,
    certificate: Option<String>,
    password: Option<String>,
}

/// Parse `uri`, given by `flag`. `ca` and `certificate` are PEM files, which win over those named in the string.
pub fn parse(
    flag: &str,
    uri: &str,
    ca: Option<&str>,
    certificate: Option<&str>,
    operation_timeout: Option<Duration>,
) -> Result<EndpointConfig, AddressError> {
    let wrong = |why: String| AddressError(format!("{flag}: {why}"));
    let (address, query) = uri.split_once('?').unwrap_or((uri, ""));
    let (mut files, mut kept, mut preference) = (Files::default(), Vec::new(), None);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let value = || {
            let text = percent_encoding::percent_decode_str(value).decode_utf8();
            text.map(std::borrow::Cow::into_owned).map_err(|_| wrong(format!("{name} is not valid UTF-8")))
        };
        match name.to_ascii_lowercase().as_str() {
            "tlscafile" => files.ca = Some(value()?),
            "tlscertificatekeyfile" => files.certificate = Some(value()?),
            "tlscertificatekeyfilepassword" => files.password = Some(value()?),
            "readpreference" => preference = Some(read_preference(&value()?).map_err(wrong)?),
            _ => kept.push(option),
        }
    }
    let clean = if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) };
    let mut endpoint = EndpointConfig::parse(&clean, true).map_err(|error| wrong(error.to_string()))?;
    let read = |path: &str| fs::read(path).map_err(|error| wrong(format!("{path} cannot be read: {error}")));
    if let Some(path) = ca.or(files.ca.as_deref()) {
        endpoint = endpoint.with_ca(&read(path)?).map_err(|error| wrong(format!("{path}: {error}")))?;
    }
    if let Some(path) = certificate.or(files.certificate.as_deref()) {
        endpoint = endpoint
            .with_client_certificate(&read(path)?, files.password.as_deref())
            .map_err(|error| wrong(format!("{path}: {error}")))?;
    }
    if let Some(preference) = preference {
        endpoint = endpoint.with_read_preference(preference);
    }
    if let Some(timeout) = operation_timeout {
        endpoint = endpoint.with_operation_timeout(timeout);
    }
    endpoint.checked().map_err(|error| wrong(format!("{error}: name its file in tlsCertificateKeyFile")))
}

fn read_preference(name: &str) -> Result<ReadPreference, String> {
    match name.to_ascii_lowercase().as_str() {
        "primary" => Ok(ReadPreference::Primary),
        "primarypreferred" => Ok(ReadPreference::PrimaryPreferred),
        "secondary" => Ok(ReadPreference::Secondary),
        "secondarypreferred" => Ok(ReadPreference::SecondaryPreferred),
        "nearest" => Ok(ReadPreference::Nearest),
        _ => {
            Err("readPreference is none of primary, primaryPreferred, secondary, secondaryPreferred, nearest"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(uri: &str) -> Result<EndpointConfig, String> {
        parse("--source", uri, None, None, None).map_err(|error| error.to_string())
    }

    #[test]
    fn credentials_and_a_read_preference_are_taken() {
        let endpoint =
            parsed("mongodb://u:p%40ss@a:1,b:2/?replicaSet=s&readPreference=primary&authSource=admin")
                .unwrap();
        assert_eq!(endpoint.hosts(), "a:1,b:2");
        assert_eq!(endpoint.read_preference(), ReadPreference::Primary);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_string() {
        for uri in [
            "",
            "localhost:27017",
            "mongodb://",
            "mongodb://u:secret@a:99999999/",
            "mongodb://u:secret@a/?tlsInsecure=true",
            "mongodb://u:secret@a/?readPreference=any",
            "mongodb://u:secret@a/?tlsCAFile=/does/not/exist",
        ] {
            let error = parsed(uri).unwrap_err();
            assert!(error.starts_with("--source: ") && !error.contains("secret"), "{error}");
        }
    }
}
