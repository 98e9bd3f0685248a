//! Answer questions that are asked by creating an object: who is this, may they, bind this.

use serde_json::{Value, json};

use super::respond::{Reply, json_reply};
use super::{Call, subresource};
use crate::auth::{Attributes, User};
use crate::ids;
use crate::object::{self, as_map};
use crate::status::{ApiError, ApiResult, Problem};
use crate::store::Key;

/// `POST` to a collection of questions.
pub(super) fn answer(call: &Call<'_>) -> ApiResult<Reply> {
    let (mut review, _) = call.decode_object()?;
    let status = match call.resource.plural.as_str() {
        "bindings" => {
            let key = Key::new(call.target.namespace.as_str(), object::name(&review));
            return subresource::bind(call, &key, &review);
        }
        "tokenreviews" => token_review(call, &review)?,
        "selfsubjectreviews" => json!({"userInfo": call.user.to_json()}),
        "selfsubjectaccessreviews" => access(call, call.user, &review)?,
        "subjectaccessreviews" | "localsubjectaccessreviews" => access(call, &subject(&review), &review)?,
        "selfsubjectrulesreviews" => rules(call),
        _ => return Err(ApiError::method_not_allowed()),
    };
    let map = as_map(&mut review);
    let meta = map.entry("metadata").or_insert_with(|| json!({}));
    if call.resource.plural == "selfsubjectreviews" {
        as_map(meta).insert("creationTimestamp".to_owned(), ids::now(&*call.app.origin).into());
    }
    map.insert("status".to_owned(), status);
    Ok(json_reply(201, &review))
}

fn token_review(call: &Call<'_>, review: &Value) -> ApiResult<Value> {
    let token = object::str_at(review, &["spec", "token"]).unwrap_or("");
    if token.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let mut audiences: Vec<String> = object::list_at(review, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if audiences.is_empty() {
        audiences.push(call.app.auth.signer.issuer().to_owned());
    }
    Ok(match call.app.user_of(token, &audiences) {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user.to_json(), "audiences": audiences})
        }
        Err(why) => json!({"user": {}, "error": why}),
    })
}

/// The user a review asks about.
fn subject(review: &Value) -> User {
    let groups = object::list_at(review, &["spec", "groups"])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned);
    User {
        name: object::str_at(review, &["spec", "user"]).unwrap_or("").to_owned(),
        groups: groups.collect(),
        ..User::default()
    }
}

fn access(call: &Call<'_>, user: &User, review: &Value) -> ApiResult<Value> {
    let resource = object::at(review, &["spec", "resourceAttributes"]);
    let path = object::at(review, &["spec", "nonResourceAttributes"]);
    if resource.is_some() == path.is_some() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let problem = Problem::invalid("spec", &Value::Null, why);
        return Err(ApiError::invalid(&call.resource.group, "", "", vec![problem]));
    }
    if user.name.is_empty() && user.groups.is_empty() {
        let problem = Problem::invalid(
            "spec.user",
            &"".into(),
            "at least one of user or group must be specified",
        );
        return Err(ApiError::invalid(
            &call.resource.group,
            &call.resource.kind,
            "",
            vec![problem],
        ));
    }
    let attributes = resource.or(path).unwrap_or(&Value::Null);
    let text = |field: &str| object::str_at(attributes, &[field]).unwrap_or("");
    let wanted = Attributes {
        verb: text("verb"),
        group: text("group"),
        resource: text("resource"),
        subresource: text("subresource"),
        namespace: text("namespace"),
        name: text("name"),
        path: text("path"),
    };
    Ok(if call.app.auth.allows(user, &wanted) {
        json!({"allowed": true, "reason": "on this server's access list"})
    } else {
        json!({"allowed": false})
    })
}

fn rules(call: &Call<'_>) -> Value {
    let everything = Attributes {
        verb: "*",
        group: "*",
        resource: "*",
        ..Attributes::default()
    };
    let (resources, paths) = if call.app.auth.allows(call.user, &everything) {
        (
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]),
            json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
        )
    } else {
        (
            json!([]),
            json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version"]}]),
        )
    };
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
