//! Read JSON and YAML bodies, noticing members that are written twice (JSON keeps the last, silently).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A decoded body.
#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    /// Paths of members that appear more than once.
    pub(crate) duplicates: Vec<String>,
}

/// Reads a JSON text.
pub(crate) fn json(text: &[u8]) -> Result<Decoded, serde_json::Error> {
    let mut duplicates = Vec::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Reader {
        path: String::new(),
        duplicates: &mut duplicates,
    }
    .deserialize(&mut reader)?;
    reader.end()?;
    Ok(Decoded { value, duplicates })
}

/// Reads a YAML text (of one document); JSON is YAML too.
pub(crate) fn yaml(text: &[u8]) -> Result<Decoded, String> {
    if text.trim_ascii_start().starts_with(b"{") {
        return json(text).map_err(|error| error.to_string());
    }
    let value = serde_norway::from_slice(text).map_err(|error| error.to_string())?;
    Ok(Decoded {
        value,
        duplicates: Vec::new(),
    })
}

struct Reader<'a> {
    path: String,
    duplicates: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let Self { path, duplicates } = self;
        let mut list = Vec::new();
        while let Some(value) = access.next_element_seed(Reader {
            path: format!("{path}[{}]", list.len()),
            duplicates,
        })? {
            list.push(value);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let Self { path, duplicates } = self;
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            if map.contains_key(&name) {
                duplicates.push(path.clone());
            }
            let value = access.next_value_seed(Reader { path, duplicates })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken, the second of two equal keys in a manifest wins without a word.
    #[test]
    fn duplicates_are_named() {
        let decoded = json(br#"{"a":1,"b":[{"c":1,"c":2}],"a":2}"#).unwrap();
        assert_eq!(decoded.duplicates, ["b[0].c", "a"]);
        assert_eq!(decoded.value, serde_json::json!({"a": 2, "b": [{"c": 2}]}));
        assert!(json(b"{} x").is_err());
        assert_eq!(
            yaml(b"a: 1\nb:\n- x\n").unwrap().value,
            serde_json::json!({"a": 1, "b": ["x"]})
        );
    }
}
