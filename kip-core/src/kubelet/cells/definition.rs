//! The definition of the `Cell` resource, and its installation where that is allowed.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;

use super::resource::Cell;
use crate::error::{Error, ErrorKind, Result};
use crate::kubelet::errors::api_error;

/// How long the API server may take to serve the new resource.
const ESTABLISH: Duration = Duration::from_secs(30);

/// The definition as YAML, for `kubectl apply -f -`.
pub fn crd_yaml() -> String {
    // Plain data with string keys, which always serialises.
    serde_norway::to_string(&Cell::crd()).unwrap_or_default()
}

/// Installs the definition, or brings it up to date, and waits until the API serves it. Safe to repeat.
///
/// # Errors
/// `PermissionDenied` when this is not allowed and no definition is there: the message has the command that installs it. `Timeout` when
/// the API server does not serve it in time.
pub async fn install(client: &kube::Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = Cell::crd_name();
    let applied = api
        .patch(
            name,
            &PatchParams::apply("kip").force(),
            &Patch::Apply(&Cell::crd()),
        )
        .await;
    match applied {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 403 => return check(client).await,
        Err(error) => return Err(api_error("install the Cell resource", error)),
    }
    match tokio::time::timeout(ESTABLISH, await_condition(api, name, is_crd_established())).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::new(
            ErrorKind::Unavailable,
            "install the Cell resource",
            "whether the API serves it could not be watched",
        )
        .with_source(error)),
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            "install the Cell resource",
            "the API server took the definition but does not serve it",
        )),
    }
}

/// Without the right to install it, somebody else must have.
async fn check(client: &kube::Client) -> Result<()> {
    let cells: Api<Cell> = Api::all(client.clone());
    match cells.list(&kube::api::ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(not_served(api_error("install the Cell resource", error))),
    }
}

/// Adds the way out to an error that may mean that the resource is not installed.
pub(super) fn not_served(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(
            ErrorKind::PermissionDenied,
            "use the Cell resource",
            "the resource cells.kip.elotl.co is not installed, and this identity may not install it; an administrator does it once with: \
             kip crd | kubectl apply --server-side -f -",
        )
        .with_source(error),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_what_an_administrator_would_apply() {
        let yaml = crd_yaml();
        let crd: CustomResourceDefinition = serde_norway::from_str(&yaml).expect("a definition");
        assert_eq!(crd.metadata.name.as_deref(), Some("cells.kip.elotl.co"));
        assert_eq!(crd.spec.scope, "Cluster");
        let version = &crd.spec.versions[0];
        let subresources = version.subresources.as_ref().expect("subresources");
        assert!(subresources.status.is_some());
        let columns: Vec<&str> = version
            .additional_printer_columns
            .iter()
            .flatten()
            .map(|column| column.name.as_str())
            .collect();
        assert_eq!(
            columns,
            [
                "Pod", "Phase", "Type", "Zone", "Capacity", "Price", "Instance", "Age"
            ]
        );
        assert!(!yaml.contains("uint"), "formats the API server does not know");
    }
}
