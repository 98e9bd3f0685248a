//! The instance metadata service beside the fake EC2: it says in which VPCs the caller's machine is.

use std::sync::{Arc, PoisonError};

use axum::Router;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};

use super::Shared;

const MACS: &str = "/latest/meta-data/network/interfaces/macs/";

/// Adds the service to the fake's own.
pub(super) fn add(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router
        .route("/latest/api/token", put(token))
        .route(MACS, get(macs))
        .route(&format!("{MACS}{{mac}}/vpc-id"), get(vpc))
}

async fn token() -> Response {
    ([("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "token").into_response()
}

fn homes(shared: &Shared) -> Vec<String> {
    let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    state.homes.clone()
}

/// Interfaces are numbered as their VPCs are.
async fn macs(Extract(shared): Extract<Arc<Shared>>) -> Response {
    let lines: Vec<String> = (0..homes(&shared).len()).map(|i| format!("{i}/")).collect();
    if lines.is_empty() {
        return StatusCode::NOT_FOUND.into_response();
    }
    lines.join("\n").into_response()
}

async fn vpc(Extract(shared): Extract<Arc<Shared>>, Path(mac): Path<usize>) -> Response {
    match homes(&shared).get(mac) {
        Some(vpc) => vpc.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
