//! Registry credentials from the kubelet's *image credential provider plugins*: programs that know how the cell's own identity becomes a
//! login, such as `ecr-credential-provider` for the cell's IAM role. Asked for images that no pull secret of the pod covers.
//!
//! Configuration, matching, plugin protocol and caching are the kubelet's. Source: "Configure a kubelet image credential provider",
//! Kubernetes documentation, and the API references `kubelet.config.k8s.io/v1` and `credentialprovider.kubelet.k8s.io/v1`.

mod cache;
mod config;
mod matching;
mod plugin;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cri::v1::AuthConfig;
use crate::pod::image;
use cache::Cache;
use config::Provider;
use matching::Pattern;

/// Where the configuration lies on a cell, relative to the cell's root folder.
pub const CREDENTIAL_PROVIDER_CONFIG_PATH: &str = "/etc/kip/credential-providers.yaml";

/// Where the plugins lie on a cell, relative to the cell's root folder.
pub const CREDENTIAL_PROVIDER_BIN_DIR: &str = "/usr/libexec/kip/credential-providers";

/// The credential provider plugins of a cell. Clones are the same providers, with one cache. The default has none.
#[derive(Clone, Debug, Default)]
pub struct CredentialProviders(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    providers: Vec<Asked>,
    /// Why there are none although there should be.
    problem: Option<String>,
}

/// A provider and what it said. The lock is held while it runs: whoever asks meanwhile most likely wants the same answer.
#[derive(Debug)]
struct Asked {
    provider: Provider,
    cache: Mutex<Cache>,
}

/// What is known about an image's registry.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The login, if a plugin gave one.
    pub(crate) auth: Option<AuthConfig>,
    /// Why a plugin gave none although it should have.
    pub(crate) problems: Vec<String>,
}

impl CredentialProviders {
    /// Reads a `CredentialProviderConfig`, YAML or JSON, whose plugins lie in `bin_dir`.
    ///
    /// A configuration that cannot be used does not keep the agent from running pods: it is logged, and told as an event of a pod whose
    /// image no pull secret covers.
    #[must_use]
    pub fn load(config: &Path, bin_dir: &Path) -> Self {
        let read = std::fs::read_to_string(config).map_err(|error| format!("cannot be read: {error}"));
        let loaded = read.and_then(|text| config::parse(&text, bin_dir));
        let inner = match loaded {
            Ok(providers) => Inner {
                providers: providers.into_iter().map(Asked::new).collect(),
                problem: None,
            },
            Err(problem) => {
                let problem = format!("image credential providers: {}: {problem}", config.display());
                tracing::error!("{problem}");
                Inner {
                    providers: Vec::new(),
                    problem: Some(problem),
                }
            }
        };
        Self(Arc::new(inner))
    }

    /// The login for an image: of all that plugins give for it the most specific, the earlier plugin's first.
    pub(crate) async fn find(&self, wanted: &str) -> Found {
        let name = image::repository(wanted);
        let mut problems: Vec<String> = self.0.problem.iter().cloned().collect();
        let mut best: Option<(String, plugin::Login)> = None;
        for asked in &self.0.providers {
            if !asked.provider.images.iter().any(|pattern| pattern.fits(&name)) {
                continue;
            }
            match asked.logins(&name).await {
                Ok(logins) => {
                    for (key, login) in logins {
                        let is_better = best.as_ref().is_none_or(|(best, _)| key.len() > best.len());
                        if is_better && fits(&key, &name) {
                            best = Some((key, login));
                        }
                    }
                }
                Err(error) => {
                    let provider = &asked.provider.name;
                    problems.push(format!("image credential provider {provider}: {error}"));
                }
            }
        }
        let registry = name.split('/').next().unwrap_or_default();
        let auth = best.map(|(_, login)| AuthConfig {
            username: login.username,
            password: login.password,
            server_address: image::server_address(registry),
            ..Default::default()
        });
        Found { auth, problems }
    }
}

/// Whether a key of a plugin's answer covers an image. A key that cannot be read covers nothing.
fn fits(key: &str, name: &str) -> bool {
    Pattern::parse(&image::normalized(key)).is_ok_and(|pattern| pattern.fits(name))
}

impl Asked {
    fn new(provider: Provider) -> Self {
        Self {
            provider,
            cache: Mutex::default(),
        }
    }

    /// What the provider says about an image, from memory while that holds.
    async fn logins(&self, name: &str) -> Result<plugin::Logins, String> {
        let mut cache = self.cache.lock().await;
        if let Some(known) = cache.get(name, Instant::now()) {
            return Ok(known);
        }
        let answer = plugin::ask(&self.provider, name).await?;
        let lasts = answer.lasts.unwrap_or(self.provider.default_cache_duration);
        let logins = answer.logins.clone();
        cache.put(name, answer, Instant::now(), lasts);
        Ok(logins)
    }
}
