//! Answer the paths that are no resource: discovery, schemas, health, version.

use http::Method;
use serde_json::json;

use super::respond::{Reply, json_reply, text_reply, typed_reply};
use crate::app::App;
use crate::discovery;
use crate::openapi;
use crate::status::{ApiError, ApiResult};

/// The answer to a path nobody knows.
pub(super) fn not_found() -> Reply {
    text_reply(404, "404 page not found\n")
}

/// The media type of aggregated discovery.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn wants_aggregated(accept: &str) -> bool {
    let first = accept
        .split(',')
        .find(|offer| offer.trim().starts_with("application/json"));
    first.is_some_and(|offer| {
        offer.contains("as=APIGroupDiscoveryList") && offer.contains("v=v2") && !offer.contains("v2beta1")
    })
}

pub(super) fn answer(app: &App, method: &Method, path: &str, accept: &str) -> ApiResult<Reply> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed());
    }
    let registry = app.registry();
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let value = match words[..] {
        ["healthz" | "livez" | "readyz", ..] => return Ok(text_reply(200, "ok")),
        ["version"] => Some(discovery::version()),
        ["api" | "apis"] if wants_aggregated(accept) => {
            let value = discovery::aggregated(&registry, words[0] == "api");
            return Ok(typed_reply(200, AGGREGATED, value.to_string()));
        }
        ["api"] => Some(discovery::core_versions(&app.address)),
        ["apis"] => Some(discovery::group_list(&registry)),
        ["api", version] => discovery::resource_list(&registry, "", version),
        ["apis", group] => discovery::one_group(&registry, group),
        ["apis", group, version] => discovery::resource_list(&registry, group, version),
        ["openapi", "v2"]
            if [openapi::V2, openapi::V2_ASKED]
                .iter()
                .any(|kind| accept.contains(kind)) =>
        {
            return Ok(typed_reply(200, openapi::V2, openapi::v2_protobuf()));
        }
        ["openapi", "v2"] => Some(openapi::v2()),
        ["openapi", "v3"] => Some(openapi::index(&registry)),
        ["openapi", "v3", ..] => {
            let path = words[2..].join("/");
            openapi::document(&registry, &path)
        }
        ["openid", "v1", "jwks"] => Some(app.auth.signer.public_keys()),
        [".well-known", "openid-configuration"] => {
            let issuer = app.auth.signer.issuer();
            Some(
                json!({"issuer": issuer, "jwks_uri": format!("https://{}/openid/v1/jwks", app.address),
                   "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                   "id_token_signing_alg_values_supported": ["ES256"]}),
            )
        }
        [] => Some(
            json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}),
        ),
        _ => None,
    };
    Ok(value.map_or_else(not_found, |value| json_reply(200, &value)))
}
