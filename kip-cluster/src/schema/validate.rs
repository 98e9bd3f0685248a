//! Check a custom resource against its structural schema, in the words of Kubernetes' own validation.

use serde_json::Value;

use crate::status::Problem;

/// Every problem of `value` under an `openAPIV3Schema`; `path` is where it is (empty at the top).
pub(crate) fn validate(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    if value.is_null() && flag("nullable") {
        return;
    }
    if !has_type(value, schema, flag("x-kubernetes-int-or-string"), path, problems) {
        return;
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let texts: Vec<String> = allowed
            .iter()
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        problems.push(Problem::unsupported(shown(path), value, &texts));
    }
    match value {
        Value::Object(map) => object(map, schema, path, problems),
        Value::Array(list) => array(value, list, schema, path, problems),
        Value::String(text) => string(value, text, schema, path, problems),
        Value::Number(number) => number_bounds(value, number.as_f64().unwrap_or(0.0), schema, path, problems),
        Value::Null | Value::Bool(_) => {}
    }
    combinations(value, schema, path, problems);
}

fn has_type(
    value: &Value,
    schema: &Value,
    int_or_string: bool,
    path: &str,
    problems: &mut Vec<Problem>,
) -> bool {
    let (fits, wanted) = if int_or_string {
        (
            value.is_string() || value.is_i64() || value.is_u64(),
            "integer,string",
        )
    } else {
        let wanted = schema.get("type").and_then(Value::as_str).unwrap_or("");
        let fits = match wanted {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            "number" => value.is_number(),
            _ => true,
        };
        (fits, wanted)
    };
    if !fits {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let place = if path.is_empty() {
            String::new()
        } else {
            format!("{path} in body ")
        };
        problems.push(Problem::type_invalid(
            shown(path),
            &found.into(),
            &format!("{place}must be of type {wanted}: \"{found}\""),
        ));
    }
    fits
}

fn object(map: &serde_json::Map<String, Value>, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !map.contains_key(name) {
            problems.push(Problem::required(join(path, name), ""));
        }
    }
    let limits = [
        ("minProperties", true, "at least"),
        ("maxProperties", false, "at most"),
    ];
    count(map.len(), schema, limits, "properties", path, problems);
    let members = schema.get("properties").and_then(Value::as_object);
    let others = schema
        .get("additionalProperties")
        .filter(|schema| schema.is_object());
    for (name, value) in map {
        if let Some(schema) = members.and_then(|members| members.get(name)).or(others) {
            validate(value, schema, &join(path, name), problems);
        }
    }
}

fn array(whole: &Value, list: &[Value], schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    count(
        list.len(),
        schema,
        [("minItems", true, "at least"), ("maxItems", false, "at most")],
        "items",
        path,
        problems,
    );
    if let Some(schema) = schema.get("items") {
        for (index, value) in list.iter().enumerate() {
            validate(value, schema, &format!("{path}[{index}]"), problems);
        }
    }
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    for (index, value) in list.iter().enumerate() {
        let same = |other: &Value| match list_type {
            Some("set") => other == value,
            Some("map") => keys.iter().all(|key| other.get(key) == value.get(key)),
            _ => false,
        };
        if list[..index].iter().any(same) {
            let shown_value = match list_type {
                Some("map") => keys
                    .iter()
                    .map(|key| ((*key).to_owned(), value[*key].clone()))
                    .collect(),
                _ => value.clone(),
            };
            problems.push(Problem::duplicate(format!("{path}[{index}]"), &shown_value));
        }
    }
    let unique = schema
        .get("uniqueItems")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    if unique
        && list
            .iter()
            .enumerate()
            .any(|(index, value)| list[..index].contains(value))
    {
        problems.push(Problem::invalid(
            shown(path),
            whole,
            "shouldn't contain duplicates",
        ));
    }
}

fn string(value: &Value, text: &str, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let length = text.chars().count();
    let limit = |name: &str| {
        schema
            .get(name)
            .and_then(Value::as_u64)
            .and_then(|limit| usize::try_from(limit).ok())
    };
    if let Some(least) = limit("minLength").filter(|least| length < *least) {
        let why = format!("{path} in body should be at least {least} chars long");
        problems.push(Problem::invalid(shown(path), value, &why));
    }
    if let Some(most) = limit("maxLength").filter(|most| length > *most) {
        problems.push(Problem::invalid(
            shown(path),
            value,
            &format!("may not be more than {most} bytes"),
        ));
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && regex::Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text))
    {
        let why = format!("{path} in body should match '{pattern}'");
        problems.push(Problem::invalid(shown(path), value, &why));
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or("");
    let fits = match format {
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        _ => true,
    };
    if !fits {
        let why = format!("{path} in body must be of type {format}: {value}");
        problems.push(Problem::invalid(shown(path), value, &why));
    }
}

