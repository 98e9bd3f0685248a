//! Read protobuf bodies, which `kubectl create` and other Go clients send for Kubernetes' own kinds, into JSON.
//!
//! Requests only: answers are JSON, which all of these clients accept. The field numbers come from Kubernetes' published
//! `.proto` files (see `schema/protobuf.py`). Empty strings and empty times are taken for absent, as their JSON form
//! leaves them out; numbers and booleans are kept even when they are zero, since a zero may be meant.

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use serde_json::{Map, Value};

use crate::ids;

/// Member name, type, flags: see `schema/protobuf.py`.
type Field = (String, String, String);
type Messages = HashMap<String, HashMap<u64, Field>>;

/// What every Kubernetes protobuf body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// Deeper messages are refused; no served kind comes near it.
const MAX_DEPTH: usize = 64;
const META: &str = "k8s.io.apimachinery.pkg";

fn messages() -> &'static Messages {
    static MESSAGES: OnceLock<Messages> = OnceLock::new();
    MESSAGES.get_or_init(
        || match serde_json::from_str(include_str!("../../schema/protobuf.json")) {
            Ok(messages) => messages,
            // The file is part of this crate and a test reads it.
            Err(error) => unreachable!("schema/protobuf.json: {error}"),
        },
    )
}

/// Reads a body. `definition` is the full name of the kind that is expected (`io.k8s.api.core.v1.Pod`).
pub(crate) fn decode(body: &[u8], definition: &str) -> Result<Value, String> {
    let body = body
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message")?;
    let (mut raw, mut api_version, mut kind) = (&[][..], String::new(), String::new());
    for part in parts(body)? {
        match part {
            (1, Wire::Bytes(meta)) => {
                for part in parts(meta)? {
                    match part {
                        (1, Wire::Bytes(text)) => api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, Wire::Bytes(text)) => kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let simple = |name: &str| name.rsplit('.').next().unwrap_or("").to_owned();
    let mut name = definition.replacen("io.k8s.", "k8s.io.", 1);
    if kind == "DeleteOptions" {
        name = format!("{META}.apis.meta.v1.DeleteOptions");
    } else if !kind.is_empty() && kind != simple(&name) {
        return Err(format!("{kind} was sent where {} was expected", simple(&name)));
    }
    if !messages().contains_key(&name) {
        return Err(format!(
            "{} cannot be sent as protobuf here, send JSON",
            simple(&name)
        ));
    }
    let mut value = message(raw, &name, 0)?;
    if let Value::Object(map) = &mut value {
        for (field, text) in [("apiVersion", api_version), ("kind", kind)] {
            if !text.is_empty() {
                map.insert(field.to_owned(), text.into());
            }
        }
    }
    Ok(value)
}

#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("unexpected end of protobuf data")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err("protobuf number is too long".to_owned())
}

/// The fields of a message, in the order they were written.
fn parts(mut bytes: &[u8]) -> Result<Vec<(u64, Wire<'_>)>, String> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let length = match tag & 7 {
            0 => {
                out.push((tag >> 3, Wire::Number(varint(&mut bytes)?)));
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut bytes)?).map_err(|_| "protobuf field is too long")?,
            5 => 4,
            other => return Err(format!("protobuf wire type {other} is not known")),
        };
        let (field, rest) = bytes
            .split_at_checked(length)
            .ok_or("unexpected end of protobuf data")?;
        bytes = rest;
        let wire = match (tag & 7, <[u8; 8]>::try_from(field)) {
            (1, Ok(field)) => Wire::Double(f64::from_le_bytes(field)),
            _ => Wire::Bytes(field),
        };
        out.push((tag >> 3, wire));
    }
    Ok(out)
}

fn message(bytes: &[u8], name: &str, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("protobuf data is nested too deeply".to_owned());
    }
    if let Some(value) = special(bytes, name)? {
        return Ok(value);
    }
    let mut map = Map::new();
    let Some(fields) = messages().get(name) else {
        return Ok(Value::Object(map));
    };
    for (number, wire) in parts(bytes)? {
        // A field this version does not know: JSON bodies lose those too.
        let Some((member, kind, flags)) = fields.get(&number) else {
            continue;
        };
        if flags.contains('m') {
            let (key, value) = entry(wire, kind, depth)?;
            if let Value::Object(entries) = map.entry(member).or_insert_with(|| Value::Object(Map::new())) {
                entries.insert(key, value);
            }
            continue;
        }
        let value = scalar_or_message(wire, kind, depth)?;
        match (flags.contains('r'), flags.contains('e'), value) {
            (true, _, value) => {
                if let Value::Array(list) = map.entry(member).or_insert_with(|| Value::Array(Vec::new())) {
                    list.push(value);
                }
            }
            (false, true, Value::Object(inner)) => map.extend(inner),
            (false, _, Value::Null) => {}
            (false, _, Value::String(text)) if text.is_empty() => {}
            (false, _, value) => {
                map.insert(member.clone(), value);
            }
        }
    }
    Ok(Value::Object(map))
}

