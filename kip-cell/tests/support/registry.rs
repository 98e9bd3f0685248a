//! An OCI registry with one image, in this process, that lets nobody in without the right login.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// User and password that are let in, and what that is in a request.
pub(crate) const LOGIN: (&str, &str) = ("AWS", "hush");
const AUTHORIZATION: &str = "basic qvdtomh1c2g=";

/// Serves the first image of an OCI archive as `app:1`. Answers the registry's host.
pub(crate) async fn serve(archive: &Path, folder: PathBuf) -> String {
    fs::create_dir_all(&folder).expect("folder");
    let mut unpack = Command::new("tar");
    unpack.arg("-C").arg(&folder).arg("-xf").arg(archive);
    assert!(unpack.status().is_ok_and(|status| status.success()), "unpacks");
    let index = fs::read(folder.join("index.json")).expect("index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("JSON");
    let digest = index["manifests"][0]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let host = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, folder.clone(), digest.clone()));
        }
    });
    host
}

async fn converse(mut stream: TcpStream, folder: PathBuf, image: String) {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(first)) = lines.next_line().await {
        let mut is_let_in = false;
        while let Ok(Some(line)) = lines.next_line().await {
            if line.is_empty() {
                break;
            }
            let line = line.to_ascii_lowercase();
            is_let_in |= line.strip_prefix("authorization: ") == Some(AUTHORIZATION);
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let found = path
            .strip_prefix("/v2/app/manifests/")
            .map(|tag| if tag == "1" { image.as_str() } else { tag })
            .or_else(|| path.strip_prefix("/v2/app/blobs/"))
            .and_then(|digest| Some((digest, read_blob(&folder, digest)?)));
        let (head, body) = match found {
            _ if !is_let_in => (
                "401 Unauthorized\r\nwww-authenticate: Basic realm=\"test\"".to_owned(),
                Vec::new(),
            ),
            Some((digest, bytes)) => {
                let kind = if path.contains("/manifests/") {
                    "application/vnd.oci.image.manifest.v1+json"
                } else {
                    "application/octet-stream"
                };
                let head = format!("200 OK\r\ncontent-type: {kind}\r\ndocker-content-digest: {digest}");
                (head, bytes)
            }
            None => ("404 Not Found".to_owned(), Vec::new()),
        };
        let head = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
        let body = if method == "HEAD" { Vec::new() } else { body };
        if write.write_all(head.as_bytes()).await.is_err() || write.write_all(&body).await.is_err() {
            return;
        }
    }
}

fn read_blob(folder: &Path, digest: &str) -> Option<Vec<u8>> {
    let hex = digest.strip_prefix("sha256:")?;
    let is_hex = hex.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| fs::read(folder.join("blobs/sha256").join(hex)).ok())?
}