fn number_bounds(value: &Value, number: f64, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let exclusive = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    if let Some(least) = bound("minimum") {
        let strict = exclusive("exclusiveMinimum");
        if number < least || (strict && number <= least) {
            let than = if strict {
                "greater than"
            } else {
                "greater than or equal to"
            };
            problems.push(Problem::invalid(
                shown(path),
                value,
                &format!("{path} in body should be {than} {least}"),
            ));
        }
    }
    if let Some(most) = bound("maximum") {
        let strict = exclusive("exclusiveMaximum");
        if number > most || (strict && number >= most) {
            let than = if strict {
                "less than"
            } else {
                "less than or equal to"
            };
            problems.push(Problem::invalid(
                shown(path),
                value,
                &format!("{path} in body should be {than} {most}"),
            ));
        }
    }
    if let Some(step) = bound("multipleOf").filter(|step| *step > 0.0)
        && (number / step).fract() != 0.0
    {
        problems.push(Problem::invalid(
            shown(path),
            value,
            &format!("{path} in body should be a multiple of {step}"),
        ));
    }
}

fn combinations(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let holds = |schema: &Value| {
        let mut found = Vec::new();
        validate(value, schema, path, &mut found);
        found.is_empty()
    };
    let branches = |name: &str| {
        schema
            .get(name)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice)
    };
    for schema in branches("allOf") {
        validate(value, schema, path, problems);
    }
    let any = branches("anyOf");
    if !any.is_empty() && !any.iter().any(holds) {
        let why = format!("{path} in body must validate at least one schema (anyOf)");
        problems.push(Problem::invalid(shown(path), value, &why));
    }
    let one = branches("oneOf");
    if !one.is_empty() && one.iter().filter(|schema| holds(schema)).count() != 1 {
        let why = format!("{path} in body must validate one and only one schema (oneOf)");
        problems.push(Problem::invalid(shown(path), value, &why));
    }
    if schema.get("not").is_some_and(holds) {
        problems.push(Problem::invalid(
            shown(path),
            value,
            &format!("{path} in body must not validate the schema (not)"),
        ));
    }
}

fn count(
    actual: usize,
    schema: &Value,
    limits: [(&str, bool, &str); 2],
    what: &str,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    for (name, least, words) in limits {
        let Some(limit) = schema.get(name).and_then(Value::as_u64) else {
            continue;
        };
        let actual = actual as u64;
        if (least && actual < limit) || (!least && actual > limit) {
            let why = format!("{path} in body should have {words} {limit} {what}");
            problems.push(Problem::invalid(shown(path), &actual.into(), &why));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Broken, a custom resource that its definition forbids is stored, and the controller meets it.
    #[test]
    fn problems_are_found_and_named() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object", "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 3},
                "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2},
                "mode": {"type": "string", "enum": ["a", "b"]},
                "items": {"type": "array", "maxItems": 2, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
                          "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "port": {"x-kubernetes-int-or-string": true}}}}});
        for (spec, expected) in [
            (
                json!({"size": 2, "name": "abc", "mode": "a", "items": [{"k": "x"}, {"k": "y"}], "port": 8080}),
                "",
            ),
            (json!({}), "spec.size: Required value"),
            (
                json!({"size": "x"}),
                "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
            ),
            (
                json!({"size": 5}),
                "spec.size: Invalid value: 5: spec.size in body should be less than or equal to 3",
            ),
            (
                json!({"size": 1, "name": "A1"}),
                "spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]+$'",
            ),
            (
                json!({"size": 1, "mode": "c"}),
                "spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (
                json!({"size": 1, "items": [{"k": "x"}, {"k": "x"}]}),
                "spec.items[1]: Duplicate value: {\"k\":\"x\"}",
            ),
            (
                json!({"size": 1, "port": true}),
                "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
            ),
        ] {
            let mut problems = Vec::new();
            validate(&json!({"spec": spec}), &schema, "", &mut problems);
            let text: Vec<String> = problems.iter().map(Problem::to_string).collect();
            assert_eq!(text.join("; "), expected);
        }
    }
}
