//! The failure table: from what a server or the driver said to a reason. Narrow on what is retried; a
//! message never carries a document or an address with credentials.

use mongodb::error::{Error as DriverError, ErrorKind, TRANSIENT_TRANSACTION_ERROR};

use super::client::Side;
use crate::sync::error::{Error, Reason};

/// Duplicate key.
pub const DUPLICATE_KEY: i32 = 11000;
/// A message or document would be larger than the server's bound.
pub const TOO_LARGE: i32 = 10334;
/// An option of the change stream that the server does not know or does not allow.
pub const UNKNOWN_OPTION: &[i32] = &[9, 40415, 5_852_600, 323];
/// No such collection.
pub const NAMESPACE_NOT_FOUND: i32 = 26;
/// No such index.
pub const INDEX_NOT_FOUND: i32 = 27;
/// The collection exists.
pub const NAMESPACE_EXISTS: i32 = 48;
/// The name belongs to another collection than the one meant.
pub const COLLECTION_UUID_MISMATCH: i32 = 361;
/// Another index has the same keys.
pub const INDEX_OPTIONS_CONFLICT: i32 = 85;
/// An index of that name has other keys or options.
pub const INDEX_KEY_SPECS_CONFLICT: i32 = 86;
/// The server forgot the cursor.
pub const CURSOR_NOT_FOUND: i32 = 43;
/// The collection was dropped or renamed under a running query.
pub const QUERY_PLAN_KILLED: i32 = 175;
/// A change stream cannot go on from its place: the oplog does not reach back to it, or its token is not there.
pub const HISTORY_LOST: &[i32] = &[136, 280, 286];
/// An index build was aborted.
pub const INDEX_BUILD_ABORTED: i32 = 276;
/// An update would change `_id`: two ids that a collation holds for equal.
pub const IMMUTABLE_FIELD: i32 = 66;
/// An index cannot hold the document: parallel arrays, keys of a geometry, an array in a hashed index, several arrays
/// under a wildcard, a text language, a location outside of a 2d index's bounds or that is none.
pub const IS_OF_AN_INDEX: &[i32] =
    &[171, 16755, 16766, 17261, 17262, 16675, 7_246_301, 201, 13027, 13068, 16804];
/// Codes whose message holds a value of the document without quotes.
const QUOTES_A_VALUE: &[i32] = &[17261, 17262];
/// A write inside a transaction conflicted.
pub const WRITE_CONFLICT: i32 = 112;

/// Codes after which the same thing may succeed: elections, shutdowns, timeouts, conflicts, killed cursors
/// and sessions, an index build in progress (<https://github.com/mongodb/mongo/blob/v6.0/src/mongo/base/error_codes.yml>).
const TRANSIENT: &[i32] = &[
    6, 7, 24, 43, 46, 50, 64, 79, 89, 91, 112, 117, 133, 134, 175, 189, 202, 211, 225, 237, 239, 246, 251,
    262, 290, 314, 317, 384, 9001, 10058, 10107, 11600, 11601, 11602, 12586, 12587, 13388, 13435, 13436,
];

/// Whether the collection that was meant does not have that name any more, if it is there at all.
pub fn is_of_a_missing_collection(error: &Error) -> bool {
    matches!(error.code(), Some(NAMESPACE_NOT_FOUND | COLLECTION_UUID_MISMATCH))
}

