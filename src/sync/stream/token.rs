//! Resume tokens as text: the token's `_data`, and its `_typeBits` in hexadecimal behind a point where it has some.
//!
//! Without its type bits the token of an event whose document key holds a number that is not an ordinary one, such as
//! a 64-bit integer beyond 2^53, names another key, and the server does not find the event to resume after.

use std::fmt::Write as _;

use mongodb::bson::{Binary, Document, Timestamp, doc, spec::BinarySubtype};

use crate::sync::endpoint::raw;

/// The text of a token as a server sent it. Texts compare in stream order.
pub fn text(token: &[u8]) -> Option<String> {
    let mut text = raw::get(token, "_data")?.as_str()?.to_owned();
    if let Some(bits) = raw::get(token, "_typeBits") {
        // Behind length and subtype.
        text.push('.');
        for byte in bits.value.get(5..)? {
            let _ = write!(text, "{byte:02x}");
        }
    }
    Some(text)
}

/// The token to send to a server.
pub fn document(text: &str) -> Document {
    let Some((data, bits)) = text.split_once('.') else { return doc! {"_data": text} };
    let byte = |at| bits.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
    let bytes = (0..bits.len()).step_by(2).map_while(byte).collect();
    doc! {"_data": data, "_typeBits": Binary { subtype: BinarySubtype::Generic, bytes }}
}

/// The `_data` alone.
pub fn data(text: &str) -> &str {
    text.split_once('.').map_or(text, |(data, _)| data)
}

/// The time in a resume token: a `KeyString` that begins with the type of a timestamp and its eight bytes.
pub fn time(token: &str) -> Option<Timestamp> {
    let hex = token.get(..18)?;
    let seconds = u32::from_str_radix(hex.strip_prefix("82")?.get(..8)?, 16).ok()?;
    let increment = u32::from_str_radix(hex.get(10..18)?, 16).ok()?;
    Some(Timestamp { time: seconds, increment })
}

/// Whether a resume token is a high-water mark and none of an event: behind the time and the token's version stands its
/// type, 0 for a mark (`resume_token.h`).
pub fn is_high_water(token: &str) -> bool {
    token.get(18..20) == Some("2B") && token.get(22..24) == Some("29")
}

#[cfg(test)]
mod tests {
    use mongodb::bson::serialize_to_vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tokens_time_is_read() {
        let read = time("826B0552C3000000022B0229296E04");
        assert_eq!(read, Some(Timestamp { time: 0x6B05_52C3, increment: 2 }));
        assert_eq!(time("8"), None);
    }

    #[test]
    fn marks_are_told_from_events() {
        assert!(is_high_water("826B0552C3000000022B0229296E04"));
        assert!(is_high_water("826B0552C3000000022B0429296E1404"));
        assert!(!is_high_water("826B0552C3000000022B022C0100296E5A1004D5E246645F69640000"));
        assert!(!is_high_water(""));
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_came(data in "82[0-9A-F]{2,40}04", bits in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9))) {
            let mut token = doc! {"_data": &data};
            if let Some(bytes) = bits {
                token.insert("_typeBits", Binary { subtype: BinarySubtype::Generic, bytes });
            }
            let text = text(&serialize_to_vec(&token).unwrap()).unwrap();
            prop_assert_eq!(document(&text), token);
            prop_assert_eq!(self::data(&text), &data);
        }

        /// Of two tokens of one stream neither is the beginning of the other, whatever their bits.
        #[test]
        fn type_bits_do_not_change_the_order(one in "[0-9A-F]{8}", other in "[0-9A-F]{8}", bits in "[0-9a-f]{2,4}") {
            prop_assert_eq!(format!("{one}.{bits}").cmp(&other) == std::cmp::Ordering::Less, one < other);
        }
    }
}
