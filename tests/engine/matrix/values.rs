//! Every type that a field or an `_id` may have.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc};

pub const ZERO: Bson = Bson::Timestamp(Timestamp { time: 0, increment: 0 });

pub fn binary(subtype: BinarySubtype) -> Bson {
    Bson::Binary(Binary { subtype, bytes: vec![1, 2, 3, 0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16] })
}

/// One of each kind that may be an `_id`, and what compares close to each other.
pub fn ids() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse().unwrap());
    vec![
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        1.into(),
        2_i64.into(),
        2.5.into(),
        f64::NAN.into(),
        f64::INFINITY.into(),
        f64::NEG_INFINITY.into(),
        0.0.into(),
        f64::MIN_POSITIVE.into(),
        i64::MAX.into(),
        9_007_199_254_740_993_i64.into(),
        9_007_199_254_740_992.0.into(),
        decimal("3.10"),
        decimal("1E-6176"),
        decimal("9007199254740993.5"),
        "text".into(),
        "".into(),
        "te\u{0}xt".into(),
        Bson::Symbol("symbol".to_owned()),
        doc! {}.into(),
        doc! {"a": 1, "b": [1, {"c": 2}]}.into(),
        doc! {"b": [1], "a": 1}.into(),
        binary(BinarySubtype::Generic),
        binary(BinarySubtype::Uuid),
        binary(BinarySubtype::UuidOld),
        binary(BinarySubtype::UserDefined(0x80)),
        ObjectId::from_bytes([7; 12]).into(),
        true.into(),
        false.into(),
        DateTime::from_millis(-62_135_596_800_000).into(),
        DateTime::from_millis(1).into(),
        Bson::Timestamp(Timestamp { time: 7, increment: 9 }),
        ZERO,
        Bson::JavaScriptCode("f()".to_owned()),
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope {
            code: "f(x)".to_owned(),
            scope: doc! {"x": 1},
        }),
    ]
}

/// One of each kind of value.
pub fn values() -> Document {
    let decimals = ["NaN", "Infinity", "-Infinity", "-0", "0E+3", "1.0", "1.00", "1E+3"];
    let decimals: Vec<Bson> = decimals.iter().map(|text| Bson::Decimal128(text.parse().unwrap())).collect();
    let regex = Regex { pattern: "^a".try_into().unwrap(), options: "i".try_into().unwrap() };
    doc! {
        "int": 1, "long": 1_i64, "double": 1.0, "minus": -0.0, "nan": f64::NAN, "inf": f64::INFINITY,
        "decimals": decimals, "string": "same", "symbol": Bson::Symbol("same".to_owned()),
        "undefined": Bson::Undefined, "null": Bson::Null, "regex": Bson::RegularExpression(regex),
        "code": Bson::JavaScriptCode("f()".to_owned()), "min": Bson::MinKey, "max": Bson::MaxKey,
        "list": [1, 1_i64, 1.0, [], {}, [[1]]], "date": DateTime::from_millis(i64::MAX), "zero": ZERO,
        "nested": {"zero": ZERO}, "bytes": binary(BinarySubtype::Md5), "empty": "",
    }
}