/// What a driver error means for a sync.
pub fn from_driver(side: Side, hosts: &str, error: &DriverError) -> Error {
    let unreachable = match side {
        Side::Source => Reason::SourceUnreachable,
        Side::Target => Reason::TargetUnreachable,
    };
    if error.contains_label(TRANSIENT_TRANSACTION_ERROR) {
        return Error::new(Reason::Interrupted, format!("{side}: {}", words(error))).with_code(code(error));
    }
    match error.kind.as_ref() {
        ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } | ErrorKind::Io(_) => Error::new(
            if is_authentication(error) { Reason::AuthenticationFailed } else { unreachable },
            format!("the {side} at {hosts} cannot be reached: {}", words(error)),
        ),
        ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::Shutdown => {
            Error::new(Reason::Interrupted, format!("{side}: {}", words(error)))
        }
        ErrorKind::Authentication { .. } => {
            Error::new(Reason::AuthenticationFailed, format!("the {side} at {hosts} refused the credentials"))
        }
        ErrorKind::InvalidTlsConfig { .. } => {
            Error::new(Reason::InvalidConfiguration, format!("{side}: {}", words(error)))
        }
        ErrorKind::Command(command) => from_code(side, command.code, &words(error)),
        ErrorKind::Transaction { .. } => Error::new(Reason::Interrupted, format!("{side}: {}", words(error))),
        _ => match code(error) {
            Some(code) => from_code(side, code, &words(error)),
            None => Error::new(Reason::Internal, format!("{side}: {}", words(error))),
        },
    }
}

/// What a server's error code means for a sync.
pub fn from_code(side: Side, code: i32, words: &str) -> Error {
    let reason = match code {
        18 => Reason::AuthenticationFailed,
        13 => Reason::NotAuthorized,
        code if HISTORY_LOST.contains(&code) => Reason::OplogLost,
        COLLECTION_UUID_MISMATCH => Reason::TargetDiverged,
        TOO_LARGE if side == Side::Source => Reason::EventTooLarge,
        code if TRANSIENT.contains(&code) => Reason::Interrupted,
        _ => Reason::WriteRefused,
    };
    let words = words_of(code, words);
    Error::new(reason, format!("{side}: {words} (code {code})")).with_code(Some(code))
}

/// The server's code in a driver error.
pub fn code(error: &DriverError) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(mongodb::error::WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(mongodb::error::WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        _ => None,
    }
}

fn is_authentication(error: &DriverError) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::ServerSelection { message, .. } if message.contains("Authentication"))
}

fn words(error: &DriverError) -> String {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => server_words(&command.message),
        ErrorKind::Io(io) => io.to_string(),
        ErrorKind::ServerSelection { message, .. } => selection_words(message),
        ErrorKind::DnsResolve { .. } => "its name does not resolve".to_owned(),
        other => server_words(&other.to_string()),
    }
}

/// What is kept of a server's message with that code.
pub fn words_of(code: i32, message: &str) -> String {
    if QUOTES_A_VALUE.contains(&code) {
        "a language that the text index refuses".to_owned()
    } else {
        server_words(message)
    }
}

/// A server's message without the values it may quote: everything from the first brace on goes.
pub fn server_words(message: &str) -> String {
    let cut = message.find(['{', '"']).unwrap_or(message.len());
    let mut words = message[..cut].trim_end_matches([' ', ':', ',', '(']).to_owned();
    if let Some((end, _)) = words.char_indices().nth(240) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// The causes inside the driver's description of a topology, without its structure.
fn selection_words(message: &str) -> String {
    for cause in [
        "Connection refused",
        "failed to lookup address",
        "Name or service not known",
        "timed out",
        "certificate",
        "TLS",
    ] {
        if message.contains(cause) {
            return cause.to_lowercase();
        }
    }
    if message.contains("Authentication") || message.contains("SCRAM") {
        return "the credentials were refused".to_owned();
    }
    "no suitable member answers".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::error::Class;

    #[test]
    fn messages_lose_the_documents_that_servers_quote() {
        let words = server_words(
            "E11000 duplicate key error collection: a.b index: _id_ dup key: { _id: \"secret\" }",
        );
        assert_eq!(words, "E11000 duplicate key error collection: a.b index: _id_ dup key");
    }

    #[test]
    fn elections_are_retried_and_lost_history_is_not() {
        for code in [189, 10107, 11602, 12587, 13435] {
            assert_eq!(from_code(Side::Target, code, "").class(), Class::Transient, "{code}");
        }
        for code in [286, 136, 280, 13, 2, 9] {
            assert_eq!(from_code(Side::Source, code, "").class(), Class::Stop, "{code}");
        }
    }
}
