//! AWS's JSON protocol, which the services beside EC2 speak: the action in a header, parameters and answer as JSON.

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::wire::Params;

/// The action of a call in this protocol, such as `GetProducts` of `AWSPriceListService.GetProducts`.
pub(super) fn action(headers: &HeaderMap) -> Option<String> {
    let target = headers.get("x-amz-target")?.to_str().ok()?;
    target.rsplit('.').next().map(str::to_owned)
}

/// The parameters by flat names, as those of the query protocol: `Filters.1.Field`.
pub(super) fn params(body: &[u8]) -> Params {
    let mut params = Params::default();
    flatten(
        &serde_json::from_slice(body).unwrap_or(Value::Null),
        "",
        &mut params,
    );
    params
}

fn flatten(value: &Value, at: &str, params: &mut Params) {
    let below = |name: &str| match at {
        "" => name.to_owned(),
        at => format!("{at}.{name}"),
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| flatten(value, &below(name), params)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(i, item)| flatten(item, &below(&(i + 1).to_string()), params)),
        Value::String(text) => drop(params.0.insert(at.to_owned(), text.clone())),
        Value::Null => {}
        other => drop(params.0.insert(at.to_owned(), other.to_string())),
    }
}

/// A whole answer.
pub(super) fn answer(value: &Value) -> Response {
    (
        [("content-type", "application/x-amz-json-1.1")],
        value.to_string(),
    )
        .into_response()
}

/// The answer that refuses.
pub(super) fn refusal(code: &str, message: &str, status: u16) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let body = json!({ "__type": code, "message": message }).to_string();
    (status, [("content-type", "application/x-amz-json-1.1")], body).into_response()
}
