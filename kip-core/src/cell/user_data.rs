//! What cells are given at boot: Kip's part, and what the operator adds to it. Pure: equal arguments, equal bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kip_cell_api::{BOOT_CONFIG_PATH, BootConfig, MetadataService};
use serde::Serialize;

use super::cloud_init::CloudInit;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Architecture;
use crate::provider::UserData;

const OP: &str = "make user-data";

/// What the operator adds to each cell's boot. The default adds nothing: the image has the agent in it and starts it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootOptions {
    /// Where cells fetch the agent from, by architecture. Empty: the image has it.
    pub agent: BTreeMap<Architecture, AgentDownload>,
    /// The operator's own cloud-init.
    pub cloud_init: Option<CloudInit>,
    /// The cloud's metadata service, in which agents look for what the cloud announces about their instance. None: they do not look.
    pub metadata: Option<MetadataService>,
}

/// An agent to be fetched at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AgentDownload {
    url: String,
    sha256: String,
}

impl AgentDownload {
    /// A download of the program at `url`, which is run only if its SHA-256 is `sha256` (64 hexadecimal digits).
    ///
    /// # Errors
    /// The field that is wrong, `url` or `sha256`, and what is wrong with it.
    pub fn new(url: &str, sha256: &str) -> Result<Self, (&'static str, String)> {
        let is_http = url.starts_with("https://") || url.starts_with("http://");
        // It stands between single quotes in a shell script.
        if !is_http
            || !url
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'\'' && b != b'\\')
        {
            return Err((
                "url",
                "must be a plain https:// or http:// URL of a kip-cell program".into(),
            ));
        }
        if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err((
                "sha256",
                "must be 64 hexadecimal digits, as sha256sum prints them".into(),
            ));
        }
        Ok(Self {
            url: url.to_owned(),
            sha256: sha256.to_ascii_lowercase(),
        })
    }
}

/// The user-data of a cell with this boot configuration.
///
/// Without options a `#cloud-config`. Else a `#cloud-config-archive`: the script that fetches the agent, then the operator's part, then Kip's,
/// which is merged into the operator's so that its files are written last and none of the operator's lists is lost.
pub(super) fn user_data(config: &BootConfig, options: &BootOptions) -> Result<UserData> {
    let json = |source| Error::new(ErrorKind::Unexpected, OP, "cannot write JSON").with_source(source);
    let is_alone = options.agent.is_empty() && options.cloud_init.is_none();
    let own = CloudConfig {
        write_files: [WriteFile {
            path: BOOT_CONFIG_PATH,
            permissions: "0600",
            content: serde_json::to_string(config).map_err(json)?,
        }],
        merge_how: if is_alone { &[] } else { &APPEND },
    };
    // JSON is YAML, and leaves nothing to quote.
    let own = format!("#cloud-config\n{}\n", serde_json::to_string(&own).map_err(json)?);
    if is_alone {
        return Ok(UserData::new(own));
    }
    let mut archive = "#cloud-config-archive\n".to_owned();
    let mut part = |content_type: &str, content: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            archive,
            "- {{\"type\": \"{content_type}\", \"content\": {}}}",
            quoted(content)
        );
    };
    if !options.agent.is_empty() {
        part("text/cloud-boothook", &agent_script(&options.agent));
    }
    if let Some(cloud_init) = &options.cloud_init {
        part(cloud_init.content_type(), cloud_init.text());
    }
    part("text/cloud-config", &own);
    Ok(UserData::new(archive))
}

/// The script that fetches and runs the agent.
fn agent_script(agent: &BTreeMap<Architecture, AgentDownload>) -> String {
    let mut cases = String::new();
    for (architecture, AgentDownload { url, sha256 }) in agent {
        let machine = match architecture {
            Architecture::Amd64 => "x86_64 | amd64",
            Architecture::Arm64 => "aarch64 | arm64",
        };
        let _ = writeln!(cases, "{machine}) url='{url}' sum={sha256} ;;");
    }
    include_str!("agent.sh").replace("@CASES@", cases.trim_end())
}

/// A YAML double-quoted scalar of ASCII only: what is raw in the operator's file must not spoil the whole document.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + text.len() / 16 + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' => quoted.push(c),
            c if u32::from(c) <= 0xffff => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => drop(write!(quoted, "\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

#[derive(Serialize)]
struct CloudConfig<'a> {
    write_files: [WriteFile<'a>; 1],
    #[serde(skip_serializing_if = "<[Merger]>::is_empty")]
    merge_how: &'a [Merger],
}

#[derive(Serialize)]
struct WriteFile<'a> {
    path: &'a str,
    permissions: &'a str,
    content: String,
}

/// How cloud-init joins this part with those before it. Source: "Merging user data sections", cloud-init documentation.
#[derive(Serialize)]
struct Merger {
    name: &'static str,
    settings: &'static [&'static str],
}

/// Lists are joined, and what was there before stays.
const APPEND: [Merger; 2] = [
    Merger {
        name: "list",
        settings: &["append"],
    },
    Merger {
        name: "dict",
        settings: &["no_replace", "recurse_array"],
    },
];

#[cfg(test)]
mod tests;
