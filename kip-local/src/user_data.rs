//! What cloud-init does with user-data on a real instance: writes the files it asks for.

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use flate2::read::GzDecoder;
use kip_core::error::{Error, ErrorKind, Result};
use kip_core::provider::UserData;
use serde::Deserialize;

/// A file to be written before anything else runs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BootFile {
    /// Path relative to the instance's root.
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) content: Vec<u8>,
}

#[derive(Deserialize)]
struct CloudConfig {
    #[serde(default)]
    write_files: Vec<WriteFile>,
}

#[derive(Deserialize)]
struct WriteFile {
    path: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    permissions: Option<String>,
    #[serde(default)]
    encoding: Option<String>,
}

/// A part of a `#cloud-config-archive`.
#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    content: String,
}

/// Larger user-data than this is not unpacked: no cloud would take what it is made of.
const UNPACKED: u64 = 16 * 1024 * 1024;

/// The files that user-data asks for, in the order in which they are written. It may be compressed with gzip, as on EC2. Scripts and
/// commands are not run: an instance here has the agent, and is no machine to be set up. Like on any cloud, user-data that is neither
/// a `#cloud-config` nor an archive of such is accepted and does nothing.
///
/// # Errors
/// `InvalidRequest` when cloud-init would stumble over it.
pub(crate) fn files(user_data: &UserData) -> Result<Vec<BootFile>> {
    let plain = unpacked(user_data.as_bytes()).ok_or_else(|| invalid("it is not whole gzip"))?;
    let Ok(text) = std::str::from_utf8(&plain) else {
        return Ok(Vec::new());
    };
    let Some((head, body)) = text.split_once('\n') else {
        return Ok(Vec::new());
    };
    match head.trim_end() {
        "#cloud-config" => files_of(body),
        "#cloud-config-archive" => {
            let parts: Vec<Part> = serde_norway::from_str(body)
                .map_err(|_| invalid("the #cloud-config-archive is not valid YAML"))?;
            let is_config = |part: &Part| match part.kind.as_deref() {
                Some(kind) => kind == "text/cloud-config",
                None => part.content.starts_with("#cloud-config"),
            };
            let mut all = Vec::new();
            for part in parts.iter().filter(|part| is_config(part)) {
                all.extend(files_of(&part.content)?);
            }
            Ok(all)
        }
        _ => Ok(Vec::new()),
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidRequest, "read user-data", message)
}

/// The bytes as they were before gzip; as they are if they were not packed. None when gzip breaks off.
fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    const MAGIC: [u8; 2] = [0x1f, 0x8b];
    if !bytes.starts_with(&MAGIC) {
        return Some(bytes.to_vec());
    }
    let mut plain = Vec::new();
    let mut gzip = GzDecoder::new(bytes).take(UNPACKED);
    gzip.read_to_end(&mut plain).ok()?;
    Some(plain)
}

fn files_of(config: &str) -> Result<Vec<BootFile>> {
    // The parser's own message may quote the private key.
    let config: Option<CloudConfig> =
        serde_norway::from_str(config).map_err(|_| invalid("the #cloud-config is not valid YAML"))?;
    let files = config.map(|config| config.write_files).unwrap_or_default();
    files.into_iter().map(boot_file).collect()
}

fn boot_file(file: WriteFile) -> Result<BootFile> {
    let path = relative(&file.path).ok_or_else(|| {
        invalid(format!(
            "write_files: `{}` must be absolute, without `..`",
            file.path
        ))
    })?;
    let mode = match &file.permissions {
        None => 0o644,
        Some(text) => u32::from_str_radix(text.trim_start_matches("0o"), 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| invalid(format!("write_files: permissions `{text}` of `{}`", file.path)))?,
    };
    let decoded = || {
        base64::engine::general_purpose::STANDARD
            .decode(file.content.split_whitespace().collect::<String>())
            .map_err(|_| invalid(format!("write_files: content of `{}` is not base64", file.path)))
    };
    let content = match file.encoding.as_deref() {
        None | Some("text/plain") => file.content.into_bytes(),
        Some("b64" | "base64") => decoded()?,
        Some("gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64") => {
            let packed = decoded()?;
            unpacked(&packed)
                .ok_or_else(|| invalid(format!("write_files: content of `{}` is not gzip", file.path)))?
        }
        Some(other) => {
            return Err(invalid(format!(
                "write_files: encoding `{other}` of `{}`",
                file.path
            )));
        }
    };
    Ok(BootFile { path, mode, content })
}

fn relative(path: &str) -> Option<PathBuf> {
    let inside = Path::new(path).strip_prefix("/").ok()?;
    (inside.components().next().is_some()
        && inside
            .components()
            .all(|part| matches!(part, Component::Normal(_))))
    .then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<BootFile>> {
        files(&UserData::new(text))
    }

    #[test]
    fn files_are_taken_from_a_cloud_config_in_json_and_in_yaml() {
        for text in [
            "#cloud-config\n{\"write_files\":[{\"path\":\"/etc/kip/cell.json\",\"permissions\":\"0600\",\"content\":\"a\\nb\"}]}\n",
            "#cloud-config\nruncmd: [x]\nwrite_files:\n- path: /etc/kip/cell.json\n  permissions: '0600'\n  encoding: b64\n  content: YQpi\n",
        ] {
            let files = read(text).unwrap();
            assert_eq!(files.len(), 1);
            assert_eq!(files[0].path, Path::new("etc/kip/cell.json"));
            assert_eq!(
                (files[0].mode, files[0].content.as_slice()),
                (0o600, b"a\nb".as_slice())
            );
        }
        assert!(read("#!/bin/sh\necho hi").unwrap().is_empty());
    }

    /// What EC2 is sent boots here too: compressed, in parts, with the operator's files before Kip's.
    #[test]
    fn files_are_taken_from_all_parts_of_a_compressed_archive_in_their_order() {
        let text = "#cloud-config-archive\n- {type: text/cloud-boothook, content: '#!/bin/sh'}\n\
            - {type: text/cloud-config, content: \"write_files:\\n- {path: /a, permissions: 0640, encoding: gz+b64, content: GZIP}\"}\n\
            - {content: \"#cloud-config\\n{}\"}\n\
            - {content: \"#cloud-config\\nwrite_files: [{path: /b, content: b}]\\n\"}\n";
        let gzip = |plain: &[u8]| {
            let mut packed = Vec::new();
            flate2::read::GzEncoder::new(plain, flate2::Compression::best())
                .read_to_end(&mut packed)
                .unwrap();
            packed
        };
        let inner = base64::engine::general_purpose::STANDARD.encode(gzip(b"a"));
        let packed = gzip(text.replace("GZIP", &inner).as_bytes());
        let found = files(&UserData::new(packed.clone())).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|file| (file.path.to_str().unwrap(), file.mode, file.content.as_slice()))
            .collect();
        assert_eq!(
            found,
            [("a", 0o640, b"a".as_slice()), ("b", 0o644, b"b".as_slice())]
        );
        assert!(files(&UserData::new(&packed[..packed.len() / 2])).is_err());
    }

    /// Without this check user-data could write outside of the instance.
    #[test]
    fn no_file_leaves_the_instance() {
        for path in ["../x", "/../x", "etc/x", "/a/../../x", "/"] {
            let error = read(&format!("#cloud-config\nwrite_files: [{{path: '{path}'}}]"))
                .map(|_| ())
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{path}");
        }
    }
}
