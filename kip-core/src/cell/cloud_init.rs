//! The user's own cloud-init file, which each cell is given beside Kip's.

use std::fmt;

use kip_cell_api::BOOT_CONFIG_PATH;
use serde_norway::Value;

use crate::error::{Error, ErrorKind, Result};

/// Where a downloaded agent lies on a cell.
pub(super) const AGENT_PATH: &str = "/usr/local/bin/kip-cell";
/// The agent's unit on a cell.
pub(super) const AGENT_UNIT: &str = "/etc/systemd/system/kip-cell.service";

const OP: &str = "read cloud-init file";
/// Encodings of a file's content. Source: module "Write Files", cloud-init documentation.
const ENCODINGS: [&str; 9] = [
    "b64",
    "base64",
    "gz",
    "gzip",
    "gz+b64",
    "gz+base64",
    "gzip+b64",
    "gzip+base64",
    "text/plain",
];
/// Kinds of user-data that are not taken, by their first line, and what to do.
const REFUSED: [(&str, &str); 6] = [
    ("#cloud-config-archive", "merge its parts into one #cloud-config"),
    ("#cloud-config-jsonp", "write what it patches as a #cloud-config"),
    ("#include", "copy what it includes into this file"),
    ("#part-handler", "use a #cloud-config or a #! script"),
    (
        "## template:",
        "write the values out, or compute them in a #! script",
    ),
    (
        "#cloud-boothook",
        "use bootcmd or runcmd in a #cloud-config, or a #! script",
    ),
];

/// A cloud-init file that was read and checked: a `#cloud-config` or a script that begins with `#!`.
///
/// It goes to each cell as it is written, as a part of its own: Kip's own part comes after it and is merged into it, so lists such as
/// `write_files` have both. Without a first line that says what it is, it is a `#cloud-config`, as it was for the old Kip.
///
/// `Debug` prints only its length: such files hold passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct CloudInit {
    text: String,
}

impl CloudInit {
    /// Checks a file's content; `file` is its name in errors.
    ///
    /// # Errors
    /// `ConfigInvalid` with file, line and field: text that is no YAML, a kind of user-data that is not taken, a field that cloud-init
    /// would stumble over, or a file that is Kip's own.
    pub fn parse(content: &[u8], file: &str) -> Result<Self> {
        let invalid = |line: Option<usize>, message: String| {
            let place = line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"));
            Error::new(ErrorKind::ConfigInvalid, OP, format!("{place}: {message}"))
        };
        let text = std::str::from_utf8(content).map_err(|error| {
            let line = content
                .iter()
                .take(error.valid_up_to())
                .filter(|b| **b == b'\n')
                .count()
                + 1;
            invalid(Some(line), "is not UTF-8 text".into())
        })?;
        let first = text.lines().next().unwrap_or_default().trim_end();
        if let Some((kind, instead)) = REFUSED.iter().find(|(kind, _)| first.starts_with(kind)) {
            return Err(invalid(Some(1), format!("`{kind}` is not taken here: {instead}")));
        }
        let lower = first.to_ascii_lowercase();
        if lower.starts_with("content-type:") || lower.starts_with("mime-version:") {
            let message = "a MIME archive is not taken here: merge its parts into one #cloud-config";
            return Err(invalid(Some(1), message.into()));
        }
        if first.starts_with("#!") {
            return Ok(Self {
                text: text.to_owned(),
            });
        }
        let value: Value = serde_norway::from_str(text).map_err(|error| {
            // The parser's words may quote the file; where it stopped does not.
            let line = error.location().map(|location| location.line());
            invalid(
                line,
                "is not valid YAML: check indentation, quotes and brackets here".into(),
            )
        })?;
        if let Some((field, message)) = problem(&value) {
            let line = line_of(text, &message.1);
            return Err(invalid(line, format!("{field}: {}", message.0)));
        }
        let text = if first.starts_with("#cloud-config") {
            text.to_owned()
        } else {
            format!("#cloud-config\n{text}")
        };
        Ok(Self { text })
    }

    /// As it is sent.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// What it is, as cloud-init names kinds of user-data.
    pub(super) fn content_type(&self) -> &'static str {
        if self.text.starts_with("#!") {
            "text/x-shellscript"
        } else {
            "text/cloud-config"
        }
    }
}

impl fmt::Debug for CloudInit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudInit({} bytes)", self.text.len())
    }
}

/// The field that is wrong, then what is wrong with it and a text that stands on its line.
type Problem = (String, (String, String));

/// The first thing in a cloud-config that keeps a cell from booting as its author wants.
fn problem(value: &Value) -> Option<Problem> {
    let at = |field: &str, message: &str, near: &str| {
        Some((field.to_owned(), (message.to_owned(), near.to_owned())))
    };
    let config = match value {
        Value::Null => return None,
        Value::Mapping(config) => config,
        _ => return at("cloud-config", "must be a mapping such as `runcmd: [...]`", ""),
    };
    if config.contains_key("milpa_files") {
        return at(
            "milpa_files",
            "is not known to cloud-init; write it as write_files",
            "milpa_files",
        );
    }
    for field in ["write_files", "runcmd", "bootcmd", "ssh_authorized_keys"] {
        if config
            .get(field)
            .is_some_and(|value| !value.is_sequence() && !value.is_null())
        {
            return at(field, "must be a list", field);
        }
    }
    let files = config.get("write_files").and_then(Value::as_sequence)?;
    files
        .iter()
        .enumerate()
        .find_map(|(i, file)| file_problem(i, file))
}

