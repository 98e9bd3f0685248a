//! Reads the objects a pod refers to, all at once, and asks for its tokens.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use kube::api::{Api, ListParams};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{Fetched, References, Resolved, TokenWish};
use crate::driver::Clock;
use crate::error::Result;
use crate::kubelet::errors::{api_error, is_missing, post};

/// Longest time a token is kept without renewal.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Deserialize)]
struct TokenAnswer {
    status: TokenStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenStatus {
    token: String,
    expiration_timestamp: Timestamp,
}

impl std::fmt::Debug for TokenStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenStatus(…)")
    }
}

/// What was read, and when the first token must be renewed.
pub(crate) struct Read {
    /// The objects.
    pub(crate) resolved: Resolved,
    /// When 80 % of the shortest token's life are over.
    pub(crate) renew_at: Option<Timestamp>,
}

/// Reads them. An object that cannot be read is in the result as such, since it may be optional.
///
/// # Errors
/// Only when the services of the namespace cannot be listed: every container sees them.
pub(crate) async fn fetch(
    client: &kube::Client,
    clock: &dyn Clock,
    pod: &Pod,
    references: &References,
) -> Result<Read> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut resolved = Resolved::default();

    let own: Vec<String> = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.image_pull_secrets.as_ref())
        .into_iter()
        .flatten()
        .map(|secret| secret.name.clone())
        .filter(|name| !name.is_empty())
        .collect();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let (maps, found, tokens, services, of_account) = tokio::join!(
        join_all(references.config_maps.iter().map(|name| one(&config_maps, name))),
        join_all(references.secrets.iter().map(|name| one(&secrets, name))),
        join_all(references.tokens.iter().map(|wish| token(
            client,
            clock,
            pod,
            &references.service_account,
            wish
        ))),
        services(client, namespace, references.service_links),
        pull_secrets_of(&accounts, &references.service_account, own.is_empty()),
    );
    resolved.config_maps = references.config_maps.iter().cloned().zip(maps).collect();
    resolved.secrets = references.secrets.iter().cloned().zip(found).collect();
    let more = of_account
        .iter()
        .filter(|name| !references.secrets.contains(*name));
    let more: Vec<String> = more.cloned().collect();
    let found = join_all(more.iter().map(|name| one(&secrets, name))).await;
    resolved.secrets.extend(more.into_iter().zip(found));
    resolved.pull_secrets = if own.is_empty() { of_account } else { own };
    resolved.services = services?;
    let mut renew_at: Option<Timestamp> = None;
    for (wish, got) in references.tokens.iter().zip(tokens) {
        let fetched = match got {
            Fetched::Found((token, renew)) => {
                renew_at = Some(renew_at.map_or(renew, |at| at.min(renew)));
                Fetched::Found(token)
            }
            Fetched::Missing => Fetched::Missing,
            Fetched::Failed(error) => Fetched::Failed(error),
        };
        resolved.tokens.insert(wish.clone(), fetched);
    }
    Ok(Read { resolved, renew_at })
}

/// The account's pull secrets, which apply to pods that name none, as admission does it. Best effort: admission has usually done it, and
/// a node's own identity may not read accounts.
async fn pull_secrets_of(accounts: &Api<ServiceAccount>, name: &str, wanted: bool) -> Vec<String> {
    if !wanted {
        return Vec::new();
    }
    match accounts.get_opt(name).await {
        Ok(Some(account)) => {
            let secrets = account.image_pull_secrets.into_iter().flatten();
            secrets
                .map(|secret| secret.name)
                .filter(|name| !name.is_empty())
                .collect()
        }
        Ok(None) => Vec::new(),
        Err(error) => {
            tracing::debug!(account = name, %error, "the account's pull secrets could not be read");
            Vec::new()
        }
    }
}

async fn one<K>(api: &Api<K>, name: &str) -> Fetched<K>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    match api.get(name).await {
        Ok(object) => Fetched::Found(object),
        Err(error) if is_missing(&error) => Fetched::Missing,
        Err(error) => Fetched::Failed(api_error("read", error).message().to_owned()),
    }
}

async fn token(
    client: &kube::Client,
    clock: &dyn Clock,
    pod: &Pod,
    account: &str,
    wish: &TokenWish,
) -> Fetched<(String, Timestamp)> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let audiences: Vec<&String> = wish.audience.iter().collect();
    // As plain JSON: the API's own types differ between its versions.
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": audiences,
            "expirationSeconds": wish.expiration_seconds,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid,
            },
        },
    });
    let asked = clock.now();
    match post::<TokenAnswer>(client, &path, &request).await {
        Ok(TokenAnswer { status }) => {
            Fetched::Found((status.token, renewal(asked, status.expiration_timestamp)))
        }
        Err(error) if is_missing(&error) => Fetched::Missing,
        Err(error) => Fetched::Failed(api_error("request token", error).message().to_owned()),
    }
}

/// When 80 % of a token's life are over, at most a day from now.
fn renewal(asked: Timestamp, expires: Timestamp) -> Timestamp {
    let life = Duration::try_from(expires.duration_since(asked)).unwrap_or_default();
    asked
        .checked_add((life.mul_f64(0.8)).min(LONGEST_TOKEN))
        .unwrap_or(expires)
}

/// The services a pod sees as variables: `default/kubernetes` always, those of its namespace when it wants them; the namespace's win.
async fn services(client: &kube::Client, namespace: &str, links: bool) -> Result<Vec<Service>> {
    let failed = |error| api_error("list services", error);
    let masters: Api<Service> = Api::namespaced(client.clone(), "default");
    let own: Api<Service> = Api::namespaced(client.clone(), namespace);
    let (master, list) = tokio::join!(masters.get_opt("kubernetes"), async {
        if links {
            own.list(&ListParams::default()).await.map(|list| list.items)
        } else {
            Ok(Vec::new())
        }
    });
    let mut services: Vec<Service> = master.map_err(failed)?.into_iter().collect();
    services.extend(list.map_err(failed)?);
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_ends_and_at_least_daily() {
        let asked: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let hour = asked + Duration::from_secs(3600);
        assert_eq!(renewal(asked, hour), asked + Duration::from_secs(2880));
        let year = asked + Duration::from_secs(365 * 24 * 3600);
        assert_eq!(renewal(asked, year), asked + LONGEST_TOKEN);
    }
}
