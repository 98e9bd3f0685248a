//! The agent against a real containerd: what a user sees of a pod.

mod support;

use kip_cell_api::v1::ReadLogsRequest;
use support::{Cell, ended, pod};

/// The slice everything else builds on: a batch pod runs, its output and exit code can be read, nothing restarts it.
#[tokio::test]
async fn batch_pod_completes() {
    let cell = Cell::start().await;
    let pod = pod("Never", &[("main", "echo hello; exit 3")]);
    cell.deploy(&pod).await;
    let status = cell.wait("the pod has ended", |status| status.finished).await;
    assert_eq!(ended(&status.containers[0]), Some((3, "Error".into())), "{status:#?}");
    assert!(!status.pod_ips.is_empty(), "{status:#?}");
    let request = ReadLogsRequest { pod_uid: pod.uid.clone(), container: "main".into(), ..Default::default() };
    assert_eq!(cell.logs(request).await.expect("logs"), "hello\n");
}
