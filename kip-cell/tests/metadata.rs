//! The whole agent beside a metadata service: what the cloud announces is in the status stream, runtime or not.

mod support;

use kip_cell::{Agent, CredentialProviders};
use kip_cell_api::BootConfig;
use kip_cell_api::v1::{NoticeKind, StatusSnapshot, WatchStatusRequest};
use support::imds::{Imds, SPOT};
use support::{Certs, PATIENCE};

/// Two minutes are all that a spot pod has: the controller must hear of it from an agent whose containerd hangs, too.
#[tokio::test]
async fn what_the_cloud_announces_reaches_the_controller_and_goes_when_it_is_withdrawn() {
    let folder = tempfile::tempdir().expect("folder");
    let certs = Certs::new();
    let (certificate_pem, private_key_pem) = certs.server("test-cell");
    let imds = Imds::default();
    let config = BootConfig {
        version: 1,
        cell: "test-cell".into(),
        node: "test-node".into(),
        pod_uid: String::new(),
        ca_pem: certs.authority(),
        certificate_pem,
        private_key_pem,
        listen: "127.0.0.1:0".into(),
        runtime_socket: folder.path().join("none.sock").to_string_lossy().into_owned(),
        state_dir: folder.path().join("agent").to_string_lossy().into_owned(),
        cgroup_parent: String::new(),
        metadata: Some(imds.serve().await),
    };
    let agent = Agent::bind(&config, CredentialProviders::default())
        .await
        .expect("binds");
    let mut client = certs.client(&agent.address().to_string());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(agent.run(async move { drop(stopped.await) }));

    let mut status = client
        .watch_status(WatchStatusRequest {})
        .await
        .expect("watches")
        .into_inner();
    imds.set(
        SPOT,
        Some(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#),
    );
    let mut wait = async |condition: fn(&StatusSnapshot) -> bool| {
        let watching = async {
            loop {
                let snapshot = status.message().await.expect("answers").expect("goes on");
                if condition(&snapshot) {
                    return snapshot;
                }
            }
        };
        tokio::time::timeout(PATIENCE, watching).await.expect("in time")
    };
    let told = wait(|status| !status.notices.is_empty()).await;
    assert_eq!(told.notices[0].kind(), NoticeKind::Interruption);
    assert_eq!(told.notices[0].at.expect("a time").seconds, 1_505_722_920);
    imds.set(SPOT, None);
    wait(|status| status.notices.is_empty()).await;
    drop(stop);
    running.await.expect("ends").expect("in order");
}
