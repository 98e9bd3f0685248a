//! What Kip reads from, and keeps in, its cluster: the authority of cells, the API server's client CA, the DNS service.

use std::net::IpAddr;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use kip_core::cell::CellAuthority;
use kip_core::ids::ClusterUid;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

/// Name of the Secret that holds the authority of cells.
pub(crate) const CA_SECRET: &str = "kip-cell-ca";

/// Kip's own namespace when nothing else is said.
pub(crate) const NAMESPACE: &str = "kip";

/// The cluster's UID: that of its namespace kube-system, which nobody deletes.
///
/// # Errors
/// When the namespace cannot be read.
pub(crate) async fn cluster_uid(client: &Client) -> anyhow::Result<ClusterUid> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = api
        .get("kube-system")
        .await
        .context("cannot read the namespace kube-system, whose UID is the cluster's; check the cluster's address and the permissions")?;
    let uid = namespace
        .metadata
        .uid
        .context("the namespace kube-system has no UID")?;
    Ok(ClusterUid::new(uid))
}

/// The authority that certifies cells: read from its Secret, or made and stored there. When two controllers make it at once, one wins
/// and both use it.
///
/// # Errors
/// When the Secret can be neither read nor created, or holds something else.
pub(crate) async fn cell_authority(client: &Client, namespace: &str) -> anyhow::Result<CellAuthority> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let place = format!("the Secret {namespace}/{CA_SECRET}");
    loop {
        let stored = api
            .get_opt(CA_SECRET)
            .await
            .with_context(|| format!("cannot read {place}; check the permissions and --kip-namespace"))?;
        if let Some(secret) = stored {
            let text = |key: &str| {
                let bytes = secret.data.as_ref().and_then(|data| data.get(key));
                bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
            };
            let (Some(certificate), Some(key)) = (text("tls.crt"), text("tls.key")) else {
                bail!(
                    "{place} holds no tls.crt and tls.key; delete it once no cell runs, and it is made anew"
                );
            };
            return CellAuthority::from_pem(&certificate, &key).with_context(|| {
                format!("{place} cannot be used; delete it once no cell runs, and it is made anew")
            });
        }
        let authority = CellAuthority::generate("kip-cell-ca", Timestamp::now())
            .context("cannot make an authority for cells")?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(CA_SECRET.to_owned()),
                labels: Some([("app.kubernetes.io/name".to_owned(), "kip".to_owned())].into()),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(
                [
                    (
                        "tls.crt".to_owned(),
                        ByteString(authority.certificate_pem().into()),
                    ),
                    (
                        "tls.key".to_owned(),
                        ByteString(authority.private_key_pem().into()),
                    ),
                ]
                .into(),
            ),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => {
                tracing::info!(namespace, secret = CA_SECRET, "made the authority of cells");
                return Ok(authority);
            }
            // Another controller was faster: use what it stored.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot create {place}; create the namespace, or name another by --kip-namespace")
                });
            }
        }
    }
}

/// The authority of the API server's client certificate, as it publishes it. None when it does not.
///
/// # Errors
/// When the ConfigMap cannot be read for another reason than its absence.
pub(crate) async fn client_ca(client: &Client) -> anyhow::Result<Option<String>> {
    let map = Api::<ConfigMap>::namespaced(client.clone(), "kube-system")
        .get_opt("extension-apiserver-authentication")
        .await
        .context(
            "cannot read the ConfigMap kube-system/extension-apiserver-authentication; \
             bind the Role extension-apiserver-authentication-reader, or give --client-ca",
        )?;
    Ok(map
        .and_then(|map| map.data)
        .and_then(|mut data| data.remove("client-ca-file"))
        .filter(|pem| !pem.trim().is_empty()))
}

/// Addresses of the cluster's DNS service: empty when it has none.
///
/// # Errors
/// When the Service cannot be read for another reason than its absence.
pub(crate) async fn cluster_dns(client: &Client) -> anyhow::Result<Vec<IpAddr>> {
    let service = Api::<Service>::namespaced(client.clone(), "kube-system")
        .get_opt("kube-dns")
        .await
        .context(
            "cannot read the Service kube-system/kube-dns; check the permissions, or give --cluster-dns",
        )?;
    let Some(spec) = service.and_then(|service| service.spec) else {
        return Ok(Vec::new());
    };
    let addresses = spec
        .cluster_ips
        .unwrap_or_else(|| spec.cluster_ip.into_iter().collect());
    Ok(addresses
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect())
}
