//! The watcher against a metadata service in this process.

use std::time::Duration;

use kip_cell_api::v1::{InstanceNotice, NoticeKind};
use kip_cell_api::{MetadataKind, MetadataService};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{Pace, check, watch};
use crate::imds::{Imds, SPOT};

const PATIENCE: Duration = Duration::from_secs(20);
const PACE: Pace = Pace {
    every: Duration::from_millis(5),
    longest: Duration::from_millis(20),
    limit: Duration::from_secs(2),
};

async fn next(changes: &mut mpsc::Receiver<Vec<InstanceNotice>>) -> Vec<NoticeKind> {
    let notices = tokio::time::timeout(PATIENCE, changes.recv()).await;
    let notices = notices.expect("in time").expect("it watches");
    notices.iter().map(InstanceNotice::kind).collect()
}

/// Two minutes are all a spot pod gets: its notice must be seen, also by a service that lost its tokens, and one withdrawn must go.
#[tokio::test]
async fn a_notice_appears_and_goes_with_the_clouds_word() {
    let imds = Imds::default();
    let service = imds.serve().await;
    let (sender, mut changes) = mpsc::channel(1);
    let watching = tokio::spawn(watch(service, PACE, sender));
    imds.set(
        SPOT,
        Some(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#),
    );
    assert_eq!(next(&mut changes).await, [NoticeKind::Interruption]);
    imds.forget_tokens();
    imds.set(SPOT, None);
    assert_eq!(next(&mut changes).await, []);
    assert_eq!(imds.tokens_given(), 2, "one token is used for many questions");
    imds.set(REBALANCE, Some(r#"{"noticeTime": "2020-11-05T08:22:00Z"}"#));
    assert_eq!(next(&mut changes).await, [NoticeKind::Rebalance]);
    watching.abort();
}

const REBALANCE: &str = "/latest/meta-data/events/recommendations/rebalance";
const MAINTENANCE: &str = "/latest/meta-data/events/maintenance/scheduled";

/// A document in a form nobody foresaw must not cost a spot pod its two minutes, nor a maintenance its warning.
#[tokio::test]
async fn a_document_that_cannot_be_read_hides_no_other() {
    use NoticeKind::{Interruption, Maintenance, Rebalance};

    let imds = Imds::default();
    imds.set(REBALANCE, Some("soon"));
    imds.set(
        MAINTENANCE,
        Some(r#"[{"Code": "instance-retirement", "NotBefore": "21 Jan 2019 09:00:43 GMT", "State": "active"}]"#),
    );
    let service = imds.serve().await;
    let (sender, mut changes) = mpsc::channel(1);
    let watching = tokio::spawn(watch(service, PACE, sender));
    assert_eq!(next(&mut changes).await, [Maintenance]);
    imds.set(
        SPOT,
        Some(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#),
    );
    assert_eq!(next(&mut changes).await, [Interruption, Maintenance]);
    // What was read once stands while it cannot be read again.
    imds.set(SPOT, Some("nonsense"));
    imds.set(REBALANCE, Some(r#"{"noticeTime": "2020-11-05T08:22:00Z"}"#));
    assert_eq!(next(&mut changes).await, [Interruption, Rebalance, Maintenance]);
    imds.set(MAINTENANCE, Some("{}"));
    imds.set(SPOT, None);
    assert_eq!(next(&mut changes).await, [Rebalance, Maintenance]);
    watching.abort();
}

/// A cell whose metadata service comes up late, or not at all, runs its pod all the same.
#[tokio::test]
async fn a_service_that_does_not_answer_is_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let service = MetadataService {
        kind: MetadataKind::Ec2,
        endpoint: format!("http://{address}"),
    };
    let (sender, mut changes) = mpsc::channel(1);
    let watching = tokio::spawn(watch(service, PACE, sender));
    let imds = Imds::default();
    imds.set(
        SPOT,
        Some(r#"{"action": "stop", "time": "2017-09-18T08:22:00Z"}"#),
    );
    let listener = TcpListener::bind(address).await.expect("binds again");
    let serving = tokio::spawn(imds.answer_all(listener));
    assert_eq!(next(&mut changes).await, [NoticeKind::Interruption]);
    watching.abort();
    serving.abort();
}

#[test]
fn an_endpoint_that_cannot_be_asked_is_refused() {
    for good in [
        "http://169.254.169.254",
        "http://127.0.0.1:8080",
        "http://[fd00:ec2::254]",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "169.254.169.254",
        "https://x",
        "http://x/latest",
        "http://a@b",
        "http:///",
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
}
