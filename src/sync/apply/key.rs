//! A canonical hash of `(collection, _id)`: values that the server calls equal hash equal, so that all events of
//! one document take one lane. It is durable in effect: a lane's position covers the documents hashed to it.

use mongodb::bson::{Decimal128, Uuid};

use crate::sync::endpoint::raw::{self, kind};

/// FNV-1a, 64 bit: fixed for ever, unlike a library's default hasher.
struct Fnv(u64);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(self) -> u64 {
        // The low bits choose the lane: mix the high ones in.
        let mixed = (self.0 ^ (self.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ (mixed >> 33)
    }
}

/// The hash of a document's identity; `key` is the bytes of `{_id: …}`. `collated`: the collection has a collation, so
/// that strings which differ in bytes may be equal, as only the server knows: all of them hash alike.
pub fn hash(collection: Uuid, key: &[u8], collated: bool) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    fnv.bytes(&collection.bytes());
    if let Some(id) = raw::get(key, "_id") {
        value(&mut fnv, id.kind, id.value, collated);
    }
    fnv.finish()
}

#[allow(clippy::cast_precision_loss)]
fn value(fnv: &mut Fnv, element: u8, bytes: &[u8], collated: bool) {
    match element {
        kind::INT32 => number(fnv, bytes.try_into().map_or(0.0, |b| f64::from(i32::from_le_bytes(b)))),
        kind::INT64 => number(fnv, bytes.try_into().map_or(0.0, |b| i64::from_le_bytes(b) as f64)),
        kind::DOUBLE => number(fnv, bytes.try_into().map_or(0.0, f64::from_le_bytes)),
        kind::DECIMAL => {
            let text =
                bytes.try_into().map_or_else(|_| String::new(), |b| Decimal128::from_bytes(b).to_string());
            number(fnv, text.parse().unwrap_or(f64::NAN));
        }
        kind::STRING | kind::SYMBOL => {
            fnv.bytes(&[kind::STRING]);
            if !collated {
                fnv.bytes(bytes);
            }
        }
        kind::DOCUMENT | kind::ARRAY => {
            fnv.bytes(&[element]);
            for inner in raw::elements(bytes) {
                fnv.bytes(inner.name);
                fnv.bytes(&[0]);
                value(fnv, inner.kind, inner.value, collated);
            }
        }
        other => {
            fnv.bytes(&[other]);
            fnv.bytes(bytes);
        }
    }
}

/// Numbers of all types by their nearest double: equal numbers have equal nearest doubles.
fn number(fnv: &mut Fnv, number: f64) {
    let canonical = if number.is_nan() {
        f64::NAN.to_bits()
    } else if number == 0.0 {
        0
    } else {
        number.to_bits()
    };
    fnv.bytes(&[kind::DOUBLE]);
    fnv.bytes(&canonical.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{Bson, doc, serialize_to_vec};
    use proptest::prelude::*;

    fn of(id: Bson) -> u64 {
        hash(Uuid::from_bytes([3; 16]), &serialize_to_vec(&doc! {"_id": id}).unwrap(), false)
    }

    #[test]
    fn under_a_collation_all_strings_are_one_and_numbers_are_not() {
        let of =
            |id: Bson| hash(Uuid::from_bytes([3; 16]), &serialize_to_vec(&doc! {"_id": id}).unwrap(), true);
        assert_eq!(of(Bson::String("a".into())), of(Bson::String("Ä".into())));
        assert_eq!(of(Bson::Document(doc! {"a": "x", "b": 1})), of(Bson::Document(doc! {"a": "y", "b": 1})));
        assert_ne!(of(Bson::Int32(1)), of(Bson::Int32(2)));
    }

    fn decimal(text: &str) -> Bson {
        Bson::Decimal128(text.parse().unwrap())
    }

    #[test]
    fn equal_values_of_different_types_share_a_lane() {
        for same in [
            vec![
                Bson::Int32(1),
                Bson::Int64(1),
                Bson::Double(1.0),
                decimal("1"),
                decimal("1.00"),
                decimal("0.1E+1"),
            ],
            vec![Bson::Double(0.0), Bson::Double(-0.0), Bson::Int32(0), decimal("-0")],
            vec![Bson::Double(f64::NAN), Bson::Double(-f64::NAN), decimal("NaN")],
            vec![Bson::Double(f64::INFINITY), decimal("Infinity")],
            vec![Bson::String("a".into()), Bson::Symbol("a".into())],
            vec![Bson::Document(doc! {"a": 1}), Bson::Document(doc! {"a": 1.0})],
        ] {
            let hashes: Vec<_> = same.iter().cloned().map(of).collect();
            assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{same:?}");
        }
    }

    #[test]
    fn collections_and_types_are_told_apart() {
        assert_ne!(of(Bson::Int32(1)), of(Bson::Int32(2)));
        assert_ne!(of(Bson::Int32(1)), of(Bson::String("1".into())));
        let key = serialize_to_vec(&doc! {"_id": 1}).unwrap();
        assert_ne!(
            hash(Uuid::from_bytes([1; 16]), &key, false),
            hash(Uuid::from_bytes([2; 16]), &key, false)
        );
    }

    proptest! {
        #[test]
        fn an_integer_and_its_decimal_agree(n in any::<i64>()) {
            prop_assert_eq!(of(Bson::Int64(n)), of(decimal(&n.to_string())));
        }

        #[test]
        fn integers_spread_over_lanes(start in any::<i32>()) {
            let mut lanes = [0; 4];
            for n in 0..400 {
                lanes[usize::try_from(of(Bson::Int32(start.wrapping_add(n))) % 4).unwrap()] += 1;
            }
            prop_assert!(lanes.iter().all(|&count| count > 40), "{:?}", lanes);
        }
    }
}