/// An entry of a map: the key is field 1, the value field 2.
fn entry(wire: Wire<'_>, kind: &str, depth: usize) -> Result<(String, Value), String> {
    let Wire::Bytes(bytes) = wire else {
        return Err("protobuf map entry is no message".to_owned());
    };
    let (mut key, mut value) = (String::new(), None);
    for (number, wire) in parts(bytes)? {
        match (number, wire) {
            (1, Wire::Bytes(text)) => key = String::from_utf8_lossy(text).into_owned(),
            (2, wire) => value = Some(scalar_or_message(wire, kind, depth)?),
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_else(|| "".into())))
}

fn scalar_or_message(wire: Wire<'_>, kind: &str, depth: usize) -> Result<Value, String> {
    Ok(match (kind, wire) {
        ("t", Wire::Number(number)) => (number != 0).into(),
        // Negative numbers are written in two's complement.
        ("i", Wire::Number(number)) => number.cast_signed().into(),
        ("d", Wire::Double(number)) => number.into(),
        ("s", Wire::Bytes(text)) => std::str::from_utf8(text)
            .map_err(|_| "protobuf string is not UTF-8")?
            .into(),
        ("b", Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        (name, Wire::Bytes(bytes)) if name.len() > 1 => message(bytes, name, depth + 1)?,
        _ => return Err("protobuf field has the wrong wire type".to_owned()),
    })
}

/// Messages whose JSON form is no object of their fields.
fn special(bytes: &[u8], name: &str) -> Result<Option<Value>, String> {
    let Some(name) = name.strip_prefix(META) else {
        return Ok(None);
    };
    let fields = || -> Result<HashMap<u64, Wire<'_>>, String> { Ok(parts(bytes)?.into_iter().collect()) };
    let text = |wire: Option<&Wire<'_>>| match wire {
        Some(Wire::Bytes(text)) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    let number = |wire: Option<&Wire<'_>>| match wire {
        Some(Wire::Number(number)) => number.cast_signed(),
        _ => 0,
    };
    Ok(Some(match name {
        ".apis.meta.v1.Time" | ".apis.meta.v1.MicroTime" => {
            let fields = fields()?;
            if fields.is_empty() {
                return Ok(Some(Value::Null));
            }
            let nanos = i32::try_from(number(fields.get(&2))).map_err(|_| "time is out of range")?;
            let at =
                jiff::Timestamp::new(number(fields.get(&1)), nanos).map_err(|_| "time is out of range")?;
            if name.ends_with("MicroTime") {
                ids::timestamp_micro(at).into()
            } else {
                ids::timestamp(at).into()
            }
        }
        ".api.resource.Quantity" => text(fields()?.get(&1)).into(),
        ".util.intstr.IntOrString" => {
            let fields = fields()?;
            if number(fields.get(&1)) == 0 {
                number(fields.get(&2)).into()
            } else {
                text(fields.get(&3)).into()
            }
        }
        ".apis.meta.v1.FieldsV1" | ".runtime.RawExtension" => match fields()?.get(&1) {
            Some(Wire::Bytes(json)) => {
                serde_json::from_slice(json).map_err(|error| format!("embedded JSON: {error}"))?
            }
            _ => Value::Null,
        },
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).unwrap();
        [&[number << 3 | 2, length], bytes].concat()
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    /// Broken, `kubectl create configmap` and `kubectl create namespace` fail.
    #[test]
    fn a_configmap_is_read() {
        let meta = [field(1, b"m"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let bytes = body("ConfigMap", &[field(1, &meta), field(2, &entry)].concat());
        assert_eq!(
            decode(&bytes, "io.k8s.api.core.v1.ConfigMap"),
            Ok(
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"k": "v"}})
            )
        );
        assert!(decode(&bytes, "io.k8s.api.core.v1.Pod").is_err());
        assert!(decode(b"{}", "io.k8s.api.core.v1.Pod").is_err());
    }

    proptest! {
        /// Broken, one odd request ends the process.
        #[test]
        fn no_body_panics(raw in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = decode(&body("Pod", &raw), "io.k8s.api.core.v1.Pod");
        }
    }
}
