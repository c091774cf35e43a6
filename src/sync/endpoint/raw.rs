//! Raw BSON: walk the elements of a document without decoding them, and write commands around documents
//! that are copied byte for byte. Decoding would lose duplicate field names and cost most of the CPU.

use mongodb::bson::{RawDocument, RawDocumentBuf, Timestamp};

/// BSON type bytes that the engine looks at (<https://bsonspec.org/spec.html>).
pub mod kind {
    /// 64-bit float.
    pub const DOUBLE: u8 = 0x01;
    /// UTF-8 string.
    pub const STRING: u8 = 0x02;
    /// Embedded document.
    pub const DOCUMENT: u8 = 0x03;
    /// Array.
    pub const ARRAY: u8 = 0x04;
    /// Binary data.
    pub const BINARY: u8 = 0x05;
    /// `ObjectId`.
    pub const OBJECT_ID: u8 = 0x07;
    /// Boolean.
    pub const BOOLEAN: u8 = 0x08;
    /// Date.
    pub const DATE: u8 = 0x09;
    /// Null.
    pub const NULL: u8 = 0x0A;
    /// Regular expression.
    pub const REGEX: u8 = 0x0B;
    /// Deprecated symbol.
    pub const SYMBOL: u8 = 0x0E;
    /// 32-bit integer.
    pub const INT32: u8 = 0x10;
    /// Cluster timestamp.
    pub const TIMESTAMP: u8 = 0x11;
    /// 64-bit integer.
    pub const INT64: u8 = 0x12;
    /// 128-bit decimal float.
    pub const DECIMAL: u8 = 0x13;

    /// Whose values hold no other values, but for deprecated ones.
    pub const SCALARS: [u8; 12] =
        [DOUBLE, STRING, BINARY, OBJECT_ID, BOOLEAN, DATE, NULL, REGEX, INT32, TIMESTAMP, INT64, DECIMAL];
}

/// One element of a document: type, name and the value's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// Type byte.
    pub kind: u8,
    /// Name; servers store names that are not UTF-8 too.
    pub name: &'a [u8],
    /// The encoded value.
    pub value: &'a [u8],
}

impl<'a> Element<'a> {
    /// The value as a string.
    pub fn as_str(&self) -> Option<&'a str> {
        if self.kind != kind::STRING && self.kind != kind::SYMBOL {
            return None;
        }
        std::str::from_utf8(self.value.get(4..self.value.len().checked_sub(1)?)?).ok()
    }

    /// The value as an embedded document or array.
    pub fn as_document(&self) -> Option<&'a [u8]> {
        matches!(self.kind, kind::DOCUMENT | kind::ARRAY).then_some(self.value)
    }

    /// The value as a timestamp.
    pub fn as_timestamp(&self) -> Option<Timestamp> {
        if self.kind != kind::TIMESTAMP {
            return None;
        }
        let bits = u64::from_le_bytes(self.value.try_into().ok()?);
        Some(Timestamp { time: u32::try_from(bits >> 32).ok()?, increment: (bits & 0xFFFF_FFFF) as u32 })
    }

    /// The value as an integer of either width, or a double without fraction.
    #[allow(clippy::cast_possible_truncation)]
    pub fn as_i64(&self) -> Option<i64> {
        match self.kind {
            kind::INT32 => Some(i32::from_le_bytes(self.value.try_into().ok()?).into()),
            kind::INT64 => Some(i64::from_le_bytes(self.value.try_into().ok()?)),
            kind::DOUBLE => Some(f64::from_le_bytes(self.value.try_into().ok()?) as i64),
            _ => None,
        }
    }

    /// The 16 bytes of a UUID.
    pub fn as_uuid(&self) -> Option<[u8; 16]> {
        (self.kind == kind::BINARY && self.value.len() == 21).then(|| self.value[5..].try_into().ok())?
    }
}

/// Walks the elements of a document or array; ends early at malformed bytes, which servers never send.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

/// The elements of the document in `bytes`.
pub fn elements(bytes: &[u8]) -> Elements<'_> {
    Elements { rest: bytes.get(4..bytes.len().saturating_sub(1)).unwrap_or_default() }
}

