//! Runs a plugin: a request on its standard input, an answer on its standard output.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::config::{self, Provider};

/// How long a plugin may take, as with the kubelet.
const LIMIT: Duration = Duration::from_secs(60);
/// The most of an answer that is read, in bytes.
const MAX_ANSWER: u64 = 1024 * 1024;
/// The most of its words about a failure that is passed on, in characters.
const MAX_WORDS: usize = 300;

/// A login. `Debug` prints no password.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Login {
    #[serde(default)]
    pub(super) username: String,
    #[serde(default)]
    pub(super) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Logins by the pattern of the images they are for.
pub(super) type Logins = Vec<(String, Login)>;

/// What an answer holds for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Holds {
    Image,
    Registry,
    Global,
}

/// A plugin's answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) holds: Holds,
    /// For how long, if it says so.
    pub(super) lasts: Option<Duration>,
    pub(super) logins: Logins,
}

/// `CredentialProviderResponse`; fields of later versions are passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    cache_key_type: Option<Holds>,
    cache_duration: Option<String>,
    auth: Option<BTreeMap<String, Login>>,
}

/// Asks for the login of an image. The error is one line for the pod's user.
///
/// The plugin is killed when it takes longer than a minute, or when this is dropped.
pub(super) async fn ask(provider: &Provider, image: &str) -> Result<Answer, String> {
    tokio::time::timeout(LIMIT, run(provider, image))
        .await
        .unwrap_or_else(|_| Err(format!("did not answer within {} s", LIMIT.as_secs())))
}

async fn run(provider: &Provider, image: &str) -> Result<Answer, String> {
    let request = json!({
        "apiVersion": provider.api_version,
        "kind": "CredentialProviderRequest",
        "image": image,
    });
    let mut plugin = Command::new(&provider.program)
        .args(&provider.args)
        .envs(provider.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let stdin = plugin.stdin.take();
    let (stdout, stderr) = (plugin.stdout.take(), plugin.stderr.take());
    let writing = async {
        if let Some(mut stdin) = stdin
            && let Err(error) = stdin.write_all(request.to_string().as_bytes()).await
        {
            // It may answer without having read.
            tracing::debug!(%error, "the plugin does not read its request");
        }
    };
    let ((), said, words) = tokio::join!(writing, read(stdout), read(stderr));
    let status = plugin.wait().await.map_err(|error| format!("is lost: {error}"))?;
    if !status.success() {
        let words = String::from_utf8_lossy(&words);
        let words: String = words.trim().chars().take(MAX_WORDS).collect();
        return Err(format!("ended with {status}: {words}"));
    }
    understand(&said, &provider.api_version)
}

async fn read(pipe: Option<impl AsyncRead + Unpin + Send>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let read = (&mut pipe).take(MAX_ANSWER).read_to_end(&mut bytes).await;
        if let Err(error) = read {
            tracing::debug!(%error, "the plugin's words break off");
        }
        // What is more is thrown away, or the plugin would wait for somebody to read it.
        if let Err(error) = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await {
            tracing::debug!(%error, "the plugin's words break off");
        }
    }
    bytes
}

/// Reads an answer. Errors never quote it: it holds passwords.
fn understand(said: &[u8], api_version: &str) -> Result<Answer, String> {
    let response: Response = serde_json::from_slice(said).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("its answer is no CredentialProviderResponse (line {line}, column {column})")
    })?;
    if response.api_version != api_version || response.kind != "CredentialProviderResponse" {
        return Err(format!(
            "its answer is {:?} of {:?}, not a CredentialProviderResponse of {api_version:?}",
            response.kind, response.api_version
        ));
    }
    let holds = response.cache_key_type.ok_or("its answer has no cacheKeyType")?;
    let lasts = response
        .cache_duration
        .as_deref()
        .map(config::duration)
        .transpose()
        .map_err(|error| format!("its answer's cacheDuration: {error}"))?;
    Ok(Answer {
        holds,
        lasts,
        logins: response.auth.unwrap_or_default().into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "credentialprovider.kubelet.k8s.io/v1";

    #[test]
    fn an_answer_in_the_documented_form_is_understood() {
        let text = format!(
            r#"{{"apiVersion": "{V1}", "kind": "CredentialProviderResponse", "cacheKeyType": "Registry", "cacheDuration": "6h0m0s",
            "auth": {{"*.dkr.ecr.*.amazonaws.com": {{"username": "AWS", "password": "hush"}}}}, "later": 1}}"#
        );
        let answer = understand(text.as_bytes(), V1).expect("good");
        assert_eq!(answer.holds, Holds::Registry);
        assert_eq!(answer.lasts, Some(Duration::from_secs(6 * 3600)));
        assert_eq!(answer.logins[0].1.password, "hush");
        assert!(
            !format!("{answer:?}").contains("hush"),
            "a password in a log must be changed"
        );
        let nothing = format!(
            r#"{{"apiVersion": "{V1}", "kind": "CredentialProviderResponse", "cacheKeyType": "Global", "auth": null}}"#
        );
        assert!(
            understand(nothing.as_bytes(), V1)
                .expect("good")
                .logins
                .is_empty()
        );
    }

    #[test]
    fn what_is_no_answer_is_told_without_quoting_it() {
        for (text, says) in [
            ("hush", "is no CredentialProviderResponse"),
            (r#"{"auth": {"x": "hush"}}"#, "is no CredentialProviderResponse"),
            (
                r#"{"apiVersion": "v0", "kind": "CredentialProviderResponse"}"#,
                "not a CredentialProviderResponse of",
            ),
            (
                r#"{"apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse"}"#,
                "no cacheKeyType",
            ),
        ] {
            let error = understand(text.as_bytes(), V1).expect_err(text);
            assert!(error.contains(says) && !error.contains("hush"), "{text}: {error}");
        }
    }
}
