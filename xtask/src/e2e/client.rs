//! For talking to the Kubernetes API without a client library in between: what is sent is what is written, and the
//! answer is seen whole. curl does the transport.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command::{cmd, outcome, read};

/// Media types of the patches an API server takes.
pub(crate) mod patch {
    pub(crate) const JSON: &str = "application/json-patch+json";
    pub(crate) const MERGE: &str = "application/merge-patch+json";
    pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
    pub(crate) const APPLY: &str = "application/apply-patch+yaml";
}

const SEPARATOR: &str = "\n--- answered ";

/// The API as the user of one kubeconfig.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    server: String,
    /// A curl configuration file with the credentials, so that no token shows in a process list.
    config: PathBuf,
    anonymous: PathBuf,
}

impl Api {
    /// Reads a kubeconfig of any form by way of kubectl; leaves curl's view of it in `folder`.
    pub(crate) fn from_kubeconfig(kubeconfig: &Path, kubectl: &Path, folder: &Path) -> Result<Self> {
        let mut view = cmd(
            kubectl,
            [
                "config",
                "view",
                "--raw",
                "--flatten",
                "--minify",
                "-o",
                "json",
                "--kubeconfig",
            ],
        );
        let config: Value =
            serde_json::from_str(&read(view.arg(kubeconfig))?).context("kubectl printed no JSON")?;
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let server = cluster["server"]
            .as_str()
            .context("the kubeconfig names no server")?
            .to_owned();
        let decode = |value: &Value, name: &str| -> Result<Option<PathBuf>> {
            let Some(data) = value.as_str() else {
                return Ok(None);
            };
            let (encoded, decoded) = (folder.join(format!("{name}.b64")), folder.join(name));
            std::fs::write(&encoded, data).with_context(|| format!("cannot write {}", encoded.display()))?;
            std::fs::write(&decoded, read(cmd("base64", ["--decode"]).arg(&encoded))?)
                .with_context(|| format!("cannot write {}", decoded.display()))?;
            Ok(Some(decoded))
        };
        let ca = decode(&cluster["certificate-authority-data"], "api-ca.crt")?
            .context("the kubeconfig has no CA")?;
        let common = format!("silent\nshow-error\ngloboff\ncacert = \"{}\"\n", ca.display());
        let mut with_user = common.clone();
        if let Some(token) = user["token"].as_str() {
            with_user.push_str(&format!("header = \"Authorization: Bearer {token}\"\n"));
        }
        if let Some(cert) = decode(&user["client-certificate-data"], "api-user.crt")? {
            with_user.push_str(&format!("cert = \"{}\"\n", cert.display()));
        }
        if let Some(key) = decode(&user["client-key-data"], "api-user.key")? {
            with_user.push_str(&format!("key = \"{}\"\n", key.display()));
        }
        let api = Self {
            server,
            config: folder.join("api-user.curl"),
            anonymous: folder.join("api-nobody.curl"),
        };
        std::fs::write(&api.config, with_user).context("cannot write curl's configuration")?;
        std::fs::write(&api.anonymous, common).context("cannot write curl's configuration")?;
        Ok(api)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        self.send(&Request::new("GET", path))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(&Request::new("POST", path).json(body))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(&Request::new("PUT", path).json(body))
    }

    pub(crate) fn patch(&self, path: &str, media_type: &'static str, body: &Value) -> Result<Answer> {
        self.send(&Request::new("PATCH", path).body(media_type, body.to_string()))
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Answer> {
        self.send(&Request::new("DELETE", path))
    }

    /// DELETE with options in the body.
    pub(crate) fn delete_with(&self, path: &str, options: &Value) -> Result<Answer> {
        self.send(&Request::new("DELETE", path).json(options))
    }

    pub(crate) fn send(&self, request: &Request) -> Result<Answer> {
        let config = if request.anonymous {
            &self.anonymous
        } else {
            &self.config
        };
        let mut curl = cmd(
            "curl",
            ["--max-time", "60", "--request", request.verb, "--config"],
        );
        curl.arg(config)
            .arg("--write-out")
            .arg(format!("{SEPARATOR}%{{http_code}}"));
        for header in &request.headers {
            curl.args(["--header", header]);
        }
        if let Some((media_type, body)) = &request.body {
            curl.arg("--header")
                .arg(format!("Content-Type: {media_type}"))
                .args(["--data-binary", body]);
        }
        let output = outcome(curl.arg(format!("{}{}", self.server, request.path)))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text
            .rsplit_once(SEPARATOR)
            .and_then(|(body, code)| Some((body.to_owned(), code.trim().parse().ok()?)))
            .with_context(|| {
                format!(
                    "{} {}: curl: {}",
                    request.verb,
                    request.path,
                    String::from_utf8_lossy(&output.stderr)
                )
            })?;
        // curl fails by itself when the connection breaks; an HTTP error is an answer.
        if !output.status.success() && code == 0 {
            bail!(
                "{} {}: {}",
                request.verb,
                request.path,
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        Ok(Answer {
            request: format!("{} {}", request.verb, request.path),
            code,
            json,
            text: body,
        })
    }
}

/// One request, spelled out.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    verb: &'static str,
    path: String,
    headers: Vec<String>,
    body: Option<(String, String)>,
    anonymous: bool,
}

impl Request {
    pub(crate) fn new(verb: &'static str, path: &str) -> Self {
        Self {
            verb,
            path: path.to_owned(),
            headers: Vec::new(),
            body: None,
            anonymous: false,
        }
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    pub(crate) fn body(mut self, media_type: &str, body: impl Into<String>) -> Self {
        self.body = Some((media_type.to_owned(), body.into()));
        self
    }

    pub(crate) fn header(mut self, header: impl Into<String>) -> Self {
        self.headers.push(header.into());
        self
    }

    /// Without the credentials of the kubeconfig.
    pub(crate) fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Verb and path, for messages.
    pub(crate) request: String,
    pub(crate) code: u16,
    /// The body, null when it is no JSON.
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Answer {
    /// The value at a JSON pointer, null when there is none.
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// Fails unless the code is in the 200s.
    pub(crate) fn ok(self) -> Result<Self> {
        if !(200..300).contains(&self.code) {
            bail!(
                "{} answered {}: {}",
                self.request,
                self.code,
                self.text.trim_end()
            );
        }
        Ok(self)
    }
}