/// The first element named `name`.
pub fn get<'a>(bytes: &'a [u8], name: &str) -> Option<Element<'a>> {
    elements(bytes).find(|element| element.name == name.as_bytes())
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let (&kind, rest) = self.rest.split_first()?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (name, rest) = (&rest[..end], &rest[end + 1..]);
        let size = value_size(kind, rest)?;
        let value = rest.get(..size)?;
        self.rest = &rest[size..];
        Some(Element { kind, name, value })
    }
}

fn length_at(bytes: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(bytes.get(..4)?.try_into().ok()?)).ok()
}

fn cstring_size(bytes: &[u8]) -> Option<usize> {
    Some(bytes.iter().position(|&byte| byte == 0)? + 1)
}

fn value_size(kind: u8, bytes: &[u8]) -> Option<usize> {
    Some(match kind {
        0x06 | 0x0A | 0x7F | 0xFF => 0,
        0x08 => 1,
        0x10 => 4,
        0x01 | 0x09 | 0x11 | 0x12 => 8,
        0x07 => 12,
        0x13 => 16,
        0x02 | 0x0D | 0x0E => 4 + length_at(bytes)?,
        0x03 | 0x04 | 0x0F => length_at(bytes)?,
        0x05 => 5 + length_at(bytes)?,
        0x0C => 4 + length_at(bytes)? + 12,
        0x0B => {
            let pattern = cstring_size(bytes)?;
            pattern + cstring_size(bytes.get(pattern..)?)?
        }
        _ => return None,
    })
}

/// Writes one document front to back.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    open: Vec<usize>,
}

impl Writer {
    /// An empty document with room for `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity + 64);
        bytes.extend_from_slice(&[0; 4]);
        Self { bytes, open: Vec::new() }
    }

    /// What `document` has, and more to come.
    pub fn continuing(document: &[u8]) -> Self {
        let elements = document.strip_suffix(&[0]).unwrap_or(&[0; 4]);
        Self { bytes: elements.to_vec(), open: Vec::new() }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no element was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == 4
    }

    fn head(&mut self, kind: u8, name: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
    }

    /// An element copied with a new name.
    pub fn element(&mut self, name: &str, kind: u8, value: &[u8]) {
        self.head(kind, name.as_bytes());
        self.bytes.extend_from_slice(value);
    }

    /// A document copied as it is.
    pub fn document(&mut self, name: &str, document: &[u8]) {
        self.element(name, kind::DOCUMENT, document);
    }

    /// A string.
    pub fn string(&mut self, name: &str, value: &str) {
        self.head(kind::STRING, name.as_bytes());
        let length = u32::try_from(value.len() + 1).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
    }

    /// A 32-bit integer.
    pub fn int32(&mut self, name: &str, value: i32) {
        self.element(name, kind::INT32, &value.to_le_bytes());
    }

    /// A 64-bit integer.
    pub fn int64(&mut self, name: &str, value: i64) {
        self.element(name, kind::INT64, &value.to_le_bytes());
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.element(name, kind::BOOLEAN, &[u8::from(value)]);
    }

    /// A UUID.
    pub fn uuid(&mut self, name: &str, uuid: [u8; 16]) {
        self.head(kind::BINARY, name.as_bytes());
        self.bytes.extend_from_slice(&16_u32.to_le_bytes());
        self.bytes.push(4);
        self.bytes.extend_from_slice(&uuid);
    }

    /// A command counts as done when a majority has it.
    pub fn majority(&mut self) {
        self.open_document("writeConcern");
        self.string("w", "majority");
        self.close();
    }

    /// Begin an embedded document.
    pub fn open_document(&mut self, name: &str) {
        self.open_kind(kind::DOCUMENT, name);
    }

    /// Begin an array; its elements are named `"0"`, `"1"`, …
    pub fn open_array(&mut self, name: &str) {
        self.open_kind(kind::ARRAY, name);
    }

    fn open_kind(&mut self, kind: u8, name: &str) {
        self.head(kind, name.as_bytes());
        self.open.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; 4]);
    }

    /// End what was begun last.
    pub fn close(&mut self) {
        if let Some(start) = self.open.pop() {
            self.seal(start);
        }
    }

    fn seal(&mut self, start: usize) {
        self.bytes.push(0);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// The whole document; what is still open is closed.
    pub fn finish(mut self) -> RawDocumentBuf {
        while !self.open.is_empty() {
            self.close();
        }
        self.seal(0);
        RawDocumentBuf::from_bytes(self.bytes).unwrap_or_default()
    }
}

