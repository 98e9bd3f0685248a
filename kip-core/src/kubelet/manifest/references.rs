//! Which objects a pod refers to, and those objects once they were read.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, Secret, Service, Volume};

/// A service-account token a volume wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TokenWish {
    /// Whom it is for; None is the API server.
    pub(crate) audience: Option<String>,
    /// How long it should live, in seconds.
    pub(crate) expiration_seconds: i64,
}

/// The objects a pod refers to, by name in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    /// ConfigMaps.
    pub(crate) config_maps: BTreeSet<String>,
    /// Secrets, those for pulling images among them.
    pub(crate) secrets: BTreeSet<String>,
    /// Tokens.
    pub(crate) tokens: BTreeSet<TokenWish>,
    /// Whether service link variables are wanted for the services of the namespace. `kubernetes` always is.
    pub(crate) service_links: bool,
    /// The service account.
    pub(crate) service_account: String,
}

/// The result of reading one object.
#[derive(Clone, Debug)]
pub(crate) enum Fetched<T> {
    /// It is there.
    Found(T),
    /// It does not exist.
    Missing,
    /// It could not be read now.
    Failed(String),
}

/// The objects, as far as they could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// ConfigMaps by name.
    pub(crate) config_maps: BTreeMap<String, Fetched<ConfigMap>>,
    /// Secrets by name.
    pub(crate) secrets: BTreeMap<String, Fetched<Secret>>,
    /// Names of the pull secrets: the pod's, then the service account's.
    pub(crate) pull_secrets: Vec<String>,
    /// Services for link variables: those of the namespace, `default/kubernetes` among them.
    pub(crate) services: Vec<Service>,
    /// Tokens.
    pub(crate) tokens: BTreeMap<TokenWish, Fetched<String>>,
}

impl References {
    /// What a pod refers to.
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut refs = Self::default();
        let Some(spec) = &pod.spec else { return refs };
        refs.service_links = spec.enable_service_links != Some(false);
        refs.service_account = spec
            .service_account_name
            .clone()
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            refs.of_container(container);
        }
        for volume in spec.volumes.iter().flatten() {
            refs.of_volume(volume);
        }
        for secret in spec.image_pull_secrets.iter().flatten() {
            refs.secrets.insert(secret.name.clone());
        }
        refs.config_maps.remove("");
        refs.secrets.remove("");
        refs
    }

    fn of_container(&mut self, container: &Container) {
        for from in container.env_from.iter().flatten() {
            if let Some(map) = &from.config_map_ref {
                self.config_maps.insert(map.name.clone());
            }
            if let Some(secret) = &from.secret_ref {
                self.secrets.insert(secret.name.clone());
            }
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|env| env.value_from.as_ref())
        {
            let EnvVarSource {
                config_map_key_ref,
                secret_key_ref,
                ..
            } = source;
            if let Some(key) = config_map_key_ref {
                self.config_maps.insert(key.name.clone());
            }
            if let Some(key) = secret_key_ref {
                self.secrets.insert(key.name.clone());
            }
        }
    }

    fn of_volume(&mut self, volume: &Volume) {
        if let Some(map) = &volume.config_map {
            self.config_maps.insert(map.name.clone());
        }
        if let Some(secret) = &volume.secret {
            self.secrets.extend(secret.secret_name.clone());
        }
        let projected = volume
            .projected
            .as_ref()
            .and_then(|projected| projected.sources.as_ref());
        for source in projected.into_iter().flatten() {
            if let Some(map) = &source.config_map {
                self.config_maps.insert(map.name.clone());
            }
            if let Some(secret) = &source.secret {
                self.secrets.insert(secret.name.clone());
            }
            if let Some(token) = &source.service_account_token {
                self.tokens.insert(TokenWish::of(token));
            }
        }
    }
}

impl TokenWish {
    /// The token a projection wants.
    pub(crate) fn of(token: &k8s_openapi::api::core::v1::ServiceAccountTokenProjection) -> Self {
        Self {
            audience: token.audience.clone().filter(|audience| !audience.is_empty()),
            expiration_seconds: token.expiration_seconds.unwrap_or(3600),
        }
    }
}
