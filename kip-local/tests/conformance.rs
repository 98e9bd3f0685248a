//! The suite every provider has to pass, on real instances of this machine.

mod support;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use kip_local::LocalCloud;
use kip_testkit::conformance;
use support::Place;

#[tokio::test]
async fn the_local_cloud_keeps_every_promise_of_a_provider() -> Result<()> {
    let place = Place::new()?;
    for boot_delay in [Duration::ZERO, Duration::from_millis(50)] {
        let mut config = place.bare()?;
        config.boot_delay = boot_delay;
        let cloud = LocalCloud::new(config).await?;
        let options = conformance::Options {
            patience: Duration::from_secs(30),
            interval: Duration::from_millis(10),
            ..conformance::Options::default()
        };
        let report = conformance::run(Arc::new(cloud.clone()), options).await;
        eprintln!("{report}");
        ensure!(report.is_success(), "{report}");
        drop(cloud);
        place.nothing_left().await?;
    }
    Ok(())
}