/// `{_id: …}` of a stored document, whose `_id` need not come first. None if it has none.
pub fn id_document(document: &[u8]) -> Option<RawDocumentBuf> {
    let id = get(document, "_id")?;
    let mut writer = Writer::new(id.value.len());
    writer.element("_id", id.kind, id.value);
    Some(writer.finish())
}

/// What a plain insert or replacement would change or refuse: a top-level `Timestamp(0,0)` outside `_id`
/// (the server puts its clock there), a top-level name that starts with `$`, and names that are not ours to
/// judge. Such a document goes through `$replaceWith: {$literal: …}`.
pub fn needs_literal(document: &[u8]) -> bool {
    elements(document).any(|element| {
        (element.kind == kind::TIMESTAMP && element.value == [0; 8] && element.name != b"_id")
            || element.name.first() == Some(&b'$')
    })
}

/// View bytes that are known to be a document.
pub fn document(bytes: &[u8]) -> Option<&RawDocument> {
    RawDocument::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::{
        Binary, Bson, DateTime, Decimal128, JavaScriptCodeWithScope, Regex, doc, oid::ObjectId,
    };
    use mongodb::bson::{serialize_to_vec, spec::BinarySubtype};

    fn sample() -> mongodb::bson::Document {
        doc! {
            "_id": 7, "a": 1.5, "b": "text", "c": {"d": [1_i64, {"e": null}]}, "f": true,
            "g": ObjectId::new(), "h": DateTime::from_millis(5), "i": Bson::Timestamp(Timestamp { time: 9, increment: 2 }),
            "j": Bson::RegularExpression(Regex { pattern: "^x".try_into().unwrap(), options: "i".try_into().unwrap() }), "k": Bson::Symbol("s".into()),
            "l": Bson::JavaScriptCode("f()".into()), "m": Bson::MinKey, "n": Bson::MaxKey, "o": Bson::Undefined,
            "p": Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "g".into(), scope: doc! {"x": 1} }),
            "q": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] }, "r": "1.5".parse::<Decimal128>().unwrap(),
        }
    }

    #[test]
    fn every_type_is_walked_and_written_back_unchanged() {
        let bytes = serialize_to_vec(&sample()).unwrap();
        let mut writer = Writer::new(bytes.len());
        let mut count = 0;
        for element in elements(&bytes) {
            writer.element(std::str::from_utf8(element.name).unwrap(), element.kind, element.value);
            count += 1;
        }
        assert_eq!(count, sample().len());
        assert_eq!(writer.finish().as_bytes(), bytes);
    }

    #[test]
    fn nested_writing_is_valid_bson() {
        let mut writer = Writer::new(0);
        writer.string("insert", "c");
        writer.open_array("documents");
        writer.document("0", &serialize_to_vec(&doc! {"_id": 1}).unwrap());
        writer.close();
        writer.boolean("ordered", false);
        let back: mongodb::bson::Document = writer.finish().try_into().unwrap();
        assert_eq!(back, doc! {"insert": "c", "documents": [{"_id": 1}], "ordered": false});
    }

    #[test]
    fn zero_timestamps_and_dollar_names_need_the_literal_form() {
        let zero = Bson::Timestamp(Timestamp { time: 0, increment: 0 });
        let needs = |d: &mongodb::bson::Document| needs_literal(&serialize_to_vec(d).unwrap());
        assert!(needs(&doc! {"_id": 1, "t": zero.clone()}));
        assert!(needs(&doc! {"_id": 1, "$x": 1}));
        assert!(!needs(&doc! {"_id": zero.clone()}));
        assert!(!needs(&doc! {"_id": 1, "sub": {"t": zero}}));
    }

    #[test]
    fn truncated_bytes_end_the_walk() {
        let bytes = serialize_to_vec(&sample()).unwrap();
        for end in 0..bytes.len() {
            let _ = elements(&bytes[..end]).count();
        }
    }
}
