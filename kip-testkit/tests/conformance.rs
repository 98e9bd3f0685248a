//! The fake cloud passes the suite that real providers have to pass, or tests against it prove nothing.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kip_core::driver::TokioClock;
use kip_testkit::{FakeCloud, conformance, samples};

#[tokio::test(start_paused = true)]
async fn the_fake_cloud_is_a_cloud() {
    for lag in [Duration::ZERO, Duration::from_secs(10)] {
        let clock = Arc::new(TokioClock::starting_at(Timestamp::UNIX_EPOCH));
        let cloud = FakeCloud::lagging(clock, samples::offerings(), lag);
        cloud.set_boot_delay(Duration::from_secs(30));
        cloud.set_terminate_delay(Duration::from_secs(30));
        let report = conformance::run(Arc::new(cloud.clone()), conformance::Options::default()).await;
        assert!(report.is_success(), "lag {lag:?}\n{report}");
        assert!(cloud.instances().is_empty(), "the suite cleans up");
    }
}
