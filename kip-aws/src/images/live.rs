//! The images that are booted now: looked up again in the background, and at once when one of them is gone.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_config::SdkConfig;
use kip_core::error::Result;
use kip_core::model::Architecture;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{BootImage, ImageSpec, parameters, resolve};
use crate::api::Api;
use crate::config::AwsConfig;

/// Whoever finds an image gone looks again only if nobody has for so long: a burst of launches asks once.
const PAUSE: Duration = Duration::from_secs(5);

type Found = BTreeMap<Architecture, BootImage>;

/// What instances boot from, by architecture. The background task ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Images {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    api: Api,
    ssm: aws_sdk_ssm::Client,
    spec: ImageSpec,
    current: ArcSwap<Found>,
    /// Held by whoever looks; when that was last.
    looked: Mutex<Option<Instant>>,
}

impl Images {
    /// Finds the images and follows them.
    ///
    /// # Errors
    /// `ConfigInvalid` when there are none; what the calls answer.
    pub(crate) async fn open(api: Api, sdk: &SdkConfig, config: &AwsConfig) -> Result<Self> {
        let shared = Arc::new(Shared {
            api,
            ssm: parameters::client(sdk, config),
            spec: config.images.clone(),
            current: ArcSwap::default(),
            looked: Mutex::default(),
        });
        shared.current.store(Arc::new(shared.find().await?));
        let (follower, interval) = (Arc::clone(&shared), config.image_interval);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(jittered(interval)).await;
                let mut looked = follower.looked.lock().await;
                follower.look(&mut looked).await;
            }
        });
        Ok(Self { shared, task })
    }

    /// The image of an architecture.
    pub(crate) fn of(&self, architecture: Architecture) -> Option<BootImage> {
        self.shared.current.load().get(&architecture).cloned()
    }

    /// The architectures there were images for. None is lost later.
    pub(crate) fn architectures(&self) -> impl Iterator<Item = Architecture> {
        let current = self.shared.current.load_full();
        current.keys().copied().collect::<Vec<_>>().into_iter()
    }

    /// EC2 says that an image is gone. Looks again, unless somebody has just done so. Whether there is another in its place now.
    pub(crate) async fn replaced(&self, gone: &str) -> bool {
        let mut looked = self.shared.looked.lock().await;
        let is_gone = || !self.shared.current.load().values().any(|image| image.id == gone);
        if !is_gone() && looked.is_none_or(|at| at.elapsed() >= PAUSE) {
            self.shared.look(&mut looked).await;
        }
        is_gone()
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn find(&self) -> Result<Found> {
        let mut spec = self.spec.clone();
        if !spec.ssm_parameters.is_empty() {
            let ids = parameters::images(&self.ssm, &spec.ssm_parameters).await?;
            spec.ids.extend(ids);
        }
        resolve(&self.api, &spec).await
    }

    /// Looks once. What is not found is kept as it was last known.
    async fn look(&self, looked: &mut Option<Instant>) {
        let found = self.find().await;
        *looked = Some(Instant::now());
        let before = self.current.load_full();
        match found {
            Ok(found) => {
                let now = merged(&before, found);
                if now != *before {
                    for (architecture, image) in &now {
                        tracing::info!(%architecture, image = image.id, "boot image");
                    }
                    self.current.store(Arc::new(now));
                }
            }
            Err(error) => {
                tracing::warn!(error = %error.chain(), "boot images could not be looked up; the last known are used");
            }
        }
    }
}

/// What is found takes the place of what was known; an architecture that is not found any more keeps its image.
fn merged(before: &Found, found: Found) -> Found {
    let mut now = before.clone();
    now.extend(found);
    now
}

/// An interval up to a tenth shorter or longer, so that controllers that were started together do not ask together.
fn jittered(interval: Duration) -> Duration {
    let part = u32::try_from(RandomState::new().hash_one(()) % 201).unwrap_or(100);
    interval * (900 + part) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str) -> BootImage {
        BootImage {
            id: id.into(),
            root_device: "/dev/xvda".into(),
            root_gib: 8,
            kept_volumes: Vec::new(),
        }
    }

    /// What can be launched was promised when EC2 was opened: pods were placed by it.
    #[test]
    fn no_architecture_is_lost_when_its_image_is_not_found() {
        let before = Found::from([
            (Architecture::Amd64, image("ami-1")),
            (Architecture::Arm64, image("ami-2")),
        ]);
        let now = merged(&before, Found::from([(Architecture::Amd64, image("ami-3"))]));
        let ids: Vec<_> = now.values().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, ["ami-3", "ami-2"]);
    }

    #[test]
    fn looks_are_spread_around_the_interval() {
        let interval = Duration::from_secs(300);
        for _ in 0..100 {
            let jittered = jittered(interval);
            assert!(
                (Duration::from_secs(270)..=Duration::from_secs(330)).contains(&jittered),
                "{jittered:?}"
            );
        }
    }
}
