//! The definition of the `Cell` resource, and its installation and upgrade where that is allowed.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::{CustomResourceExt as _, Resource as _};

use super::resource::Cell;
use crate::error::{Error, ErrorKind, Result};
use crate::kubelet::errors::api_error;

/// How long the API server may take to serve the new resource.
const ESTABLISH: Duration = Duration::from_secs(30);

/// Annotation of the definition with the version of its schema; one without it is older than all that have it.
pub const SCHEMA_ANNOTATION: &str = "kip.elotl.co/schema";

/// The version of the schema below. Grows by one with each change of fields or rules.
const SCHEMA: u32 = 2;

const COMMAND: &str = "kip crd | kubectl apply --server-side --force-conflicts -f -";

/// The definition.
fn definition() -> CustomResourceDefinition {
    let mut crd = Cell::crd();
    let annotations = crd.metadata.annotations.get_or_insert_default();
    annotations.insert(SCHEMA_ANNOTATION.to_owned(), SCHEMA.to_string());
    crd
}

/// The definition as YAML, for `kubectl apply -f -`.
pub fn crd_yaml() -> String {
    // Plain data with string keys, which always serialises.
    serde_norway::to_string(&definition()).unwrap_or_default()
}

/// What is installed, compared with what this version of Kip brings.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Installed {
    Nothing,
    /// Of an earlier version, or the same: to be brought up to date.
    Older(u32),
    Same,
    /// Of a later version, or of one that cannot be told: never written over.
    Newer(String),
    /// Of the Kip that was written in Go. The API server does not let another's versions take the place of those in which objects were
    /// stored.
    Predecessor,
}

impl Installed {
    fn of(crd: Option<&CustomResourceDefinition>) -> Self {
        let Some(crd) = crd else { return Self::Nothing };
        let annotations = crd.metadata.annotations.as_ref();
        match annotations.and_then(|all| all.get(SCHEMA_ANNOTATION)) {
            None if is_predecessor(crd) => Self::Predecessor,
            None => Self::Older(1),
            Some(text) => match text.parse::<u32>() {
                Ok(version) if version < SCHEMA => Self::Older(version),
                Ok(SCHEMA) => Self::Same,
                Ok(_) | Err(_) => Self::Newer(text.clone()),
            },
        }
    }
}

/// Installs the definition, or upgrades an older one, and waits until the API serves it. One of a newer Kip is left as it is. Safe to
/// repeat.
///
/// # Errors
/// `PermissionDenied` when this would have to be done and is not allowed: the message has the command that does it. `ConfigInvalid` when
/// what a newer Kip installed does not serve what this one needs. `Timeout` when the API server does not serve it in time.
pub async fn install(client: &kube::Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let found = match api.get_opt(Cell::crd_name()).await {
        Ok(found) => found,
        // Not even allowed to look: then it must do as it is.
        Err(kube::Error::Api(status)) if status.code == 403 => {
            tracing::warn!(
                "the definition of the Cell resource may not be read, so its version is not checked"
            );
            return check(client).await;
        }
        Err(error) => return Err(api_error("read the definition of the Cell resource", error)),
    };
    let installed = Installed::of(found.as_ref());
    match &installed {
        Installed::Newer(version) => {
            tracing::warn!(
                installed = version,
                ours = SCHEMA,
                "the Cell resource is of a newer version of Kip, or of an unknown one; it is left as it is"
            );
            return match found {
                Some(crd) if !is_served(&crd) => Err(Error::new(
                    ErrorKind::ConfigInvalid,
                    "use the Cell resource",
                    format!(
                        "its definition, of schema version {version:?}, does not serve {}, which this version of Kip needs; run the \
                         version of Kip that installed it",
                        Cell::api_version(&())
                    ),
                )),
                _ => Ok(()),
            };
        }
        Installed::Predecessor => {
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                "use the Cell resource",
                "the cluster has the definition of the old, Go-written Kip, which cannot be upgraded; once that Kip is stopped and its \
                 instances are gone, remove it with: kubectl delete crd cells.kip.elotl.co (nothing depends on the objects in it)",
            ));
        }
        Installed::Older(version) => {
            tracing::info!(installed = version, ours = SCHEMA, "upgrading the Cell resource");
        }
        Installed::Nothing | Installed::Same => {}
    }
    let patch = Patch::Apply(definition());
    let applied = api
        .patch(Cell::crd_name(), &PatchParams::apply("kip").force(), &patch)
        .await;
    match applied {
        Ok(_) => served(api).await,
        Err(kube::Error::Api(status)) if status.code == 403 => match installed {
            Installed::Same | Installed::Newer(_) | Installed::Predecessor => Ok(()),
            Installed::Nothing => Err(missing()),
            Installed::Older(version) => Err(Error::new(
                ErrorKind::PermissionDenied,
                "upgrade the Cell resource",
                format!(
                    "the resource cells.kip.elotl.co is of an older Kip (schema version {version}, this one needs {SCHEMA}), and this \
                     identity may not upgrade it; an administrator does it with: {COMMAND}"
                ),
            )),
        },
        Err(error) => Err(api_error("install the Cell resource", error)),
    }
}

/// Whether a definition without a version of its schema is the Go-written Kip's: it has other versions than any of ours.
fn is_predecessor(crd: &CustomResourceDefinition) -> bool {
    let ours = Cell::version(&());
    crd.spec.versions.iter().all(|version| version.name != ours)
}

async fn served(api: Api<CustomResourceDefinition>) -> Result<()> {
    let established = await_condition(api, Cell::crd_name(), is_crd_established());
    match tokio::time::timeout(ESTABLISH, established).await {
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

fn is_served(crd: &CustomResourceDefinition) -> bool {
    let version = Cell::version(&());
    crd.spec
        .versions
        .iter()
        .any(|served| served.served && served.name == version)
}

/// Without the right to look at it, somebody else must have installed it.
async fn check(client: &kube::Client) -> Result<()> {
    let cells: Api<kube::api::DynamicObject> =
        Api::all_with(client.clone(), &kube::api::ApiResource::erase::<Cell>(&()));
    match cells.list(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(not_served(api_error("install the Cell resource", error))),
    }
}

fn missing() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "use the Cell resource",
        format!(
            "the resource cells.kip.elotl.co is not installed, and this identity may not install it; an administrator does it once \
             with: {COMMAND}"
        ),
    )
}

/// Adds the way out to an error that may mean that the resource is not installed.
pub(super) fn not_served(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => missing().with_source(error),
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

    #[test]
    fn a_definition_of_a_newer_kip_is_never_written_over() {
        let of = |text: Option<&str>| {
            let mut crd = definition();
            let annotations = crd.metadata.annotations.get_or_insert_default();
            annotations.clear();
            annotations.extend(text.map(|text| (SCHEMA_ANNOTATION.to_owned(), text.to_owned())));
            Installed::of(Some(&crd))
        };
        assert_eq!(Installed::of(None), Installed::Nothing);
        assert_eq!(Installed::of(Some(&definition())), Installed::Same);
        assert_eq!(of(None), Installed::Older(1), "from before there was a version");
        assert_eq!(of(Some("1")), Installed::Older(1));
        let mut old = definition();
        old.metadata.annotations = None;
        old.spec.versions[0].name = "v1beta1".to_owned();
        assert_eq!(Installed::of(Some(&old)), Installed::Predecessor);
        for newer in ["3", "99999999999999999999", "2.1", "", "v3"] {
            assert_eq!(of(Some(newer)), Installed::Newer(newer.to_owned()));
        }
    }
}
