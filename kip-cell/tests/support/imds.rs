//! An instance metadata service of EC2, version 2, in this process.

#![allow(dead_code, reason = "every test uses its own part of this")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kip_cell_api::{MetadataKind, MetadataService};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// Where spot interruptions are announced.
pub(crate) const SPOT: &str = "/latest/meta-data/spot/instance-action";

/// An IMDSv2 that knows one token at a time.
#[derive(Clone, Default)]
pub(crate) struct Imds(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    documents: BTreeMap<String, String>,
    token: u32,
    tokens_given: u32,
}

impl Imds {
    /// Serves on a free port.
    pub(crate) async fn serve(&self) -> MetadataService {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let endpoint = format!("http://{}", listener.local_addr().expect("address"));
        tokio::spawn(self.clone().answer_all(listener));
        MetadataService {
            kind: MetadataKind::Ec2,
            endpoint,
        }
    }

    /// Serves on this socket for ever.
    pub(crate) async fn answer_all(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().converse(stream));
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

    /// Puts a document there, or takes it away.
    pub(crate) fn set(&self, path: &str, document: Option<&str>) {
        let mut state = self.0.lock().expect("whole");
        match document {
            Some(document) => state.documents.insert(path.into(), document.into()),
            None => state.documents.remove(path),
        };
    }

    /// Knows no token any more.
    pub(crate) fn forget_tokens(&self) {
        self.0.lock().expect("whole").token += 1;
    }

    /// How many tokens were asked for.
    pub(crate) fn tokens_given(&self) -> u32 {
        self.0.lock().expect("whole").tokens_given
    }
}
