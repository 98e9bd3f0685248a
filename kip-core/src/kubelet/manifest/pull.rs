//! Registry credentials from the pull secrets of a pod and of its service account.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Context, Fetched};
use crate::model::PullSecret;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Auth {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// All credentials, in the order of the secrets. A secret that is missing or broken is skipped, as kubelets do, with an event: the
/// image may be public.
pub(super) fn secrets(context: &mut Context<'_>) -> Vec<PullSecret> {
    let mut found = Vec::new();
    for name in context.resolved.pull_secrets.clone() {
        let problem = match context.resolved.secrets.get(&name) {
            Some(Fetched::Found(secret)) => {
                let data = secret.data.clone().unwrap_or_default();
                match read(&data) {
                    Ok(credentials) => {
                        found.extend(credentials);
                        continue;
                    }
                    Err(problem) => problem,
                }
            }
            Some(Fetched::Failed(error)) => {
                context.retry = true;
                error.clone()
            }
            Some(Fetched::Missing) | None => "it does not exist".to_owned(),
        };
        context.warn(
            "FailedToRetrieveImagePullSecret",
            format!("Pull secret {name:?} cannot be used: {problem}; pulling the image may fail."),
        );
    }
    found
}

fn read(data: &BTreeMap<String, k8s_openapi::ByteString>) -> Result<Vec<PullSecret>, String> {
    let broken = |key: &str| format!("its {key} is no valid JSON of registry credentials");
    let auths = if let Some(config) = data.get(".dockerconfigjson") {
        serde_json::from_slice::<DockerConfig>(&config.0)
            .map_err(|_| broken(".dockerconfigjson"))?
            .auths
    } else if let Some(config) = data.get(".dockercfg") {
        serde_json::from_slice(&config.0).map_err(|_| broken(".dockercfg"))?
    } else {
        return Err("it has neither .dockerconfigjson nor .dockercfg".to_owned());
    };
    Ok(auths
        .into_iter()
        .map(|(registry, auth)| credential(registry, auth))
        .collect())
}

fn credential(registry: String, auth: Auth) -> PullSecret {
    let (mut username, mut password) = (auth.username, auth.password);
    let decoded = STANDARD.decode(auth.auth.trim()).ok();
    if let Some((user, secret)) = decoded
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .as_deref()
        .and_then(|text| text.split_once(':'))
    {
        user.clone_into(&mut username);
        secret.trim_end_matches('\0').clone_into(&mut password);
    }
    PullSecret {
        registry,
        username,
        password,
        identity_token: auth.identitytoken,
    }
}