fn file_problem(i: usize, file: &Value) -> Option<Problem> {
    let text = |key: &str| file.get(key).and_then(Value::as_str);
    let at = |key: &str, message: String, near: &str| {
        Some((format!("write_files[{i}].{key}"), (message, near.to_owned())))
    };
    let Some(path) = text("path") else {
        return at("path", "is required, an absolute path".into(), "write_files");
    };
    if !path.starts_with('/') {
        return at("path", format!("`{path}` must be an absolute path"), path);
    }
    if [BOOT_CONFIG_PATH, AGENT_PATH, AGENT_UNIT].contains(&plain(path).as_str()) {
        return at(
            "path",
            format!("`{path}` is Kip's own file on a cell: leave it out"),
            path,
        );
    }
    if let Some(encoding) = text("encoding").filter(|encoding| !ENCODINGS.contains(encoding)) {
        let message = format!("`{encoding}` is none of {}", ENCODINGS.join(", "));
        return at("encoding", message, encoding);
    }
    let is_mode = |mode: &str| {
        (3..=5).contains(&mode.len())
            && mode
                .trim_start_matches("0o")
                .bytes()
                .all(|b| (b'0'..=b'7').contains(&b))
    };
    if let Some(mode) = text("permissions").filter(|mode| !is_mode(mode)) {
        return at("permissions", format!("`{mode}` is no mode such as '0644'"), mode);
    }
    None
}

/// A path without what does not change where it leads: `/etc//kip/./cell.json` is `/etc/kip/cell.json`.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The first line, from 1, that has a text in it.
fn line_of(text: &str, near: &str) -> Option<usize> {
    (!near.is_empty())
        .then(|| text.lines().position(|line| line.contains(near)))?
        .map(|line| line + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let error = CloudInit::parse(text.as_bytes(), "init.yaml").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
        error.message().to_owned()
    }

    /// A mistake found at start costs a minute; one found by cloud-init costs an instance for each pod.
    #[test]
    fn a_file_that_no_cell_could_boot_with_is_refused_with_its_line_and_field() {
        for (text, expected) in [
            ("#cloud-config\nruncmd: [\n", "init.yaml:3: is not valid YAML"),
            ("- a\n", "init.yaml: cloud-config: must be a mapping"),
            (
                "#cloud-config\nruncmd: ls\n",
                "init.yaml:2: runcmd: must be a list",
            ),
            (
                "write_files:\n- content: x\n",
                "init.yaml:1: write_files[0].path: is required",
            ),
            (
                "write_files:\n- {path: etc/x}\n",
                "init.yaml:2: write_files[0].path: `etc/x` must be absolute",
            ),
            (
                "write_files:\n- {path: /a}\n- {path: /etc//kip/../kip/cell.json}\n",
                "init.yaml:3: write_files[1].path: `/etc//kip/../kip/cell.json` is Kip's own file",
            ),
            (
                "write_files: [{path: /usr/local/bin/kip-cell}]",
                "is Kip's own file",
            ),
            (
                "write_files:\n- path: /a\n  encoding: rot13\n",
                "init.yaml:3: write_files[0].encoding: `rot13`",
            ),
            (
                "write_files:\n- path: /a\n  permissions: rw\n",
                "init.yaml:3: write_files[0].permissions: `rw`",
            ),
            ("milpa_files: []", "init.yaml:1: milpa_files: is not known"),
            (
                "#cloud-config-archive\n- {}\n",
                "init.yaml:1: `#cloud-config-archive` is not taken",
            ),
            (
                "#include\nhttps://example.com\n",
                "init.yaml:1: `#include` is not taken",
            ),
            (
                "## template: jinja\n#cloud-config\n",
                "`## template:` is not taken",
            ),
            (
                "Content-Type: multipart/mixed; boundary=x\n",
                "a MIME archive is not taken",
            ),
        ] {
            let message = refusal(text);
            let expected = expected.replace("must be absolute", "must be an absolute path");
            assert!(message.contains(&expected), "{text:?}: {message}");
        }
        let error = CloudInit::parse(b"#cloud-config\nhostname: \xff\n", "init.yaml").unwrap_err();
        assert!(error.message().contains("init.yaml:2: is not UTF-8"), "{error}");
    }

    #[test]
    fn what_the_old_kip_took_is_taken_and_nothing_in_it_is_printed() {
        let old = "users:\n- name: ann\n  passwd: hush\nssh_authorized_keys: [ssh-ed25519 AAAA]\nhostname: cell\n\
                   write_files:\n- path: /etc/motd\n  permissions: '0644'\n  encoding: gz+b64\n  content: x\n\
                   runcmd:\n- echo hi\n- [echo, hi]\npackages: [jq]\n";
        let read = CloudInit::parse(old.as_bytes(), "init.yaml").unwrap();
        assert_eq!(read.text(), format!("#cloud-config\n{old}"));
        assert_eq!(read.content_type(), "text/cloud-config");
        assert!(!format!("{read:?}").contains("hush"));
        let script = CloudInit::parse(b"#!/bin/sh\necho hi\n", "init.sh").unwrap();
        assert_eq!(
            (script.text(), script.content_type()),
            ("#!/bin/sh\necho hi\n", "text/x-shellscript")
        );
        assert!(CloudInit::parse(b"", "init.yaml").is_ok());
    }
}
