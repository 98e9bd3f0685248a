//! The watcher against a metadata service in this process.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kip_cell_api::v1::{InstanceNotice, NoticeKind};
use kip_cell_api::{MetadataKind, MetadataService};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Pace, check, watch};

const PATIENCE: Duration = Duration::from_secs(20);
const PACE: Pace = Pace {
    every: Duration::from_millis(5),
    longest: Duration::from_millis(20),
    limit: Duration::from_secs(2),
};
const SPOT: &str = "/latest/meta-data/spot/instance-action";

/// An IMDSv2 that knows one token at a time.
#[derive(Clone, Default)]
struct Imds(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    documents: BTreeMap<String, String>,
    token: u32,
    tokens_given: u32,
}

impl Imds {
    async fn serve(&self) -> MetadataService {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let endpoint = format!("http://{}", listener.local_addr().expect("address"));
        let imds = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(imds.clone().converse(stream));
            }
        });
        MetadataService {
            kind: MetadataKind::Ec2,
            endpoint,
        }
    }

    async fn converse(self, mut stream: TcpStream) {
        let (read, mut write) = stream.split();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(first)) = lines.next_line().await {
            let mut token = String::new();
            let mut ttl = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                let Some((name, value)) = line.split_once(": ") else {
                    break;
                };
                match name {
                    "x-aws-ec2-metadata-token" => value.clone_into(&mut token),
                    "x-aws-ec2-metadata-token-ttl-seconds" => value.clone_into(&mut ttl),
                    _ => {}
                }
            }
            let (status, body) = self.answer(&first, &token, &ttl);
            let answer = format!(
                "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            if write.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, first: &str, token: &str, ttl: &str) -> (u16, String) {
        let mut state = self.0.lock().expect("whole");
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        match (method, path) {
            ("PUT", "/latest/api/token") if ttl.parse().is_ok_and(|ttl: u32| ttl <= 21600) => {
                state.tokens_given += 1;
                (200, format!("token-{}", state.token))
            }
            ("GET", _) if token != format!("token-{}", state.token) => (401, String::new()),
            ("GET", path) => match state.documents.get(path) {
                Some(document) => (200, document.clone()),
                None => (404, "not found".into()),
            },
            _ => (400, String::new()),
        }
    }

    fn set(&self, path: &str, document: Option<&str>) {
        let mut state = self.0.lock().expect("whole");
        match document {
            Some(document) => state.documents.insert(path.into(), document.into()),
            None => state.documents.remove(path),
        };
    }

    fn forget_tokens(&self) {
        self.0.lock().expect("whole").token += 1;
    }

    fn tokens_given(&self) -> u32 {
        self.0.lock().expect("whole").tokens_given
    }
}

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
    imds.set(
        "/latest/meta-data/events/recommendations/rebalance",
        Some(r#"{"noticeTime": "2020-11-05T08:22:00Z"}"#),
    );
    assert_eq!(next(&mut changes).await, [NoticeKind::Rebalance]);
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
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(imds.clone().converse(stream));
        }
    });
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
